"""SUBMISSION.md: its commands work with real folders for their placeholders, and its links lead to files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from submission.store.digests import tree_digest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SUBMISSION.md").read_text(encoding="utf-8")
RERUN = (ROOT / "docs" / "rerun.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```sh\n(.+?)\n *```$", re.MULTILINE | re.DOTALL)
COMMANDS = [textwrap.dedent(block[2]) for block in BLOCK.finditer(TEXT)]
REST = [command for command in COMMANDS if " rerun " in command]


def spelled(command: str, names: dict[str, str]) -> str:
    """Return a command with this Python, and real folders for the names that stand for them."""
    command = command.replace("python3 ", f"{sys.executable} ")
    for name, value in names.items():
        command = re.sub(rf"\b{name}\b", value, command)
    return command


def test_every_command_that_needs_no_build_works(pristine, tmp_path):
    upload = tmp_path / "upload"
    names = {
        "BUNDLE": str(shutil.copytree(pristine, upload / pristine.name)),
        "SYSTEM": pristine.name,
        "UPLOAD": str(upload),
        "FILE": str(tmp_path / "page.html"),
    }
    commands = [command for command in COMMANDS if command not in REST]
    assert commands
    # An organiser unpacks what a participant packed, though the page has them in the other order.
    for command in sorted(commands, key=lambda c: "archive" not in c):
        if command.startswith("cd UPLOAD"):
            shutil.rmtree(upload / pristine.name)
        done = subprocess.run(
            ["bash", "-c", spelled(command, names)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert tree_digest(upload / pristine.name) == tree_digest(pristine)
    assert (tmp_path / "page.html").is_file()


def test_commands_of_a_rerun_are_those_of_its_guide_whose_test_runs_them():
    assert REST
    assert all(f"```sh\n{command}\n```" in RERUN for command in REST)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^):]+)\)", TEXT))))
def test_every_link_leads_somewhere(link):
    path, _, anchor = link.partition("#")
    if path:
        assert (ROOT / path).exists()
    else:
        headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_what_is_in_a_bundle_is_what_the_page_says(pristine):
    block = TEXT.split("## What is in a bundle")[1].split("##")[0]
    listed = {name.split("/")[0] for name in re.findall(r"^    (\S+) ", block, re.MULTILINE) if not name.isspace()}
    assert {path.name for path in pristine.iterdir()} <= listed
