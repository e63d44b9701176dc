"""The loss of each step is the loss with that step alone, for every task."""

import copy
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from knobs.files import load, write_files
from knobs.forecasting import DEEPAR
from test_knobs import TABLES, put

from lstm_research.analysis.step_losses import step_losses
from lstm_research.data.prepared import PreparedDataset
from lstm_research.training.experiment import Experiment

WITH_STEPS = ("forecasting", "language_modelling", "synthetic", "translation")
DRAWN = {"model": DEEPAR, "task.num_samples": 2}


@pytest.mark.parametrize(
    ("table", "changes"), [*((table, {}) for table in WITH_STEPS), ("forecasting", DRAWN), ("text_classification", {})]
)
def test_one_step_alone(table: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # configs as JSON has them
    monkeypatch.setattr(PreparedDataset, "load", load)
    write_files()
    config: dict[str, Any] = copy.deepcopy(TABLES[table].base)
    for path, value in changes.items():
        put(config, path, value)
    task = Experiment.from_config(config).task
    params = task.init(jax.random.key(0))
    batch = task.eval_batches("valid")[0]
    if table not in WITH_STEPS:
        with pytest.raises(ValueError, match="one loss"):
            step_losses(task, params, batch)
        return
    losses = np.asarray(step_losses(task, params, batch))
    weights = np.asarray(batch["weights"], np.float32)
    assert losses.shape == weights.shape

    @jax.jit
    def loss(weights: Any) -> Any:
        return task.loss(params, {**batch, "weights": weights}, task.initial_carry(params, len(weights)), None)[0]

    np.testing.assert_allclose((losses * weights).sum(), loss(weights), rtol=1e-4)
    if changes:
        return  # what does not count was not observed either, which changes the losses after it
    counted = np.argwhere(weights > 0)
    for place in counted[:: -(-len(counted) // 5)]:
        alone = np.zeros_like(weights)
        alone[tuple(place)] = 1
        np.testing.assert_allclose(losses[tuple(place)], loss(alone), rtol=1e-4, atol=1e-6)
