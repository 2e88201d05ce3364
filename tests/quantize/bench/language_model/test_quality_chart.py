"""The picture of loss against bits, and that the page about it has the rows that are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantize.bench.language_model.quality_chart import draw_rows
from submission.errors import UserError

DOCS = Path(__file__).parents[4] / "docs"
ROWS = [json.loads(line) for line in (DOCS / "images" / "language-model.jsonl").read_text("utf-8").splitlines()]


def test_the_same_rows_give_the_same_picture(tmp_path):
    for name in ("one.png", "two.png"):
        draw_rows(ROWS, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_point_moves_with_its_row(tmp_path):
    draw_rows(ROWS, tmp_path / "one.png")
    draw_rows([{**ROWS[0], "increase": ROWS[0]["increase"] / 2}, *ROWS[1:]], tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_a_row_without_a_style_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'rtn@4' has no colour"):
        draw_rows([{**ROWS[0], "row": "rtn@4"}], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_the_page_has_every_row_that_is_drawn():
    lines = (DOCS / "quality-per-byte.md").read_text("utf-8").splitlines()
    for row in ROWS:
        found = [line for line in lines if line.startswith(("| `", "| **`")) and f"`{row['row']}`" in line]
        assert len(found) == 1, row["row"]
        assert f"{row['size_bytes']:,}" in found[0]
        assert (
            f"{row['increase']:.3g}".removeprefix("0") in found[0] and f"{row['kl']:.3g}".removeprefix("0") in found[0]
        )
