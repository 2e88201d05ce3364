"""Commands of a rehearsal: timed and measured, killed midway, refused where they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluate.rehearsal.campaign_run import Kill, require, run_command
from submission.errors import UserError
from tests.support.launching import HANG_SECONDS

ROOT = Path(__file__).parents[3]
ENDLESS = f"""import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep({HANG_SECONDS})"])
Path("pid").write_text(str(child.pid))
Path("pid").rename("child")
print("work: building", file=sys.stderr, flush=True)
time.sleep({HANG_SECONDS})
"""


def assert_gone(child: int) -> None:
    """Assert that a process ends long before it would by itself; nobody may have waited for it yet."""
    deadline = time.monotonic() + HANG_SECONDS / 2
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(child: int) -> bool:
    """Return whether a process runs or sleeps: one that has ended is gone, or a zombie."""
    try:
        return Path(f"/proc/{child}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a module that `python -m step` runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "step.py"


def test_a_command_is_timed_and_its_memory_measured(module, tmp_path):
    module.write_text("import sys\nkept = bytearray(300 << 20)\nprint('done')\nprint('a: building', file=sys.stderr)\n")
    run = require(run_command(["step", "--fast"], tmp_path / "log/a"), tmp_path / "log/a")
    assert run.title == "step --fast"
    assert run.built == ("a",)
    assert run.peak_bytes > 300 << 20
    assert run.cpu_seconds > 0
    assert run.seconds > 0
    assert (tmp_path / "log/a.out").read_text() == "done\n"


def test_a_kill_counts_from_the_stage_and_takes_children_along(module, tmp_path):
    module.write_text(ENDLESS)
    run = run_command(["step"], tmp_path / "a", Kill(seconds=0.1, building=True))
    assert run.status == -signal.SIGKILL
    assert run.built == ("work",)
    assert run.seconds < HANG_SECONDS / 2
    assert_gone(int((tmp_path / "child").read_text()))


def test_a_driver_that_is_terminated_takes_its_command_along(module, tmp_path):
    module.write_text(ENDLESS)
    driver = "from pathlib import Path; from evaluate.rehearsal.campaign_run import *\n"
    driver += "end_on_sigterm(); run_command(['step'], Path('log'))"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.Popen([sys.executable, "-c", driver], env=environment)
    while not (tmp_path / "child").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(HANG_SECONDS / 2) == 128 + signal.SIGTERM
    assert_gone(int((tmp_path / "child").read_text()))


def test_a_command_that_ends_before_its_kill_is_not_killed(module, tmp_path):
    module.write_text("")
    assert run_command(["step"], tmp_path / "a", Kill(seconds=HANG_SECONDS, building=False)).status == 0
    assert run_command(["step"], tmp_path / "a", Kill(seconds=0, building=True)).status == 0


def test_a_failure_names_the_command_and_shows_what_it_printed(module, tmp_path):
    module.write_text("import sys\nsys.exit('error: no such corpus')\n")
    with pytest.raises(UserError, match=r"python -m step x: ended with status 1:\n  error: no such corpus"):
        require(run_command(["step", "x"], tmp_path / "a"), tmp_path / "a")
