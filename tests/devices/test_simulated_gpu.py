"""Runs `steps_on_a_gpu.py` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STEPS = Path(__file__).with_name("steps_on_a_gpu.py")


def test_every_step_keeps_its_tensors_on_one_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(STEPS)]
    done = subprocess.run(command, cwd=STEPS.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
