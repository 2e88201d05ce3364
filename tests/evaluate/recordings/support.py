"""The command `translate` in this process, and segments of the bundled recordings as a list gives them."""

from __future__ import annotations

from pathlib import Path

from evaluate.__main__ import make_parser
from submission.cli import run
from submission.text.segments import Segment

YAML = """
- wav: somewhere/b.wav
  offset: 4.0
  duration: 1.0
- {duration: 2.5, offset: 1, rW: 0, speaker_id: NA, uW: 0, wav: b.wav}
- {"wav": "a", "offset": 0, "duration": "0.05"}
"""
GIVEN = [
    Segment(recording="a.wav", start=0, end=800),
    Segment(recording="b.wav", start=64_000, end=80_000),
    Segment(recording="b.wav", start=16_000, end=56_000),
]


def arguments(bundled, audio: Path, out: Path, *, model: Path | None = None) -> list[str]:
    named = ["--campaign", bundled.campaign, "--recipe", bundled.recipe, "--pair", "en-de"]
    return [
        "translate", *named, "--model", str(model or bundled.folder / "model"), "--audio", str(audio), "--out", str(out)
    ]  # fmt: skip


def command(arguments: list[str], capsys) -> tuple[int, str, str]:
    status = run(make_parser(), arguments)
    said = capsys.readouterr()
    return status, said.out, said.err
