"""What this study runs; `experiments/study.py` runs it."""

from study import Run

SHORT = ("training.num_steps=2000",)
# The model of Dai and Le, "Semi-supervised Sequence Learning", 2015; the same with more pooling.
LAST, POOLED = "sentiment.py:imdb,warm_start,forward,last", "sentiment.py:imdb,warm_start,forward"
FURTHER = "training.init_from={runs}/imdb-lm-further-1"
# The rates that the recipes have from scratch.
SCRATCH = (
    "training.init_from=None",
    "optimizer.learning_rate=2e-3",
    "model.dropout.embedding_rate=0.3",
    "model.dropout.input_rate=0.3",
)
RT_SCRATCH = (
    "training.init_from=None",
    "optimizer.learning_rate=2e-3",
    "model.pooled_rate=0.7",
    "model.dropout.embedding_rate=0.4",
    "model.dropout.input_rate=0.4",
    "model.dropout.weight_rate=0.3",
)

GROUPS: dict[str, list[Run]] = {
    "sentiment": [
        # Seeds 0 to 2 were looked at while the recipe was made, the others after that.
        Run("rt-bidirectional-max-attention", "sentiment.py", seeds=(0, 1, 2, 3, 4, 5)),
        Run("rt-forward-max-attention", "sentiment.py:forward"),
        Run("rt-bidirectional-last", "sentiment.py:last"),
        Run("rt-forward-last", "sentiment.py:forward,last"),
    ],
    "imdb": [Run("imdb", "sentiment.py:imdb")],
    # As many steps as take about nine minutes on 2 quiet CPU cores with each of the two recipes.
    "language_models": [
        Run("word-lm", "word_lm.py", ("dataset.max_documents=1000", "training.num_steps=4000")),
        Run("awd-lstm", "awd_lstm.py", ("dataset.max_documents=1000", "training.num_steps=2000")),
    ],
    "warm_start": [
        Run("imdb-lm", "imdb_lm.py", seeds=(0,)),
        Run("imdb-last-warm", LAST, ("training.num_steps=800", "training.init_from={runs}/imdb-lm-0")),
        Run("imdb-last-scratch", LAST, ("training.num_steps=800", "training.init_from=None")),
        Run("imdb-lm-further", "imdb_lm.py:further", ("training.init_from={runs}/imdb-lm-0",), seeds=(1,)),
        Run("imdb-warm", POOLED, ("training.num_steps=800", FURTHER)),
        Run("imdb-scratch", POOLED, ("training.num_steps=800", *SCRATCH)),
        Run("rt-warm", "sentiment.py:warm_start", (FURTHER,)),
        Run("rt-scratch", "sentiment.py:warm_start", RT_SCRATCH),
    ],
    "translation": [Run("en-fr", "translation.py", seeds=(0,))],
    # What attention is worth, in runs of less than a third of the recipe's length.
    "attention": [
        Run("en-fr-2000-attention", "translation.py", SHORT),
        Run("en-fr-2000-no-attention", "translation.py:no_attention", SHORT),
    ],
    "japanese": [Run("ja-en", "translation.py:ja-en", seeds=(0,))],
}
