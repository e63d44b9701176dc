"""Writes the transcripts of a run's data, one a line and written as the run has them, for a language model.

python experiments/speech/transcripts.py --workdir=runs/speech/digits-0 --output=runs/speech/digits_text
"""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.data.speech.utterances import written_alike
from lstm_research.training.workdir import read_workdir


def written(config: ConfigDict) -> dict[str, list[str]]:
    """Returns the transcripts of every split, as a run with this config learns them.

    Raises:
      UserError: it is no run of speech recognition.
    """
    if config.task.name != "speech_recognition":
        raise UserError(f"--workdir: a run of {config.task.name} has no transcripts; give one of speech_recognition")
    dataset = build(SPEECH_DATASETS, config.dataset.to_dict(), where="dataset")
    how = {"lower_case": config.task.get("lower_case", False), "punctuation": config.task.get("punctuation", True)}
    return {
        split: [written_alike(each.transcript, **how) for each in dataset.examples(split)] for split in dataset.splits
    }


def main() -> None:
    """Writes a file for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a run of speech recognition")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the files")
    arguments = parser.parse_args()
    try:
        texts = written(read_workdir(arguments.workdir)[1])
    except UserError as error:
        parser.error(str(error))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, lines in texts.items():
        (arguments.output / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
