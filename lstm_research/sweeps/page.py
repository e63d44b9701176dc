"""The page of a sweep: what was tried, what came of it, and what mattered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lstm_research.analysis.page import charts, page, preformatted, section, table
from lstm_research.sweeps.importance import MIN_TRIALS, importances
from lstm_research.sweeps.results import Sweep, read_sweep
from lstm_research.sweeps.sweep_charts import bar_chart, curves_chart, interval_chart, parallel_chart, slice_chart
from lstm_research.sweeps.trial import FINISHED, show

SHOWN_TRIALS = 20
"""In the table of the best; `sweep.csv` has all."""

SHOWN_GROUPS = 40
"""Of trials that differ in their seed alone."""

_LOG_FROM = 10.0
"""Metrics that span more than this factor are drawn on a logarithmic axis."""

_COORDINATES = "A line is a trial, the best ones dark; each axis is a swept key, the last one the metric."
_IMPORTANCE = (
    "The share of the metric's variance that a key explains, alone and together with others, by functional analysis of "
    f"variance on a random forest; of {MIN_TRIALS} finished trials or more, and of the keys that all of them set. It "
    "says what mattered in the ranges that were tried, and nothing of others."
)
_SEEDS = (
    "Trials that differ in their seed alone: every value, the mean, and its 95 % interval by Student's t, which takes "
    "the seeds for draws from a normal distribution."
)


class _Finished(NamedTuple):
    """What the page needs of a finished trial: its number, what it set, its best result, all its validations."""

    number: int
    overrides: Mapping[str, Any]
    value: float
    curve: Mapping[int, float]


def sweep_page(folder: Path) -> str:
    """Returns the page of a sweep as far as it is.

    Charts and tables compare finished trials only: what one that was pruned, diverged or still runs has reached is of
    fewer steps.

    Raises:
      UserError: the folder holds no sweep, or one that is damaged.
    """
    sweep = read_sweep(folder)
    metric, higher_is_better = sweep.definition.metric, sweep.definition.direction == "maximize"
    trials = [
        _Finished(trial.number, trial.overrides, trial.value, trial.validations(metric))
        for trial in sweep.trials
        if trial.state == FINISHED and trial.value is not None
    ]
    trials.sort(key=lambda trial: -trial.value if higher_is_better else trial.value)
    pairs = [(trial.overrides, trial.value) for trial in trials]
    values = [value for _, value in pairs]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_FROM
    keys = [key for key in sweep.definition.keys if any(key in overrides for overrides, _ in pairs)]
    varied = [key for key in keys if len({repr(overrides.get(key)) for overrides, _ in pairs}) > 1]
    coordinates = [(parallel_chart(pairs, keys=varied, metric=metric, higher_is_better=higher_is_better), "")]
    slices = [
        (slice_chart([(o[key], value) for o, value in pairs if key in o], key=key, metric=metric, log=log), "")
        for key in varied
    ]
    shares = importances(pairs)
    importance = [(bar_chart(shares, xlabel="share of the variance"), "")] if shares else []
    curves = [(curves_chart([trial.curve for trial in trials], metric=metric, log=log), "")] if trials else []
    parts = [
        section("Trials", _states(sweep), _table(trials, keys, metric)),
        section("Parallel coordinates", charts(coordinates if varied else [], wide=True), note=_COORDINATES),
        section("Importance", charts(importance), note=_IMPORTANCE),
        section("Slices", charts(slices)),
        section("Learning curves", charts(curves), note="Validations of all of them; the best one in colour."),
        section("Seeds", *_seeds(trials, metric, higher_is_better), note=_SEEDS),
        section("The best one again", preformatted(sweep.best_command) if sweep.best_command else ""),
    ]
    return page(f"{folder.resolve().name}: sweep of {sweep.definition.recipe}", "".join(parts))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of two or more values by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _states(sweep: Sweep) -> str:
    """How many trials there are in each state, in one line, and what went wrong with the failed ones."""
    states = [trial.state for trial in sweep.trials]
    to_come = sweep.definition.num_trials - len(states)
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)] + (
        [f"{to_come} to come"] * (to_come > 0)
    )
    reasons = [[trial.number, trial.state, trial.reason] for trial in sweep.trials if trial.reason]
    return f"<p>{', '.join(counts)}.</p>\n" + (table(["trial", "state", "reason"], reasons) if reasons else "")


def _table(trials: Sequence[_Finished], keys: Sequence[str], metric: str) -> str:
    rows = [
        [trial.number, trial.value, *(show(trial.overrides[key]) if key in trial.overrides else "" for key in keys)]
        for trial in trials[:SHOWN_TRIALS]
    ]
    return table(["trial", metric, *keys], rows) if rows else ""


def _seeds(trials: Sequence[_Finished], metric: str, higher_is_better: bool) -> list[str]:
    """The groups of trials that are alike but for their seed, the best mean first; nothing if there is none."""
    groups: dict[str, tuple[str, list[float]]] = {}
    for trial in trials:
        others = {key: value for key, value in trial.overrides.items() if key != "seed"}
        name = ", ".join(f"{key.rpartition('.')[2]}={show(value)}" for key, value in others.items()) or "the recipe"
        groups.setdefault(repr(sorted(others.items())), (name, []))[1].append(trial.value)
    repeated = [(name, values, mean_interval(values)) for name, values in groups.values() if len(values) > 1]
    if not repeated:
        return []
    repeated.sort(key=lambda group: float(np.mean(group[1])), reverse=higher_is_better)
    rows = [
        [name, len(values), float(np.mean(values)), *interval, min(values), max(values)]
        for name, values, interval in repeated[:SHOWN_GROUPS]
    ]
    chart = interval_chart(repeated[:SHOWN_GROUPS], metric=metric)
    header = ["", "seeds", f"mean {metric}", "from", "to", "least", "greatest"]
    return [charts([(chart, "")], wide=True), table(header, rows)]
