"""Drives a sweep of fake trials; as a program it can be killed: `drive.py FOLDER OPTIONS`, options as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.driver import Driver
from lstm_research.sweeps.local import ProcessLauncher
from lstm_research.sweeps.space import Parameter
from lstm_research.sweeps.study import Study

SPACE = (Parameter("x", "float", 0.0, 1.0), Parameter("y", "categorical", values=("a", None, (1, 2))))


def fake_sweep(folder: Path, **options: Any) -> SweepDefinition:
    """Returns a sweep of fake trials: a random search of `SPACE`, unless points are given."""
    recipe = folder.parent / "recipe.py"
    recipe.write_text("")
    points = options.pop("points", None)
    chosen: dict[str, Any] = {
        "overrides": (),
        "points": None if points is None else tuple(points),
        "space": SPACE if points is None else None,
        "num_trials": 3 if points is None else len(points),
        "sampler": "random" if points is None else "points",
        "pruner": "none",
        "seed": 0,
        **options,
    }
    return SweepDefinition(
        folder=folder,
        recipe=str(recipe),
        config={"training": {"num_steps": 5, "eval_every": 1}},
        metric="loss",
        direction="minimize",
        recipe_text="",
        sweep_text="",
        program=(sys.executable, str(Path(__file__).with_name("fake_trial.py"))),
        **{**chosen, "overrides": tuple(chosen["overrides"])},
    )


def count(folder: Path, name: str) -> list[int]:
    """Returns how many lines a file has in each trial's folder."""
    files = [trial / name for trial in sorted((folder / "trials").iterdir())]
    return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files]


def drive(sweep: SweepDefinition, workers: int = 2, max_restarts: int = 10, storage: str | None = None) -> int:
    """Runs a sweep; returns the exit code."""
    with Study(sweep, storage) as study:
        launcher = ProcessLauncher(sweep, [{}] * workers)
        return Driver(sweep, study, launcher, max_restarts=max_restarts, poll_seconds=0.01).run()


if __name__ == "__main__":
    chosen = json.loads(sys.argv[2])
    database = chosen.pop("storage", None)
    sys.exit(drive(fake_sweep(Path(sys.argv[1]), **chosen), storage=database))
