"""`python -m segment` as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "segment", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_names_the_verbs_without_loading_torch():
    code = (
        "import sys, runpy; sys.argv = ['segment', '--help']\n"
        "try: runpy.run_module('segment', run_name='__main__')\n"
        "finally: assert not {'torch', 'numpy', 'transformers', 'yaml'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in ("run", "plot", "convert", "train", "measure"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--testset", "NOPE"], "error: --testset: unknown ['NOPE']; choose from ACL"),
        (["run", "--campaign", "iwslt26"], "error: campaign iwslt26: the data folder lacks"),
        (["convert", "nowhere.pt", "--out", "nowhere"], "error: nowhere.pt: cannot be read"),
        (["plot", "--testset", "NOPE", "--out", "nowhere"], "error: --testset: unknown ['NOPE']; choose from ACL"),
    ],
)
def test_a_mistake_is_reported_in_one_message(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
