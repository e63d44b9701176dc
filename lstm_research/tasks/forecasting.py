"""Forecasting: what a series will be, from what it has been and what is known in advance."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jaxtyping import Float, Key

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets
from lstm_research.data.series.base import SINGLE, Series
from lstm_research.data.series.datasets import SERIES_DATASETS
from lstm_research.data.series.frequency import Times
from lstm_research.data.series.scaling import ScaledSeries, SeriesScaler
from lstm_research.data.series.windows import ForecastWindows, rolling_origins, training_origins
from lstm_research.models.budget import fit_width, width_notes, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.forecaster import FORECASTERS, Window, WindowSizes
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.distributions import DISTRIBUTIONS
from lstm_research.tasks.forecast_baselines import baseline_metrics, baseline_table
from lstm_research.tasks.forecast_metrics import LEVELS, forecast_sums, report
from lstm_research.tasks.task import Sums, Task

NUM_SAMPLES = 100
"""Paths that are drawn where the config does not say."""

MAX_WINDOWS = 50_000
"""Training windows that the linear baseline learns from; of more, as many at even distances."""

BASELINE_SCORES = ("mse", "mae", "mase")
"""The metrics of the baselines that stand beside the model's."""


class SeriesForecast(NamedTuple):
    """The forecast of a series, in the unit in which it is written.

    Attributes:
      series: what was observed.
      times: of the horizon, `datetime64[s]`.
      mean: the expectation; of a model that gives quantiles at once, the median.
      quantiles: of `LEVELS`; None from a model that gives single values.
    """

    series: Series
    times: Times
    mean: Float[np.ndarray, "H V"]
    quantiles: Float[np.ndarray, "Q H V"] | None


