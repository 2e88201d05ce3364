"""README and CI have the same two commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def command(name: str) -> str:
    match = re.search(rf"<!-- {name} -->\n```sh\n(.+)\n```\n<!-- /{name} -->", README)
    assert match, name
    return match[1]


def test_ci_runs_the_readmes_commands_with_the_tests_under_coverage():
    tests = command("tests").replace("nox -s tests", "nox -s coverage")
    assert CI.index(f"( {tests} )") < CI.index(f"( {command('build')} )")
    assert "( .venv/bin/nox -s lint types docs )" in CI
    assert "set -euo pipefail" in CI


def test_ci_fails_when_any_part_of_a_command_fails(tmp_path):
    script = tmp_path / "run"
    for line in ("( false && true )", "( true && false && true )"):
        script.write_text(f"set -euo pipefail\n{line}\n( true )\n", encoding="utf-8")
        assert subprocess.run(["bash", str(script)], check=False).returncode != 0


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_in_the_readme_leads_somewhere(path):
    assert (ROOT / path).exists()


def test_every_folder_in_the_readme_exists():
    block = README.split("## Where each step lives")[1]
    for name in re.findall(r"^    (\S+)  ", block, re.MULTILINE):
        assert (ROOT / name).exists(), name
