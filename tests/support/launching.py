"""Programs of tests, started in several processes as torchrun or accelerate starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HANG_SECONDS = 3600
"""Ends a process that waits for something that never comes; on a slow and busy machine the others need minutes."""
TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "--standalone")
TORCHRUN_THREE = ("torch.distributed.run", "--nproc-per-node=3", "--standalone")
ACCELERATE = ("accelerate.commands.launch", "--num_processes=2", "--main_process_port=0")


def launch(
    program: str, folder: Path, *arguments: Path | int, launcher: Sequence[str] = TORCHRUN
) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes, or as many as the launcher starts: a module and its options."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    words = [sys.executable, "-m", *launcher, str(folder / "program.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=HANG_SECONDS)
