"""`lstm-research predict`: lets a run predict. A language model continues a prompt.

lstm-research predict --workdir=runs/char_lm --prompt="ROMEO:" --length=500 --temperature=0.8
"""

from absl import flags

from lstm_research.cli import run_flags


def define_flags() -> None:
    """Defines the flags of this command."""
    run_flags.define_flags()
    flags.DEFINE_string("prompt", "\n", "The text to continue.")
    flags.DEFINE_integer("length", 500, "How many symbols (characters or words) to write.", lower_bound=1)
    flags.DEFINE_float("temperature", 1.0, "Divides the logits; 0 always takes the most likely symbol.")
    flags.DEFINE_integer("top_k", None, "Draw only from the k most likely symbols.")
    flags.DEFINE_float("top_p", 1.0, "Draw only from the most likely symbols that together reach this probability.")
    flags.DEFINE_integer("num_samples", 1, "How many texts to write.", lower_bound=1)
    same = "Of the draws: the same seed writes the same text."
    flags.DEFINE_integer("seed", 0, same, lower_bound=0, upper_bound=2**32 - 1)


def main(argv: list[str]) -> None:
    """Prints the prompt and, as it is written, its continuation; several samples one after the other."""
    FLAGS = flags.FLAGS
    trained = run_flags.load(argv)
    from lstm_research.decoding.sampling import Sampler

    pieces = trained.task.generate(
        trained.params,
        FLAGS.prompt,
        length=FLAGS.length,
        num_samples=FLAGS.num_samples,
        sampler=Sampler(FLAGS.temperature, FLAGS.top_k, FLAGS.top_p),
        seed=FLAGS.seed,
    )
    if FLAGS.num_samples == 1:
        for index, (piece,) in enumerate(pieces):
            # The prompt is shown only once the model has accepted it.
            print(piece if index else FLAGS.prompt + piece, end="", flush=True)
        print()
        return
    texts = ["".join(parts) for parts in zip(*pieces, strict=True)]
    for index, text in enumerate(texts, 1):
        print(f"--- sample {index} of {len(texts)} ---\n{FLAGS.prompt}{text}")
