"""Says what a run of speech recognition is to be compared with: error rates without training, and without listening.

python experiments/speech/baselines.py --workdir=runs/speech/czech-0

Without listening, the most frequent character of the training transcripts is written as often as the reference has
characters, and the most frequent word as often as it has words.
"""

import argparse
import collections
from pathlib import Path

from transcripts import written

from lstm_research.analysis.dynamics import random_weights
from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.tasks.speech_metrics import error_rates
from lstm_research.training.trained_run import TrainedRun


def main() -> None:
    """Prints the error rates of the test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of the run")
    try:
        run = TrainedRun.load(parser.parse_args().workdir)
        texts = written(run.config)
    except UserError as error:
        parser.error(str(error))
    task = run.task
    dataset = build(SPEECH_DATASETS, run.config.dataset.to_dict(), where="dataset")
    train, test = texts["train"], texts["test"]
    signals = [each.signal for each in dataset.examples("test")]
    found = task.transcribe(random_weights(task, run.config.seed), signals)
    print("random weights:", error_rates([best.text for best, *_ in found], test))
    (word, _), *_ = collections.Counter(word for line in train for word in line.split()).most_common(1)
    print(f"always the word {word!r}: wer", error_rates([" ".join([word] * len(line.split())) for line in test], test))
    (letter, _), *_ = collections.Counter(letter for line in train for letter in line if letter != " ").most_common(1)
    print(f"always the character {letter!r}: cer", error_rates([letter * len(line) for line in test], test))


if __name__ == "__main__":
    main()
