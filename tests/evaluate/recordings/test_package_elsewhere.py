"""A package as an organiser tries it: no variables, another user, nothing writable but the output, no network.

Slow: each Python makes an environment of its own, of gigabytes. Wheels of this Python come from the package index that
pip knows; those of the others from the folder that PACKAGE_WHEELS names: torch has a CPU build for one Python alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from submission.package.package import package

VERSIONS = ("3.11", "3.12", "3.13")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
ALONE = ["unshare", "--net"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, with a blank and a letter beyond ASCII in its name."""
    outer = Path(tempfile.mkdtemp(prefix="package-elsewhere-"))
    outer.chmod(0o755)
    inner = outer / "an organiser's Gerät"
    inner.mkdir()
    yield inner
    for path in (outer, *outer.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(outer)


def works(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def interpreter(version: str) -> str:
    """Return a Python of a version that can make environments, one that every user may run first; skip without one."""
    name = f"python{version}"
    beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/{name}"))
    found = [*(f"{folder}/{name}" for folder in os.get_exec_path()), *map(str, beside)]
    right = f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    usable = [path for path in found if works(path, "-c", right)]
    if not usable:
        pytest.skip(f"no {name} with its venv module here")
    return min(usable, key=lambda path: not works(*NOBODY, path, "-c", ""))


def wheels(version: str, python: str, made: Path, place: Path) -> Path:
    """Return a folder of the wheels that a package requires; skip where they are not to be had."""
    if named := os.environ.get("PACKAGE_WHEELS"):
        return Path(named)
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip(f"PACKAGE_WHEELS names no folder with wheels of Python {version}")
    folder = place / "wheels"
    listed = ["-r", made / "requirements.txt", "--no-deps"], ["-r", made / "requirements-torch.txt"]
    for words in listed:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", folder, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no package index here: {done.stderr.splitlines()[-1]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_package_gives_the_bundles_lines_by_two_commands_wherever_it_is(bundled, place, version):
    python = interpreter(version)
    made, audio, writable = place / "the package", place / "recordings", place / "writable"
    package(bundled.folder, made, bundled.campaign)
    shutil.copytree(bundled.audio, audio)
    campaign = shutil.copy(bundled.campaign, place / "campaign.toml")
    needed = wheels(version, python, made, place)
    writable.mkdir()
    writable.chmod(0o777)
    for path in (made, *made.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)

    prefix = [*(ALONE if works(*ALONE, "true") else []), *(NOBODY if works(*NOBODY, python, "-c", "") else [])]
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C", "PYTHON": python, "PACKAGE_VENV": str(writable / "venv")}
    environment |= {"TMPDIR": str(writable), "PIP_CONFIG_FILE": os.devnull}

    def called(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *words], env=environment, cwd="/", capture_output=True, text=True, encoding="utf-8", check=False
        )

    before = sorted(path.relative_to(made) for path in made.rglob("*"))
    done = called(made / "setup.sh", "--wheels", needed)
    assert done.returncode == 0, done.stderr
    out = writable / "out"
    done = called(made / "run.sh", "--audio", audio, "--output", out, "--campaign", campaign)
    assert done.returncode == 0, done.stderr
    shipped = {path.relative_to(bundled.folder): path.read_bytes() for path in bundled.folder.glob("??-??/*.txt")}
    assert {path.relative_to(out): path.read_bytes() for path in out.glob("??-??/*.txt")} == shipped != {}
    assert sorted(path.relative_to(made) for path in made.rglob("*")) == before
