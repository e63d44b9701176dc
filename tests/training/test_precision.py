"""Half precision is that of products alone: what is kept from step to step, and what is summed, is in float32."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from knobs.files import write_files
from test_knobs import TABLES

from lstm_research.training.experiment import Experiment


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    write_files()


@pytest.mark.parametrize("task", TABLES)
def test_products_in_bfloat16_between_weights_and_states_in_float32(task: str) -> None:
    config = json.loads(json.dumps(TABLES[task].base))
    config["optimizer"] = {"name": "adam", "learning_rate": 1e-3}
    config["training"] |= {"average_decay": 0.9, "accumulation_steps": 2}
    config["task"]["batch_size"] = 4
    config["model"]["dtype"] = "bfloat16"
    experiment = Experiment.from_config(config)
    state, batch = experiment.init_state(), experiment.task.train_batches(experiment.seed)[0]
    assert "bf16" in str(jax.make_jaxpr(experiment.train_step)(state, batch))
    state, metrics = experiment.train_step(state, batch)
    for leaf in jax.tree.leaves((state._replace(key=None), metrics)):
        assert leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_)
    assert all(np.isfinite(total) and total.dtype == jnp.float32 for total, _ in metrics.values())
    # A weight moves by less than bfloat16 could tell.
    moved = jax.tree.leaves(
        jax.tree.map(lambda p, q: jnp.abs(p - q).max(), state.params, experiment.init_state().params)
    )
    assert 0 < max(moved) < 2e-3
