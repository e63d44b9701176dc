"""A run's weights with the task they were trained for: to evaluate, to predict, to export."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment, read_task_files
from lstm_research.training.files import write_atomically
from lstm_research.training.weights import load_weights, save_weights
from lstm_research.training.workdir import Workdir, config_digest, read_workdir


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a workdir holds, ready for use.

    Attributes:
      config: of the run.
      task: of the run, with its vocabulary; its data is read only where it is asked for.
      files: what the task stored in the workdir.
      params: the weights; their average, if the run keeps one.
      step: the training step they are from.
    """

    config: Any
    task: Any
    files: dict[str, bytes]
    params: Params
    step: int

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "best") -> "TrainedRun":
        """Reads a workdir.

        Args:
          path: the workdir.
          checkpoint: "best", "latest", or the step of a checkpoint that is still there.

        Raises:
          UserError: not a workdir, no such checkpoint, or a damaged one.
        """
        workdir, config = read_workdir(Path(path))
        files = read_task_files(workdir, config)
        experiment = Experiment.from_config(config, files=files)
        if checkpoint == "best":
            if not workdir.best_weights.exists():
                raise UserError(f"workdir {path} holds no best weights yet; try --checkpoint=latest")
            params, metadata = load_weights(workdir.best_weights, experiment.state_shapes.params)
            return cls(config, experiment.task, files, jax.device_put(params), int(metadata["step"]))
        step, state = _restore(workdir, checkpoint, experiment.init_state())
        return cls(config, experiment.task, files, state.evaluated, step)

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns the metrics over a whole split."""
        if split not in self.task.splits():
            raise UserError(f"unknown split {split!r}; valid: {', '.join(self.task.splits())}")
        metrics = Evaluator(self.task).evaluate(self.params, split)
        assert metrics is not None  # nothing asks the evaluation to stop
        return metrics

    def export(self, folder: Path) -> list[Path]:
        """Writes `model.safetensors`, `config.json` and the task's files to a folder; returns their paths."""
        config = json.dumps(self.config.to_dict(), indent=2, sort_keys=True) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / "model.safetensors"
        save_weights(
            weights,
            self.params,
            {"config": config, "config_digest": config_digest(self.config), "step": str(self.step)},
        )
        files = {"config.json": config.encode(), **self.files}
        for name, content in files.items():
            write_atomically(folder / name, content)
        return [weights, *(folder / name for name in files)]


def _restore(workdir: Workdir, checkpoint: str, template: Any) -> tuple[int, Any]:
    """Returns the step and the state of a checkpoint."""
    checkpoints = Checkpoints(workdir.checkpoints, keep=1)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"workdir {workdir.path} holds no checkpoint")
    if checkpoint != "latest" and checkpoint not in map(str, steps):
        raise UserError(
            f"--checkpoint={checkpoint}: not in {workdir.path}; valid: best, latest, {', '.join(map(str, steps))}"
        )
    step = max(steps) if checkpoint == "latest" else int(checkpoint)
    return step, checkpoints.restore(step, template)[0]
