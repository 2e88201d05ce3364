"""What commands write, whatever the locale says, and where a file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from submission.store.store import Stage, Store

ROOT = Path(__file__).parents[2]
PROGRAM = """
import argparse, sys
from pathlib import Path
from submission.cli import run

def show(args):
    for path in sorted(args.folder.iterdir()):
        print(path.name)
        Path(args.folder.parent, "copied").write_bytes(path.name.encode("utf-8", "surrogateescape"))

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.set_defaults(verb=show)
sys.exit(run(parser))
"""


@pytest.mark.parametrize("name", ["Gespräch-电话.wav".encode(), b"Gespr\xe4ch.wav"], ids=["utf-8", "latin-1"])
def test_names_and_output_are_utf8_in_any_locale(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    # Python's own ways out of the C locale are closed, so that it reads names of files as ASCII.
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "program.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copied").read_bytes() == name
    assert done.stdout.decode("utf-8").strip() in ("Gespräch-电话.wav", r"Gespr\udce4ch.wav")


LISTING = """
import argparse, sys
from submission.cli import run

def count(args):
    for number in range(args.lines):
        print(number, flush=args.flush)

parser = argparse.ArgumentParser()
parser.add_argument("lines", type=int)
parser.add_argument("--flush", action="store_true")
parser.set_defaults(verb=count)
sys.exit(run(parser))
"""


@pytest.mark.parametrize("words", [["2"], ["2", "--flush"], ["100000"]])
def test_a_reader_that_stops_reading_ends_a_command_without_a_word(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LISTING, encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does when it has its lines
    command = [sys.executable, str(tmp_path / "program.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_store_without_locks_builds_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    stage = Stage(name="finetune", revision=1, options={}, inputs={})
    built = Store(root=tmp_path).obtain(stage, lambda out: (out / "x").touch())
    assert (built / "x").is_file()
    assert "on a file system without locks (No locks available): run one build at a time" in capfd.readouterr().err
