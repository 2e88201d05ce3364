"""Commands in the Markdown pages: their sessions, verbs and options exist."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "submission" / "miniature").rglob("README.md")]
)
COMMAND = re.compile(r"-(?:m|-module) ((?:submission|train|quantize|segment|evaluate)(?:\.\w+)*)([^\n`|&;#]*)")
SESSION = re.compile(r"nox -s ([^\n`|&;#]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
PASSED_ON = {
    "bench": None,
    "bench_lm": "quantize.bench.language_model",
    "build_contrastive": "submission steps",
    "build_primary": "submission steps",
    "gpu_check": "evaluate gpu_check",
    "rehearse": "evaluate rehearse",
    "rehearse --campaign": "quantize rehearse",
    "report": "submission steps",
    "rerun": "evaluate rerun",
    "score": "evaluate comet",
    "verify": "submission verify",
}
"""Session, with the first option where that decides -> the command that gets what stands after `--`; None: none."""


def documented(pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in pattern.finditer(text):
            yield f"{page.relative_to(ROOT).as_posix()}: {match[0].strip()}", match


def commands() -> list[tuple[str, str, str]]:
    """Return where it stands, package and arguments of every documented command."""
    return [(where, match[1], match[2]) for where, match in documented(COMMAND)]


@functools.cache
def help_of(command: str) -> str:
    """Return what a command prints for --help; a package, or package and verb."""
    words = [sys.executable, "-m", *command.split(), "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python -m {command}: {done.stderr}"
    return done.stdout


@functools.cache
def sessions() -> set[str]:
    """Return the names of the sessions of the noxfile."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if any("nox.session" in ast.unparse(d) for d in node.decorator_list)}


def verb_of(arguments: str) -> str:
    """Return the first argument where it is a verb, not an option or a placeholder."""
    first = arguments.split()[:1]
    return first[0] if arguments.startswith(" ") and first and re.fullmatch(r"[a-z]+", first[0]) else ""


def options_of(command: str) -> set[str]:
    return set(OPTION.findall(help_of(command)))


@pytest.mark.parametrize("command", sorted({f"{name} {verb_of(rest)}".strip() for _, name, rest in commands()}))
def test_every_documented_verb_and_option_exists(command):
    known = options_of(command)
    for where, name, rest in commands():
        if f"{name} {verb_of(rest)}".strip() == command:
            assert set(OPTION.findall(rest)) <= known, where


def test_every_documented_session_and_option_exists():
    for where, match in documented(SESSION):
        typed = re.split(r"\s{2,}", match[1].strip())[0]  # what it does may stand beside it
        named, _, passed = typed.partition(" -- ")
        assert named and set(named.split()) <= sessions(), where
        command = PASSED_ON.get(f"{named} {passed.partition(' ')[0]}", PASSED_ON.get(named))
        if command is not None:
            assert set(OPTION.findall(passed)) <= options_of(command), where
