"""`benchmark packed`: what follows from the seconds of the commands, and what the command shows."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from lstm_research.cli.benchmark import load
from lstm_research.common.errors import UserError

CONFIG = {"training": {"num_steps": 1000}, "optimizer": {"learning_rate": 0.01}}


def measured(way: Any, *_: Any) -> dict[str, float]:
    """A machine on which a start takes 10 s, a step 10 ms, and packing makes steps twice as fast."""
    step = 0.01 if not way.packed else 0.005
    return {"seconds": 10 + 100 * way.trials * step, "step_seconds": step, "fixed_seconds": 10.0}


def test_trials_an_hour_follow_from_start_and_steps() -> None:
    packed, records = load("packed"), []
    packed.run({"recipe.py": CONFIG}, [], [1, 8], 100, 3, records.append, lambda _: None, measured)
    (recipe,) = records[-1]["recipes"]
    assert recipe["ways"]["alone"]["trials_per_hour"] == pytest.approx(3600 / 20)
    assert recipe["ways"]["pack of 8"]["trials_per_hour"] == pytest.approx(8 * 3600 / (10 + 8 * 5))
    assert len(recipe["rounds"]) == 3
    json.dumps(records[-1])
    console = Console(file=io.StringIO(), width=120)
    load("report").print_packed(recipe, console)
    assert "pack of 8" in console.file.getvalue()
    assert "576.0" in console.file.getvalue()


def test_wrong_numbers_are_refused() -> None:
    packed = load("packed")
    for arguments, message in (
        (([0], 100, 1), "--packs must be at least 1, got 0"),
        (([1], 3, 1), "--steps must be at least 4, got 3"),
        (([1], 100, 0), "--repeats must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            packed.run({"recipe.py": CONFIG}, [], *arguments, lambda _: None, lambda _: None, measured)


@pytest.mark.whole
def test_the_commands_run() -> None:
    packed = load("packed")
    overrides = ["dataset.length=10", "model.cell.hidden_size=8"]
    for way in packed.ways([2], cores=2):
        row = packed.run_commands(way, "configs/synthetic.py", CONFIG, overrides, 8)
        assert row["seconds"] > row["fixed_seconds"] > 0
        assert row["step_seconds"] > 0


@pytest.mark.whole
def test_a_command_that_fails_ends_the_benchmark() -> None:
    packed = load("packed")
    way = packed.Way("alone", 1, False)
    with pytest.raises(UserError, match=r"configs/synthetic\.py, alone: .*hidden_size"):
        packed.run_commands(way, "configs/synthetic.py", CONFIG, ["model.cell.hidden_size=-1"], 8)
