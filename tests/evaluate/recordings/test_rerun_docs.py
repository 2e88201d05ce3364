"""Every command in docs/rerun.md works as it stands there, with real folders for its placeholders."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from evaluate.__main__ import make_parser
from submission.cli import run
from submission.text.segments import read_segments, write_segments

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "rerun.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.+?)\n```", TEXT, re.DOTALL)
TORCHRUN = "torchrun --standalone --nproc-per-node 4 -m evaluate"
"""Its command is run by one process here; several are another test's (test_translate.py)."""
PREFIXES = (".venv/bin/nox -s rerun --", "python3 -m evaluate", TORCHRUN)


def arguments(command: str, names: dict[str, str]) -> list[str]:
    """Return what follows `python -m evaluate` in a command, with real folders for the names that stand for them."""
    prefix = next(prefix for prefix in PREFIXES if command.startswith(prefix))
    words = shlex.split(command.removeprefix(prefix))
    for name, value in names.items():
        words = [re.sub(rf"^{name}\b", value, word) for word in words]
    return ["rerun", *words] if prefix == PREFIXES[0] else words


@pytest.fixture
def names(bundled, tmp_path) -> dict[str, str]:
    yaml = tmp_path / "their.yaml"
    segments = read_segments(bundled.folder / "segments" / "TALKS.yaml")
    write_segments(yaml, segments[:2])
    references = tmp_path / "references" / "TALKS"
    references.mkdir(parents=True)
    write_segments(references / "segments.yaml", segments)
    (references / "en-de.txt").write_text("Guten Tag.\n" * len(segments), encoding="utf-8")
    return {
        "BUNDLE": str(bundled.folder),
        "RECORDINGS": str(bundled.audio / "talks"),
        "SEVERAL": str(bundled.audio),
        "TESTSET": "ACCENT",
        "MODEL": str(bundled.folder / "model"),
        "YAML": str(yaml),
        "OTHER": str(bundled.folder),
        "REFERENCES": str(references.parent),
        "OUT": str(tmp_path / "out"),
        "iwslt26": bundled.campaign,
    }


def test_every_documented_command_succeeds(bundled, names, capsys):
    assert COMMANDS
    for command in COMMANDS:
        words = arguments(command, names)
        # The test's campaign is not a shipped one, which a bundle could name and the recipe would suit.
        if words[0] == "rerun" and "--campaign" not in words:
            words += ["--campaign", bundled.campaign]
        if words[0] == "translate":
            words += ["--recipe", bundled.recipe]
        assert run(make_parser(), words) == 0, (command, capsys.readouterr().err)
    said = capsys.readouterr().out
    assert said.count("identical 15/15 lines") == 4  # both pairs, under a launcher, with references
    assert said.count("15 reference lines, line by line") == 3 and "p: two-sided p-value" in said
    assert re.search(r"\nen-de/TALKS +15/15 lines \(100\.0%\)", said)


def test_the_output_folder_holds_what_the_document_lists(bundled, tmp_path, capsys):
    block = TEXT.split("## The output folder")[1].split("##")[0]
    listed = re.findall(r"^    (\S+)  ", block, re.MULTILINE)
    words = [*bundled.arguments(), "--audio", str(bundled.audio / "accent"), "--out", str(tmp_path / "out")]
    assert run(make_parser(), words) == 0
    capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(listed)
