"""Batches divided among devices; see `four_devices`."""

import os
import subprocess
import sys
from pathlib import Path


def test_four_devices():
    program = Path(__file__).with_name("four_devices.py")
    root = str(program.parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    result = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("checked") == 3
