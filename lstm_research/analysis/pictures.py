"""What a report shows of each task: pictures of what the run predicts on its own test texts."""

import functools
import html
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_research.analysis.alignment_plot import AlignedUtterance, draw_alignment
from lstm_research.analysis.attention_html import attention_articles
from lstm_research.analysis.attention_plot import AttentionMap, draw_attention
from lstm_research.analysis.charts import Line, figure_svg, heat_chart, line_chart
from lstm_research.analysis.forecast_plot import draw_forecasts, fans_of
from lstm_research.analysis.page import charts, section
from lstm_research.analysis.step_losses import step_losses
from lstm_research.common.build import build
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.decoding.transcripts import Transcript
from lstm_research.tasks.forecast_metrics import LEVELS
from lstm_research.tasks.recognisers import ctc_log_probs
from lstm_research.training.trained_run import TrainedRun

NUM_TEXTS = 12
"""Texts whose words are coloured."""
NUM_MAPS = 5
"""Sentences whose attention is drawn, and utterances whose alignment is."""
NUM_FANS = 8
"""Variables of series whose forecast is drawn."""
FAN_SIZE = (4.8, 2.4)
"""Of each, in inches: fits beside others."""
DRAWN_SAMPLES = ("confusion.txt",)
"""What a finished run keeps that the pictures here show better."""


def pictures(run: TrainedRun) -> str:
    """Returns the sections of a report on what this run predicts, where it is good and where it is not."""
    draw = PICTURES.get(run.config.task.name)
    return (draw(run) if draw else "") + _loss_by_step(run)


def _of_language_model(run: TrainedRun) -> str:
    """A passage of the validation text, each symbol coloured by how much it surprises."""
    batch = {name: array[:1] for name, array in run.task.eval_batches("valid")[0].items()}
    losses = np.asarray(step_losses(run.task, run.params, batch))[0]
    kept = batch["weights"][0] > 0
    vocabulary = run.task.vocabulary
    separator = " " if vocabulary.kind == "words" else ""
    symbols = [vocabulary.symbols[target] for target in batch["targets"][0][kept]]
    words = separator.join(
        f'<span class="w" style="--a:{min(loss / 10, 1):.3f}" title="{loss:.3f} nats">{html.escape(symbol)}</span>'
        for symbol, loss in zip(symbols, losses[kept].tolist(), strict=True)
    )
    note = "The beginning of the validation text, coloured by -ln p of each symbol: none at 0, full at 10 nats."
    return section("What surprises the model", f'<article><p class="text">{words}</p></article>\n', note=note)


