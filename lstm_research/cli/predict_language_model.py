"""`lstm-research predict` for a language model: continues a prompt.

lstm-research predict --workdir=runs/char_lm --prompt="ROMEO:" --length=500 --temperature=0.8
"""

from typing import Any

from absl import flags

from lstm_research.cli.predict_io import read_input, write_output
from lstm_research.common.errors import UserError

SHARED_FLAGS = ("input", "output", "temperature", "top_k", "top_p", "seed", "num_samples")
"""The flags of `predict` that this task reads."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    flags.DEFINE_string("prompt", None, "The text to continue, instead of --input; without both, a new line.")
    flags.DEFINE_integer("length", 500, "How many symbols (such as characters or words) to write.", lower_bound=1)


def main(trained: Any) -> None:
    """Writes the prompt and, as it is drawn, its continuation; several samples one after the other."""
    FLAGS = flags.FLAGS
    from lstm_research.decoding.sampling import Sampler

    num_samples = FLAGS.num_samples or 1
    prompt = _read_prompt(trained.task.default_prompt)
    pieces = trained.task.generate(
        trained.params,
        prompt,
        length=FLAGS.length,
        num_samples=num_samples,
        sampler=Sampler(FLAGS.temperature, FLAGS.top_k, FLAGS.top_p),
        seed=FLAGS.seed,
    )
    if num_samples == 1 and FLAGS.output in (None, "-"):
        for index, (piece,) in enumerate(pieces):
            # The prompt is shown only once the model has accepted it.
            print(piece if index else prompt + piece, end="", flush=True)
        print()
        return
    texts = [prompt + "".join(parts) for parts in zip(*pieces, strict=True)]
    if len(texts) > 1:
        texts = [f"--- sample {index} of {len(texts)} ---\n{text}" for index, text in enumerate(texts, 1)]
    write_output("\n".join(texts) + "\n")


def _read_prompt(default: str | None) -> str:
    FLAGS = flags.FLAGS
    if FLAGS.input is None:
        prompt = default if FLAGS.prompt is None else FLAGS.prompt
        if prompt is None:
            raise UserError(f"the vocabulary of {FLAGS.workdir} has no new line to begin with; give --prompt=TEXT")
        return prompt
    if FLAGS.prompt is not None:
        raise UserError("--prompt and --input (a file with the prompt) are two prompts; leave one of them out")
    return "\n".join(read_input())
