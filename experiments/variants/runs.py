"""What this study runs; `experiments/study.py` runs it.

Within a task all variants have the same number of parameters, recipe, steps and seeds; only what their name says differs.
"""

from study import Run

CELLS = {
    "lstm": (),
    "peephole": ("model.cell.name=peephole_lstm",),
    "gru": ("model.cell.name=gru",),
    "mogrifier": ("model.cell.name=mogrifier_lstm",),
    "stacked": ("model.num_layers=2",),
}
BIDIRECTIONAL = {"bidirectional": ("model.bidirectional=True",)}


def runs(task: str, config: str, overrides: tuple[str, ...], variants: dict[str, tuple[str, ...]]) -> list[Run]:
    """Returns a run for each variant of a task, of equal size."""
    return [
        Run(f"{task}-{name}", config, ("model.cell.hidden_size=None", *overrides, *own))
        for name, own in variants.items()
    ]


GROUPS: dict[str, list[Run]] = {
    "language": runs("language", "quickstart.py", ("model.embedding_size=64", "model.num_params=350000"), CELLS),
    "sentiment": runs(
        "sentiment",
        "sentiment.py:forward,last",
        ("model.embedding_size=64", "model.num_params=700000"),
        CELLS | BIDIRECTIONAL | {"attention": ("model.pooling=('attention',)",)},
    ),
    "translation": runs(
        "translation",
        "translation.py:no_attention",
        ("model.embedding_size=128", "model.num_params=1500000", "training.num_steps=1500", "training.eval_every=500"),
        CELLS | {"bidirectional": ("model.bidirectional_layers=1",), "attention": ("model.attention.name=general",)},
    ),
    "speech": runs(
        "speech",
        "speech.py:forward",
        ("model.num_layers=1", "model.num_params=150000", "training.num_steps=800"),
        CELLS | BIDIRECTIONAL,
    )
    + runs(
        "speech",
        "speech.py:listen_attend_spell",
        ("model.num_layers=1", "model.bidirectional=False", "model.num_params=150000", "training.num_steps=800"),
        {"attention": ()},
    ),
    "forecasting": runs(
        "forecasting", "forecasting.py:encoder_decoder", ("model.num_params=60000", "training.num_steps=600"), CELLS
    ),
}
