"""The locks hold every pin, at its version, each file with its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
ENVIRONMENTS = {
    "build": ("build", "test"),
    "score": ("score",),
    "lint": ("lint",),
    "types": ("types",),
    "docs": ("docs",),
    "lm": ("lm",),
    "peer": ("peer",),
    "rehearsal": ("rehearsal",),
    "package": ("package",),
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(environment: str) -> dict[str, str]:
    text = (ROOT / "locks" / f"{environment}.txt").read_text(encoding="utf-8")
    return {normalized(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_lock_holds_every_pin_of_its_environment(environment):
    pins = [pin.partition("==") for group in ENVIRONMENTS[environment] for pin in GROUPS[group]]
    expected = {normalized(name): version for name, _, version in pins if name != "torch"}
    found = locked(environment)
    assert {name: found.get(name) for name in expected} == expected, "run nox -s lock, which needs a package index"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_locked_version_has_hashes_and_torch_has_none(environment):
    text = (ROOT / "locks" / f"{environment}.txt").read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "torch" not in locked(environment)


def test_a_package_runs_the_versions_that_the_build_runs():
    package, build = locked("package"), locked("build")
    assert package and package == {name: build.get(name) for name in package}
    pins = {environment: [pin for pin in GROUPS[environment] if pin.startswith("torch==")] for environment in GROUPS}
    assert pins["package"] == pins["build"]