class Forecasting(Task):
    """The task of forecasting a horizon of H steps from a history of C steps.

    Training windows lie in the training rows. Those of the other splits are at rolling origins: each has its horizon in
    the split, and its history before it. A series without a training window is not evaluated either, as its unit is
    unknown. The loss is that of the distribution, the mean over values in units of the training rows' deviation; counts
    are in their own.

    Attributes:
      scaler: how series are scaled, once loaded.
      notes: how many series are too short to train on, once loaded.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("series.json", "dataset.json")
    loaded: ClassVar[tuple[str, ...]] = ("_dataset", "_windows", "_trained_series", "_scaled")
    higher_is_better: ClassVar[frozenset[str]] = frozenset()
    unit: ClassVar[str] = "values"

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        batch_size: int,
        history: int,
        horizon: int,
        eval_batch_size: int = 64,
        eval_stride: int = 1,
        season: int | None = None,
        num_samples: int | None = None,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; reads no data unless it comes from `files`.

        Args:
          dataset: the config's section.
          vocabulary: the config's section, which must be empty.
          model: the config's section.
          batch_size: windows of a training batch, each with all variables.
          history: C.
          horizon: H.
          eval_batch_size: windows of a batch in evaluation and prediction.
          eval_stride: steps from one origin to the next in evaluation.
          season: steps of a season, for the metric MASE and the naive forecast; None: that of the dataset's frequency.
          num_samples: paths that are drawn of a forecast, by a model that draws; None: 100.
          files: what `files` returned for the run that is continued or used.
        """
        if vocabulary:
            raise UserError("the task 'forecasting' has no vocabulary; leave the section empty: vocabulary = {}")
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "eval_stride": eval_stride}
        check_at_least(1, "task", **sizes, history=history, horizon=horizon)
        self.num_samples = NUM_SAMPLES if num_samples is None else num_samples
        check_at_least(1, "task", season=1 if season is None else season, num_samples=self.num_samples)
        self.batch_size = batch_size
        self.history = history
        self.horizon = horizon
        self.eval_batch_size = eval_batch_size
        self.eval_stride = eval_stride
        self.season = season
        self._dataset_config = dataset
        self._model_config = model
        self._windows: dict[str, ForecastWindows] = {}
        self._files = files
        # An impossible model is refused before data is read.
        sized = with_width(model, embedding=False)
        trial = self._make_model(sized, WindowSizes(history, horizon, 2, 1, 1), jax.random.key(0), abstract=True)
        self._counts = trial.distribution.counts
        self.draws = trial.draws
        if num_samples is not None and not trial.draws:
            raise UserError(
                f"task.num_samples is for models that draw their forecasts, and {model['name']!r} does not; set it to "
                "None"
            )
        if files is None:
            self._dataset  # noqa: B018  (a wrong dataset is refused now)
        else:
            self._set_scaler(SeriesScaler.from_json(files["series.json"].decode()))

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset; made at first use, because a finished run serves without the files it was trained on."""
        return build(SERIES_DATASETS, self._dataset_config, where="dataset")

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, and makes all windows once; the scale is that of this data, also in a warm start."""
        min_rows = self.history + self.horizon
        scaler = SeriesScaler.fit(self._dataset, season=self.season, counts=self._counts, min_rows=min_rows)
        self._set_scaler(scaler)
        for split in self.splits():
            self._cut(split)
        total = len(self._dataset.series())
        short = total - len(scaler.series)
        if short:
            note = f"{short:,} of {total:,} series have fewer than task.history + task.horizon training rows"
            self.notes = (*self.notes, f"{note}, and are neither trained on nor evaluated")
        self.notes += self._undefined_metrics()

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self._dataset.splits

    def train_batches(self, seed: int) -> TrainingBuckets:
        """Returns the training batches; item k is the batch of step k. See `data.series.windows` on its arrays."""
        return self._cut("train").training(self.batch_size, seed)

    def eval_batches(self, split: str) -> EvaluationBuckets:
        """Returns batches that hold every window of a split exactly once."""
        return self._cut(split).evaluation(self.eval_batch_size)

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        return functional(self._make_model(self._sized_config, self._sizes, key))[1]

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the loss of the distribution, summed over the values of the horizon.

        Args:
          params: of the model.
          batch: see `train_batches`.
          carry: ().
          key: of the dropout; None in evaluation, which also forecasts, for `forecast_metrics`. With a key the gradient
            is that of all values that the model learns from, in the history too; the value is not.
        """
        window = _window(batch)
        targets, weights = (jnp.swapaxes(batch[name], 0, 1) for name in ("targets", "weights"))
        weight = jnp.sum(weights)
        if key is None:
            losses, forecast = self._apply(
                params,
                window,
                targets,
                jax.lax.stop_gradient(weights),  # what was observed; how much it counts is said below
                _window_keys(jax.random.key(0), batch["window"]),
                levels=LEVELS,
                num_samples=self.num_samples,
                method="losses_and_forecast",
            )
            units = jnp.swapaxes(batch["units"], 0, 1)
            return jnp.sum(losses * weights), weight, forecast_sums(targets, weights, units, *forecast), carry
        losses, counts = self._apply(params, window, targets, weights, key=key, method="losses")
        # Rows that only fill the batch have a history, from which nothing is learnt.
        counts *= jnp.any(weights > 0, axis=(0, 2))[None, :, None]
        loss = jnp.sum(losses[-self.horizon :] * weights)
        minimized = jnp.sum(losses * counts) / jnp.maximum(jnp.sum(counts), 1) * weight
        return minimized + jax.lax.stop_gradient(loss - minimized), weight, {}, carry

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report, see `forecast_metrics`."""
        return report(sums)

    def score_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the baselines' metrics, which the last split has."""
        return tuple(self._baseline_scores) if split == self.splits()[-1] else ()

    def scores(self, params: Params, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Returns the metrics of the baselines on the last split, to stand beside the model's."""
        if split != self.splits()[-1]:
            return {}
        return None if should_stop() else self._baseline_scores

    def samples(self, params: Params) -> dict[str, str]:
        """Returns a table of all metrics of the baselines on the last split."""
        title = f"Split {self.splits()[-1]}; the model's own metrics are the last line of metrics.jsonl.\n\n"
        return {"baselines.txt": title + baseline_table(self._baselines)}

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        contents = (self.scaler.to_json(), self._dataset.record())
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def own_series(self) -> list[Series]:
        """Returns the series that the run was trained on, whole.

        Raises:
          UserError: the data is not the data that the run was trained with.
        """
        if self._files is not None:
            self._dataset.check_record(self._files["dataset.json"].decode())
        return self._dataset.series()

    def predict(
        self, params: Params, series: Sequence[Series], *, num_samples: int | None = None, seed: int = 0
    ) -> list[SeriesForecast]:
        """Forecasts what comes after the last observation of each series.

        Args:
          params: of the model.
          series: with the variables that the run was trained on. One that it was not trained on is scaled by its own
            mean and deviation, and one with fewer than C rows has less history than any in training: both with a
            warning. Where the run or the input has one series without a name, the single one of the other is meant.
          num_samples: paths that are drawn; None: as in evaluation.
          seed: of the draws.

        Raises:
          UserError: what must be known of the horizon is not.
        """
        series = [self._with_future(each) for each in series]
        as_trained = series  # under the names that the scaler knows
        if len(series) == len(self.scaler.series) == 1 and SINGLE in (series[0].name, *self.scaler.series):
            as_trained = [series[0]._replace(name=next(iter(self.scaler.series)))]
        _warn(
            "series that were not trained on are scaled by their own mean and deviation: %s",
            [each.name for each in as_trained if each.name not in self.scaler.series],
        )
        _warn(
            f"series with fewer rows than task.history={self.history} are forecast from less than training had: %s",
            [each.name for each in series if len(each.targets) < self.history],
        )
        scaled = [self.scaler.scale(each) for each in as_trained]
        windows = self._make_windows(scaled, [np.array([len(each.values)]) for each in scaled], "the input")
        batches = windows.evaluation(self.eval_batch_size)
        found: list[SeriesForecast] = []
        for number in range(len(batches)):
            batch = batches[number]
            keys = _window_keys(jax.random.key(seed), batch["window"])
            forecast = jax.device_get(
                self._forecast(params, _window(batch), keys, num_samples=num_samples or self.num_samples)
            )
            here = slice(len(found), len(found) + self.eval_batch_size)
            for row, (each, known_as) in enumerate(zip(series[here], as_trained[here], strict=True)):
                begin = len(each.targets)
                mean = self.scaler.unscale(known_as, forecast.mean[:, row])
                quantiles = forecast.quantiles
                if quantiles is not None:
                    quantiles = self.scaler.unscale(known_as, quantiles[:, :, row])
                found.append(SeriesForecast(each, each.times[begin : begin + self.horizon], mean, quantiles))
        return found

    @functools.cached_property
    def _forecast(self) -> Any:
        """From parameters, windows and keys to a forecast."""

        def forecast(params: Params, window: Window, keys: Key[Array, "B"], num_samples: int) -> Any:
            return self._apply(params, window, keys, levels=LEVELS, num_samples=num_samples, method="forecast")

        return jax.jit(forecast, static_argnames="num_samples")

    @functools.cached_property
    def _baselines(self) -> dict[str, dict[str, float]]:
        """The metrics of the baselines on the last split."""
        train = self._cut("train")
        stride = -(-len(train) // MAX_WINDOWS)
        chosen = np.arange(0, len(train), stride)
        parts = np.array_split(chosen, -(-len(chosen) // self.eval_batch_size))
        season = self.scaler.season
        evaluated = self._cut(self.splits()[-1], history=max(self.history, season)).evaluation(self.eval_batch_size)
        return baseline_metrics(
            (train.collate(part, np.ones(len(part), bool), 1) for part in parts),
            (evaluated[number] for number in range(len(evaluated))),
            history=self.history,
            season=season,
        )

    @property
    def _baseline_scores(self) -> dict[str, float]:
        return {f"{name}_{metric}": row[metric] for name, row in self._baselines.items() for metric in BASELINE_SCORES}

    def _with_future(self, series: Series) -> Series:
        """Returns a series with times after its last observation, for the horizon at least."""
        end = len(series.targets)
        future = len(series.times) - end
        if future >= self.horizon:
            return series
        if self.scaler.known:
            raise UserError(
                f"series {series.name!r} has {future} row(s) after its last observation, and task.horizon="
                f"{self.horizon}; add rows with no target in which {', '.join(self.scaler.known)} are known"
            )
        times = np.concatenate([series.times[:end], self.scaler.step.after(series.times[:end], self.horizon)])
        return series._replace(times=times, known=np.zeros((len(times), 0)))

    def _rows(self, split: str) -> list[tuple[int, int]]:
        """Returns the rows of a split in each series that is trained on."""
        return [self._dataset.rows(each, split) for each in self._trained_series]

    @functools.cached_property
    def _trained_series(self) -> list[Series]:
        return [each for each in self.own_series() if each.name in self.scaler.series]

    @functools.cached_property
    def _scaled(self) -> list[ScaledSeries]:
        return [self.scaler.scale(each) for each in self._trained_series]

    def _cut(self, split: str, history: int | None = None) -> ForecastWindows:
        """Returns the windows of a split; those of the task's own history are made once."""
        if history is None and split in self._windows:
            return self._windows[split]
        rows = self._rows(split)
        if split == "train":
            origins = [training_origins(each, self.history, self.horizon) for each in rows]
        else:
            origins = [rolling_origins(each, self.horizon, self.eval_stride) for each in rows]
        windows = self._make_windows(self._scaled, origins, f"split {split!r}", history)
        if history is None:
            self._windows[split] = windows
        return windows

    def _make_windows(
        self, series: list[ScaledSeries], origins: list[np.ndarray], where: str, history: int | None = None
    ) -> ForecastWindows:
        return ForecastWindows(series, origins, history=history or self.history, horizon=self.horizon, where=where)

    def _set_scaler(self, scaler: SeriesScaler) -> None:
        """Keeps how series are scaled, fixes the model's sizes, and keeps it as a function of its parameters."""
        self.scaler = scaler

        def make(config: Mapping[str, Any]) -> Any:
            return self._make_model(config, self._sizes, jax.random.key(0), abstract=True)

        self._sized_config = fit_width(self._model_config, make, embedding=False)
        self.notes += width_notes(self._model_config, self._sized_config)
        self._apply = functional(make(self._sized_config))[0]

    def _undefined_metrics(self) -> tuple[str, ...]:
        """Says which metrics have nothing to be divided by, so that `training.metric` cannot be one of them."""
        notes: tuple[str, ...] = ()
        if not any(any(each.naive_error) for each in self.scaler.series.values()):
            season = self.scaler.season
            notes += (f"mase is undefined: in training rows all values are those of task.season={season} steps before",)
        valid = [each.targets[slice(*self._dataset.rows(each, "valid"))] for each in self._trained_series]
        if not any(np.nan_to_num(each).any() for each in valid):
            notes += ("nd, nrmse and weighted_quantile_loss are undefined: split 'valid' has no value but 0",)
        return notes

    @property
    def _sizes(self) -> WindowSizes:
        scaler = self.scaler
        return WindowSizes(self.history, self.horizon, len(scaler.targets), scaler.num_known, scaler.num_static)

    def _make_model(
        self, config: Mapping[str, Any], sizes: WindowSizes, key: PRNGKeyArray, *, abstract: bool = False
    ) -> Any:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            FORECASTERS,
            config,
            where="model",
            parts={"cell": CELLS, "dropout": DropoutRates, "distribution": DISTRIBUTIONS},
            sizes=sizes,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))


def _warn(message: str, names: Sequence[str]) -> None:
    """Logs a warning about series, if there are any."""
    if names:
        logging.warning(message, ", ".join(names[:10]) + ", ..." * (len(names) > 10))


def _window(batch: Mapping[str, Array]) -> Window:
    """Returns what a forecast may see of a batch, time-major."""
    values, observed, known = (jnp.swapaxes(batch[name], 0, 1) for name in ("history", "history_observed", "known"))
    return Window(values, observed, known, batch["static"])


def _window_keys(key: PRNGKeyArray, windows: Array) -> Key[Array, "B"]:
    """Returns a key for each window, whatever batch it is in."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, windows)
