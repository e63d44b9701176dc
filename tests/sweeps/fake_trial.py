"""Stands in for `lstm-research train`: the same files, signals and exit codes, without JAX, in 0.1 seconds.

Overrides: `x` decides the validation results (x + 1 / step); `steps` and `delay` how long it takes; `mode` how it ends.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import filelock

requested = []


def replace(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content)
    os.replace(temporary, path)


def append(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def main() -> int:
    values = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
    workdir, x = Path(values["workdir"]), float(values.get("config.x", 0.0))
    steps, delay = int(values.get("config.steps", 5)), float(values.get("config.delay", 0.01))
    mode = values.get("config.mode", "train")
    status_file = workdir / "status.json"
    if status_file.exists() and json.loads(status_file.read_text())["state"] == "finished":
        return 0
    append(workdir / "starts.txt", str(os.getpid()))
    if mode == "refuse":
        print("lstm-research: error: no such data", file=sys.stderr)
        return 2
    if mode == "break":
        raise ImportError("no jaxlib")
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: requested.append(True))
    lock = filelock.FileLock(workdir / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print("lstm-research: error: another process is training here", file=sys.stderr)
        return 2
    checkpoint, metrics = workdir / "checkpoints" / "state.json", workdir / "metrics.jsonl"
    replace(workdir / "config.json", json.dumps({key.split(".")[-1]: value for key, value in values.items()}))
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "best": None}
    kept = [line for line in metrics.read_text().splitlines() if line] if metrics.exists() else []
    replace(metrics, "".join(f"{line}\n" for line in kept if json.loads(line)["step"] <= state["step"]))

    def status(name: str) -> None:
        replace(status_file, json.dumps({"state": name, "config_digest": "", **state}))

    status("running")
    while state["step"] < steps:
        if requested:
            replace(checkpoint, json.dumps(state))
            status("preempted")
            return 143
        time.sleep(delay)
        state["step"] += 1
        if mode == "diverge" and state["step"] == 3:
            status("diverged")
            print("diverged at step 3: loss is nan")
            return 1
        if mode in ("crash", "crash once") and state["step"] == 3:
            status("failed")
            if mode == "crash" or len((workdir / "starts.txt").read_text().splitlines()) == 1:
                error = RuntimeError("out of memory\non device 0")
                error.add_note("--------------------\nFor simplicity, JAX has removed its internal frames.")
                raise error
        value = x + 1 / state["step"]
        append(metrics, json.dumps({"step": state["step"], "split": "valid", "seconds": 0.1, "loss": value}))
        if state["best"] is None or value < state["best"]["value"]:
            state["best"] = {"metric": "loss", "step": state["step"], "value": value}
        replace(checkpoint, json.dumps(state))
        status("running")
    replace(workdir / "best" / "model.safetensors", "")
    append(metrics, json.dumps({"step": steps, "split": "test", "seconds": 0.1, "loss": x}))
    append(workdir / "ends.txt", str(os.getpid()))
    status("finished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
