"""The smallest task that uses all that the loop offers: a linear recurrence, learned by a linear recurrence.

As a program it trains it: `python fake_task.py WORKDIR [JSON of make_experiment's keywords]`, as one of two processes
with `ADDRESS PROCESS_ID` after that.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lstm_research.tasks.task import Task
from lstm_research.training.experiment import TrainingOptions
from lstm_research.training.optimizers import Optimizer, make_optimizer
from lstm_research.training.parallel import Parallel
from lstm_research.training.step import TrainState, init_state, make_train_step

B, T, D, H = 2, 5, 3, 4
Batch = dict[str, np.ndarray]


class LinearRecurrence(Task):
    """y_t = v·h_t with h_t = a*h_{t-1} + x_t W; noise on the inputs makes each step use its key."""

    batch_size = B
    file_names = ("vocabulary.json",)

    def __init__(self, splits: tuple[str, ...] = ("train", "valid", "test")):
        self._splits = splits

    def load(self, source_files: Any = None) -> None:
        """Has nothing to read."""

    def train_batches(self, seed: int) -> Any:
        raise NotImplementedError  # `train_iterator` below

    def splits(self) -> tuple[str, ...]:
        return self._splits

    def files(self) -> dict[str, bytes]:
        return {"vocabulary.json": b'["a", "b"]\n'}

    def train_batch(self, seed: int, index: int) -> Batch:
        inputs = np.random.default_rng([seed, index]).standard_normal((B, T, D)).astype(np.float32)
        return {"inputs": inputs, "targets": inputs.sum(2).cumsum(1) / 4, "weights": np.ones((B, T), np.float32)}

    def eval_batches(self, split: str) -> list[Batch]:
        seed = 1000 + self.splits().index(split)
        batches = [self.train_batch(seed, index) for index in range(3)]
        batches[-1]["weights"][:, 2:] = 0
        return batches

    def init(self, key: jax.Array) -> dict[str, Any]:
        kernel = jax.random.normal(key, (D, H)) / 2
        recurrence = {"decay": jnp.full((H,), 0.5, jnp.float32), "input_kernel": kernel}
        return {"output": {"kernel": jnp.ones((H,)) / 4}, "recurrence": recurrence}

    def initial_carry(self, params: dict[str, Any], batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, H))

    def loss(self, params: Any, batch: Any, carry: Any, key: Any) -> tuple[Any, Any, dict[str, Any], Any]:
        inputs = batch["inputs"]
        if key is not None:
            inputs = inputs + 0.1 * jax.random.normal(key, inputs.shape)

        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = params["recurrence"]["decay"] * h + x @ params["recurrence"]["input_kernel"]
            return h, h @ params["output"]["kernel"]

        carry, outputs = jax.lax.scan(step, carry, jnp.swapaxes(inputs, 0, 1))
        errors, weights = outputs.T - batch["targets"], batch["weights"]
        count = weights.sum()
        extras = {"absolute_error": ((jnp.abs(errors) * weights).sum(), count)}
        return (errors**2 * weights).sum(), count, extras, carry

    def samples(self, params: Any) -> dict[str, str]:
        return {"sample.txt": f"{float(params['output']['kernel'].sum())}\n"}

    def metrics(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        return {name: total / count for name, (total, count) in sums.items()}


@dataclasses.dataclass
class FakeExperiment:
    """What the loop needs of an experiment."""

    config: ConfigDict
    task: LinearRecurrence
    optimizer: Optimizer
    training: TrainingOptions
    train_step: Callable[[TrainState, Any], Any]
    nan_batch: int | None = None
    delay: float = 0.0
    notes: tuple[str, ...] = ()
    parallel: Parallel = dataclasses.field(default_factory=Parallel)

    def init_state(self) -> TrainState:
        triggered = self.training.average_patience is not None
        average = triggered or self.training.average_decay is not None
        return init_state(self.task, self.optimizer, seed=self.config.seed, average=average, triggered=triggered)

    @property
    def state_shapes(self) -> TrainState:
        return jax.eval_shape(self.init_state)

    def train_iterator(self, start_step: int) -> Iterator[Batch]:
        index = start_step
        while True:
            batch = self.task.train_batch(self.config.seed, index)
            if index == self.nan_batch:
                batch["inputs"][0, 0, 0] = np.nan
            time.sleep(self.delay)
            yield batch
            index += 1


def make_experiment(
    *,
    num_steps: int = 40,
    seed: int = 3,
    learning_rate: float = 0.02,
    schedule: str = "plateau",
    splits: tuple[str, ...] = ("train", "valid", "test"),
    nan_batch: int | None = None,
    delay: float = 0.0,
    **training: Any,
) -> FakeExperiment:
    """Makes an experiment with intervals that seldom coincide."""
    intervals = {"log_every": 7, "eval_every": 10, "checkpoint_every": 13, "average_decay": 0.9}
    options = TrainingOptions(num_steps=num_steps, **{**intervals, **training})
    optimizer_config = {"name": "adam", "learning_rate": learning_rate, "schedule": {"name": schedule}}
    config = ConfigDict(
        {"seed": seed, "optimizer": optimizer_config, "training": dataclasses.asdict(options), "shape": (B, T)}
    )
    task = LinearRecurrence(tuple(splits))
    optimizer = make_optimizer(**optimizer_config, num_steps=num_steps)
    step = make_train_step(task, optimizer, average_decay=options.average_decay)
    return FakeExperiment(config, task, optimizer, options, step, nan_batch, delay)


if __name__ == "__main__":
    from lstm_research.training.checkpoints import Checkpoints
    from lstm_research.training.loop import run

    save = Checkpoints.save

    def announced_save(self: Checkpoints, step: int, *rest: Any) -> None:
        print(f"saving {step}", flush=True)
        save(self, step, *rest)

    Checkpoints.save = announced_save  # type: ignore[method-assign]
    keywords = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    processes = contextlib.nullcontext()
    if len(sys.argv) > 3:
        from lstm_research.training.processes import joined

        address, process_id = sys.argv[3:]
        processes = joined(address, 2, int(process_id))
    with processes:
        code = run(make_experiment(**keywords), Path(sys.argv[1]))
    sys.exit(code)
