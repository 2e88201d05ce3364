"""Programs that are killed at a moment of their work, wherever that is in time: no watcher races them."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MAIN = """
import sys
from pathlib import Path
from tests.support.killing import run_and_kill
run_and_kill(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
"""


def kill_when(place: Path, pattern: str) -> None:
    """Kill this process when it next opens a file once there is one, not empty, that matches a pattern below a place.

    Python calls an audit hook before every file that it opens, in the thread that does: the process ends there.
    """

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and any(map(_has_content, place.glob(pattern))):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # renamed since it was listed
        return False


def run_and_kill(place: Path, pattern: str, words: Sequence[str]) -> None:
    """Run in this process what `python -m <words>` runs, until `kill_when` kills it."""
    kill_when(place, pattern)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def killed_module(words: Sequence[str], place: Path, pattern: str) -> None:
    """Run `python -m <words>` and see it killed as `kill_when` says; AssertionError where it ended before."""
    command = [sys.executable, "-c", MAIN, str(place), pattern, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
