"""What this study runs; `experiments/study.py` runs it."""

from study import Run


def text(folder: str) -> tuple[str, ...]:
    """Returns the overrides that name the files of `transcripts.py`."""
    return tuple(f"dataset.{split}={{runs}}/{folder}/{split}.txt" for split in ("train", "valid", "test"))


SMALL = ("model.num_layers=1", "model.embedding_size=64", "model.cell.hidden_size=128")

GROUPS: dict[str, list[Run]] = {
    "digits": [
        Run("digits", "speech.py"),
        Run("digits-no-spec-augment", "speech.py", ("task.spec_augment=None",)),
    ],
    "models": [
        Run("digits-forward", "speech.py:forward", seeds=(0,)),
        Run("digits-listen-attend-spell", "speech.py:listen_attend_spell", seeds=(0,)),
        Run("digits-transducer", "speech.py:transducer", seeds=(0,)),
    ],
    "czech": [Run("czech", "speech.py:czech", ("training.num_steps=1500",), seeds=(0,))],
    # After `transcripts.py` has written the texts.
    "digits_language_model": [
        Run("digits-lm", "word_lm.py:files", (*text("digits_text"), *SMALL, "training.num_steps=500"), seeds=(0,)),
    ],
    "czech_language_model": [
        Run(
            "czech-lm",
            "word_lm.py:files",
            (*text("czech_text"), *SMALL, "vocabulary.name=characters", "training.num_steps=1500"),
            seeds=(0,),
        ),
    ],
}
