"""The page of a sweep: what was tried, what came of it, and what mattered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from lstm_research.analysis.page import charts, page, preformatted, section, table
from lstm_research.sweeps.importance import MIN_TRIALS, importances
from lstm_research.sweeps.results import Sweep, read_sweep
from lstm_research.sweeps.sweep_charts import bar_chart, curves_chart, interval_chart, parallel_chart, slice_chart
from lstm_research.sweeps.trial import FINISHED, Trial, short_names, show

SHOWN_TRIALS = 20
"""In the table of the best; `sweep.csv` has all."""

SHOWN_GROUPS = 40
"""Of trials that differ in their seed alone."""

_LOG_FROM = 10.0
"""Metrics that span more than this factor are drawn on a logarithmic axis."""

_SEED = "seed"
"""The key that makes repetitions of a trial, and no other trial: it is no axis, and nothing that matters or not."""

_COORDINATES = (
    "A line is a finished trial, the best ones dark; each axis is a swept key, the last one the metric. A trial that "
    "does not set a key goes below its axis."
)
_IMPORTANCE = (
    "How the variance of the metric that a random forest explains is shared among the keys, each alone and together "
    "with others, by functional analysis of variance. The shares sum to 1, however little the forest explains. Of "
    f"finished trials, {MIN_TRIALS} or more, and of the keys that all of them set: it says what mattered in the ranges "
    "that were tried, and nothing of others."
)
_SLICES = "Finished trials."
_CURVES = "Validations of all trials: the best one in colour, dotted those that did not finish."
_SEEDS = (
    "Trials that differ in their seed alone: every value, the mean, and its 95 % interval by Student's t, which takes "
    "the seeds for draws from a normal distribution. It is all of the finished ones, and says nothing of those that "
    "are not."
)


def sweep_page(folder: Path) -> str:
    """Returns the page of a sweep as far as it is.

    But for the learning curves, charts and tables compare finished trials only: what one that was pruned, diverged or
    still runs has reached is of fewer steps.

    Raises:
      UserError: the folder holds no sweep, or one that is damaged.
    """
    sweep = read_sweep(folder)
    metric, higher_is_better = sweep.definition.metric, sweep.definition.direction == "maximize"
    finished = [trial for trial in sweep.trials if trial.state == FINISHED and trial.value is not None]
    finished.sort(key=lambda trial: -_value(trial) if higher_is_better else _value(trial))
    pairs = [
        ({key: value for key, value in trial.overrides.items() if key != _SEED}, _value(trial)) for trial in finished
    ]
    settings = {
        key: {repr(overrides[key]) if key in overrides else None for overrides, _ in pairs}
        for key in sweep.definition.keys
    }
    varied = [key for key, values in settings.items() if len(values) > 1]
    coordinates = [(parallel_chart(pairs, keys=varied, metric=metric, higher_is_better=higher_is_better), "")]
    log = not higher_is_better and _spans([value for _, value in pairs])
    slices = [
        (slice_chart([(o[key], value) for o, value in pairs if key in o], key=key, metric=metric, log=log), "")
        for key in varied
        if len(settings[key] - {None}) > 1
    ]
    shares = importances(pairs)
    importance = [(bar_chart(shares, xlabel="share of the explained variance"), "")] if shares else []
    parts = [
        section("Trials", _states(sweep), _table(finished, sweep.definition.keys, metric)),
        section("Parallel coordinates", charts(coordinates if varied else [], wide=True), note=_COORDINATES),
        section("Importance", charts(importance), note=_IMPORTANCE),
        section("Slices", charts(slices), note=_SLICES),
        section("Learning curves", _curves(sweep, finished), note=_CURVES),
        section("Seeds", *_seeds(sweep), note=_SEEDS),
        section("The best one again", preformatted(sweep.best_command) if sweep.best_command else ""),
    ]
    return page(f"{folder.resolve().name}: sweep of {sweep.definition.recipe}", "".join(parts))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of two or more values by Student's t."""
    half = special.stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _spans(values: Sequence[float]) -> bool:
    """Whether values are such that a logarithmic axis shows them better."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_FROM


def _states(sweep: Sweep) -> str:
    """How many trials there are in each state, in one line, and what went wrong with the failed ones."""
    states = [trial.state for trial in sweep.trials]
    to_come = sweep.definition.num_trials - len(states)
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)] + (
        [f"{to_come} to come"] * (to_come > 0)
    )
    reasons = [[trial.number, trial.state, trial.reason] for trial in sweep.trials if trial.reason]
    return f"<p>{', '.join(counts)}.</p>\n" + (table(["trial", "state", "reason"], reasons) if reasons else "")


def _table(finished: Sequence[Trial], keys: Sequence[str], metric: str) -> str:
    keys = [key for key in keys if any(key in trial.overrides for trial in finished)]
    rows = [
        [trial.number, _value(trial), *(show(trial.overrides[key]) if key in trial.overrides else "" for key in keys)]
        for trial in finished[:SHOWN_TRIALS]
    ]
    if not rows:
        return ""
    few = len(rows) < len(finished)
    said = (
        f"The {len(rows)} best of {len(finished)} finished trials (sweep.csv has all):" if few else "Finished trials:"
    )
    return f"<p>{said}</p>\n" + table(["trial", metric, *keys], rows)


def _curves(sweep: Sweep, finished: Sequence[Trial]) -> str:
    metric = sweep.definition.metric
    courses = [trial.validations(metric) for trial in finished]
    others = [trial.validations(metric) for trial in sweep.trials if trial.state != FINISHED]
    courses, others = [each for each in courses if each], [each for each in others if each]
    if not courses and not others:
        return ""
    values = [value for course in (*courses, *others) for value in course.values()]
    log = sweep.definition.direction == "minimize" and _spans(values)
    return charts([(curves_chart(courses, others, metric=metric, log=log), "")])


def _seeds(sweep: Sweep) -> list[str]:
    """The groups of trials that are alike but for their seed, the best mean first; nothing if there is none."""
    metric = sweep.definition.metric
    names = dict(zip(sweep.definition.keys, short_names(sweep.definition.keys), strict=True))
    groups: dict[str, dict[Any, Trial]] = {}
    for trial in sweep.trials:
        others = {key: value for key, value in trial.overrides.items() if key != _SEED}
        seeds = groups.setdefault(repr(sorted(others.items())), {})
        seed = trial.overrides.get(_SEED, sweep.definition.config.get(_SEED))
        # A sampler may draw the same trial twice, which is no further draw from the normal distribution.
        if seed not in seeds or seeds[seed].state != FINISHED:
            seeds[seed] = trial
    repeated = []
    for trials in (list(seeds.values()) for seeds in groups.values()):
        values = [_value(trial) for trial in trials if trial.state == FINISHED and trial.value is not None]
        if len(values) > 1:
            others = {key: value for key, value in trials[0].overrides.items() if key != _SEED}
            name = ", ".join(f"{names[key]}={show(value)}" for key, value in others.items()) or "the recipe"
            repeated.append((name, values, mean_interval(values), len(trials) - len(values)))
    if not repeated:
        return []
    repeated.sort(key=lambda group: float(np.mean(group[1])), reverse=sweep.definition.direction == "maximize")
    shown = repeated[:SHOWN_GROUPS]
    rows = [
        [name, len(values), unfinished, float(np.mean(values)), *interval, min(values), max(values)]
        for name, values, interval, unfinished in shown
    ]
    chart = interval_chart([group[:3] for group in shown], metric=metric)
    header = ["", "finished", "not", f"mean {metric}", "from", "to", "least", "greatest"]
    said = f"<p>The best {SHOWN_GROUPS} of {len(repeated)} groups.</p>\n" if len(repeated) > SHOWN_GROUPS else ""
    return [said, charts([(chart, "")], wide=True), table(header, rows)]
