"""What this study runs; `experiments/study.py` runs it.

Within a task all variants have the same number of parameters, recipe, steps and seeds; only what the name says differs.
The groups that end in `_gpu` are the same comparison of larger models, with more data and five seeds.
"""

from study import Run

CELLS = {
    "lstm": (),
    "peephole": ("model.cell.name=peephole_lstm",),
    "gru": ("model.cell.name=gru",),
    "mogrifier": ("model.cell.name=mogrifier_lstm",),
    "stacked": ("model.num_layers=2",),
}
CELLS_AND_DIRECTIONS = CELLS | {"bidirectional": ("model.bidirectional=True",)}
CLASSIFIERS = CELLS_AND_DIRECTIONS | {"attention": ("model.pooling=('attention',)",)}
# The encoders of translators read in both directions.
TRANSLATORS = CELLS | {
    "forward": ("model.bidirectional_layers=0",),
    "attention": ("model.attention.name=general",),
}
# Attention over the sound is a model of its own, in one direction as the others are.
LISTENER = {"attention": ("model.bidirectional=False",)}


def runs(
    group: str, config: str, overrides: tuple[str, ...], variants: dict[str, tuple[str, ...]], num_seeds: int = 3
) -> list[Run]:
    """Returns a run for each variant, of equal size."""
    return [
        Run(f"{group}-{name}", config, ("model.cell.hidden_size=None", *overrides, *own), tuple(range(num_seeds)))
        for name, own in variants.items()
    ]


TEXT = ("model.embedding_size=64", "model.num_params=350000")
REVIEWS = ("model.embedding_size=64", "model.num_params=700000")
PAIRS = (
    *("vocabulary.size=1500", "task.batch_size=32", "model.embedding_size=64", "model.num_params=600000"),
    *("training.num_steps=2000", "training.eval_every=1000", "optimizer.schedule.warmup_steps=100"),
    "training.average_decay=0.99",
)
SOUND = ("model.num_layers=1", "model.num_params=150000", "training.num_steps=400")
# It has to learn the alignment that CTC is given, which takes several times as many steps.
LISTENING = ("model.num_layers=1", "model.num_params=150000", "training.num_steps=2000")
SERIES = ("model.num_params=60000",)

TEXT_GPU = (
    *("dataset.part=all", "model.embedding_size=128", "model.num_params=4000000", "training.num_steps=10000"),
    "training.eval_every=1000",
)
REVIEWS_GPU = ("model.embedding_size=128", "model.num_params=6000000")
PAIRS_GPU = ("model.embedding_size=256", "model.num_params=6000000")
SOUND_GPU = ("model.num_layers=1", "model.reductions=()", "model.num_params=2000000")
SERIES_GPU = ("model.num_params=500000",)

GROUPS: dict[str, list[Run]] = {
    "language": runs("language", "quickstart.py", TEXT, CELLS),
    "sentiment": runs("sentiment", "sentiment.py:forward,last", REVIEWS, CLASSIFIERS),
    "translation": runs("translation", "translation.py:no_attention", PAIRS, TRANSLATORS),
    "speech": runs("speech", "speech.py:forward", SOUND, CELLS_AND_DIRECTIONS),
    "speech_attention": runs("speech_attention", "speech.py:listen_attend_spell", LISTENING, LISTENER),
    "forecasting": runs("forecasting", "forecasting.py", SERIES, CELLS),
    "language_gpu": runs("language_gpu", "quickstart.py", TEXT_GPU, CELLS, 5),
    "sentiment_gpu": runs("sentiment_gpu", "sentiment.py:imdb,forward,last", REVIEWS_GPU, CLASSIFIERS, 5),
    "translation_gpu": runs("translation_gpu", "translation.py:no_attention", PAIRS_GPU, TRANSLATORS, 5),
    "speech_gpu": [
        *runs("speech_gpu", "speech.py:czech,forward", SOUND_GPU, CELLS_AND_DIRECTIONS, 5),
        *runs("speech_gpu", "speech.py:czech,listen_attend_spell", SOUND_GPU, LISTENER, 5),
    ],
    "forecasting_gpu": runs("forecasting_gpu", "forecasting.py:traffic", SERIES_GPU, CELLS, 5),
}
