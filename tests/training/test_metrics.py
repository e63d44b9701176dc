"""The metrics log: whole lines only, and exactly those that a resumed run would not write again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter  # noqa: F401 (the reader below follows its format)

from lstm_research.common.errors import UserError
from lstm_research.training.metrics import MetricsLog, MetricSums, TensorBoard, read_metrics


def write(path: Path, *lines: tuple[str, int]) -> MetricsLog:
    log = MetricsLog(path)
    for split, step in lines:
        log.append({"step": step, "split": split, "seconds": 0.5, "loss": step / 7})
    return log


def test_lines_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = write(path, ("train", 7))
    log.append({"step": 8, "split": "valid", "seconds": 1.0, "loss": 0.1, "perplexity": float("inf")})
    assert read_metrics(path) == [
        {"step": 7, "split": "train", "seconds": 0.5, "loss": 1.0},
        {"step": 8, "split": "valid", "seconds": 1.0, "loss": 0.1, "perplexity": None},
    ]
    for raw in path.read_text().splitlines():
        json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_truncate_keeps_what_was_written_before_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = write(path, ("train", 7), ("valid", 10), ("train", 14), ("valid", 20), ("train", 21), ("test", 10))
    assert log.truncate(logged_step=14, evaluated_step=10) == 3
    assert [(line["split"], line["step"]) for line in read_metrics(path)] == [
        ("train", 7),
        ("valid", 10),
        ("train", 14),
    ]
    before = path.stat().st_mtime_ns
    assert log.truncate(logged_step=14, evaluated_step=10) == 0
    assert path.stat().st_mtime_ns == before


def test_truncate_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = write(path, ("train", 7))
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert len(read_metrics(path)) == 1
        assert log.truncate(logged_step=7, evaluated_step=0) == 1
        assert path.read_bytes() == whole


def test_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    log = write(path, ("train", 7))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, ("train", 14))
    assert path.read_bytes() == before
    del log


def test_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, ("train", 7))
    path.write_bytes(b"{nonsense}\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"metrics.jsonl:1 is not a metrics line"):
        read_metrics(path)
    with pytest.raises(UserError, match="no metrics at"):
        read_metrics(tmp_path / "other.jsonl")


def test_sums_do_not_depend_on_when_they_were_stored() -> None:
    values = [0.1 * step for step in range(1, 20)]
    whole = MetricSums(latest=["rate"])
    for value in values:
        whole.add({"loss": (value, 3), "rate": (value, 1)})
    parts = MetricSums(latest=["rate"])
    for value in values:
        parts.add({"loss": (value, 3), "rate": (value, 1)})
        parts = MetricSums(json.loads(json.dumps(parts.as_dict())), latest=["rate"])
    assert parts.as_dict() == whole.as_dict()
    assert whole.as_dict()["rate"] == (values[-1], 1)


def events(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_mirrors_each_line_at_once(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "tb")
    board.append({"step": 7, "split": "train", "seconds": 0.5, "loss": 2.0, "perplexity": float("inf")})
    seen = [(event.step, event.summary.value[0]) for event in events(tmp_path / "tb") if event.summary.value]
    assert [(step, value.tag, value.simple_value) for step, value in seen] == [(7, "train/loss", 2.0)]
    again = TensorBoard(tmp_path / "tb", resumed_step=13)
    again.close()
    board.close()
    assert [event.step for event in events(tmp_path / "tb") if event.HasField("session_log")] == [14]