def _loss_by_step(run: TrainedRun) -> str:
    """The mean loss of every step over some sequences, where a sequence has more than one that counts."""
    batches = run.task.eval_batches("valid")
    batch = batches[len(batches) // 2]
    if batch["weights"].ndim < 2:
        return ""
    B, T = batch["weights"].shape[:2]
    counted = (batch["weights"] > 0).reshape(B, T, -1)
    losses = np.where(counted, np.asarray(step_losses(run.task, run.params, batch)).reshape(B, T, -1), 0)
    counts = counted.sum(axis=(0, 2))
    (steps,) = np.nonzero(counts)
    if len(steps) < 2:
        return ""
    chart = line_chart(
        [Line("", steps + 1, losses.sum(axis=(0, 2))[steps] / counts[steps])], xlabel="step", ylabel="loss"
    )
    caption = f"Mean over {counted.any(axis=(1, 2)).sum()} sequences of the validation split, from the initial state."
    return section("Loss by step", charts([(chart, caption)]))


def _of_classifier(run: TrainedRun) -> str:
    """The confusion matrix of the last split, and its texts coloured by attention."""
    task, split = run.task, run.task.splits()[-1]
    confusion = ""
    if task.labels.names is not None:
        counts = task.confusion(run.params, split)
        names = task.labels.names
        side = max(2.5, 0.45 * len(names))
        chart = heat_chart(
            counts,
            xlabel="predicted",
            ylabel="true",
            limits=(0.0, float(counts.max())),
            colors="Blues",
            xticks=names,
            yticks=names,
            numbers=len(names) <= 20,
            size=(side + 2.0, side),
        )
        confusion = section("Confusion", charts([(chart, f"Split {split}: texts by true and predicted class.")]))
    dataset = build(LABELLED_DATASETS, run.config.dataset.to_dict(), where="dataset")
    examples = dataset.examples(split)
    chosen = [each.text for each in examples[:: -(-len(examples) // NUM_TEXTS)]]
    predictions = task.predict(run.params, chosen)
    if any(each.attention is None for each in predictions):
        return confusion
    separator = " " if task.vocabulary.kind == "words" else ""
    return confusion + section("Attention", attention_articles(predictions, separator=separator))


def _of_translation(run: TrainedRun) -> str:
    """Heat maps of the attention in a few test sentences."""
    dataset = build(PARALLEL_DATASETS, run.config.dataset.to_dict(), where="dataset")
    examples = dataset.examples(run.task.splits()[-1])
    chosen = [each.source for each in examples[:: -(-len(examples) // NUM_MAPS)]]
    figures = []
    for source, (best, *_) in zip(chosen, run.task.translate(run.params, chosen), strict=True):
        if best.attention is not None and best.pieces:
            each = AttentionMap(best.source_pieces, best.pieces, best.attention)
            caption = f"{source} → {best.text}"
            figures.append((figure_svg(functools.partial(draw_attention, [each]), f"attention: {caption}"), caption))
    return section("Attention", charts(figures))


@functools.lru_cache(maxsize=1)
def _ctc_log_probs(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps what is compiled, which is most of the time that a recording takes."""
    return ctc_log_probs(apply)


def aligned(run: TrainedRun, signal: np.ndarray, transcript: Transcript, title: str) -> AlignedUtterance:
    """Returns what a plot shows of a recording: its features, and what was recognised where."""
    task = run.task
    (frames,) = task.features.extract([signal], task.statistics)
    probabilities = None
    if task.model_name == "ctc" and len(frames):
        # Few lengths are compiled: powers of two.
        padded = np.pad(frames, ((0, (1 << (len(frames) - 1).bit_length()) - len(frames)), (0, 0)))
        found, steps = _ctc_log_probs(task.apply)(run.params, padded[None], np.array([len(frames)], np.int32))
        probabilities = np.exp(np.asarray(found)[: int(steps[0]), 0])
    return AlignedUtterance(
        features=frames,
        frame_seconds=task.frame_seconds,
        probabilities=probabilities,
        blank_id=task.blank_id,
        step_seconds=task.step_seconds,
        names=task.vocabulary.symbols,
        symbols=transcript.symbols,
        steps=transcript.steps,
        title=title,
        in_seconds=task.features.sample_rate is not None,
    )


def _of_recogniser(run: TrainedRun) -> str:
    """Where in a few test utterances the model heard what."""
    dataset = build(SPEECH_DATASETS, run.config.dataset.to_dict(), where="dataset")
    examples = dataset.examples(run.task.splits()[-1])
    chosen = examples[:: -(-len(examples) // NUM_MAPS)]
    figures = []
    for each, (best, *_) in zip(chosen, run.task.transcribe(run.params, [each.signal for each in chosen]), strict=True):
        drawn = aligned(run, each.signal, best, "")
        caption = f"{each.transcript} → {best.text}"
        figures.append((figure_svg(functools.partial(draw_alignment, [drawn]), f"alignment: {caption}"), caption))
    note = "What was said, and what was recognised where."
    return section("Alignment", charts(figures, wide=True), note=note)


def _of_forecaster(run: TrainedRun) -> str:
    """The last horizon of a few series: what was forecast, and what came."""
    task = run.task
    variables = task.scaler.targets
    trained = [each for each in task.own_series() if each.name in task.scaler.series]
    series = trained[:: -(-len(trained) * len(variables) // NUM_FANS)]
    begun = [each._replace(targets=each.targets[: -task.horizon]) for each in series]
    fans = fans_of(task.predict(run.params, begun), variables, task.history, LEVELS)
    figures = []
    for number, fan in enumerate(fans[:NUM_FANS]):
        whole, column = series[number // len(variables)], number % len(variables)
        end = len(whole.targets)
        shown = slice(end - task.horizon - len(fan.past), end)
        fan = fan._replace(title="", past_times=whole.times[shown], past=whole.targets[shown, column])
        caption = variables[column] if len(trained) == 1 else f"{whole.name}: {variables[column]}"
        figures.append(
            (figure_svg(functools.partial(draw_forecasts, [fan], FAN_SIZE), f"forecast of {caption}"), caption)
        )
    note = "The end of the data, forecast without knowing it."
    return section("Forecast", charts(figures), note=note)


PICTURES: Mapping[str, Callable[[TrainedRun], str]] = {
    "forecasting": _of_forecaster,
    "language_modelling": _of_language_model,
    "speech_recognition": _of_recogniser,
    "text_classification": _of_classifier,
    "translation": _of_translation,
}
"""By the name of the task."""
