"""How much each swept key matters."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from lstm_research.sweeps.sweep_charts import Scale

MIN_TRIALS = 8
"""Of fewer trials no importance is computed: a forest would fit their noise."""


def importances(trials: Sequence[tuple[Mapping[str, Any], float]]) -> dict[str, float]:
    """Returns the share of the metric's variance that each key explains alone, and in all its combinations.

    Functional analysis of variance on a random forest: Hutter, Hoos and Leyton-Brown, "An Efficient Approach for
    Assessing Hyperparameter Importance", 2014. The shares are of all that the forest explains, so they sum to 1.

    Args:
      trials: what each set, by key, and its value. Keys that not all of them set are left out, as are those that all
        set to the same.

    Returns:
      Shares by key, the largest first; empty with fewer than `MIN_TRIALS` trials, or where the forest explains nothing.
    """
    if len(trials) < MIN_TRIALS or len({value for _, value in trials}) < 2:
        return {}
    scales = {
        key: scale
        for key in trials[0][0]
        if all(key in overrides for overrides, _ in trials)
        and len((scale := Scale([overrides[key] for overrides, _ in trials])).values) > 1
    }
    if not scales:
        return {}
    if len(scales) == 1:
        return dict.fromkeys(scales, 1.0)
    distributions: dict[str, BaseDistribution] = {key: _distribution(scale) for key, scale in scales.items()}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for overrides, value in trials:
            params = {key: overrides[key] if scales[key].is_number else repr(overrides[key]) for key in scales}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except RuntimeError:  # no tree found any variance, as where values differ in their last bits
        return {}
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(scale: Scale) -> BaseDistribution:
    if scale.is_number:
        return FloatDistribution(scale.values[0], scale.values[-1], log=scale.log)
    return CategoricalDistribution([repr(value) for value in scale.values])
