"""The pre-upload summary: text and page show the same, and untrusted text breaks neither."""

from __future__ import annotations

import json
import re

import pytest

from submission.bundle.preview import preview, preview_text
from submission.bundle.preview_page import preview_page
from submission.model.sizes import size_text


def both(bundle) -> tuple[str, str]:
    overview = preview(bundle)
    return preview_text(overview), preview_page(overview)


@pytest.mark.parametrize("rendering", [0, 1])
def test_it_shows_what_a_person_checks_before_the_upload(pristine, rendering):
    text = both(pristine)[rendering]
    for fact in (
        "miniature (Miniature of IWSLT",
        f"model folder: {size_text(sum(p.stat().st_size for p in (pristine / 'model').iterdir()))}",
        "bytes to spare",
        "en-de/ACL",
        "BLEU 31.5; chrF 52.2",
        "talk1.wav 0:00.0–0:01.0",
        "Das ist ein Test.",
        "这是一个测试。",
        "(blank)",
        "TXT10",
        "MINIATURE_MINIATURE_ModelCompression_en-zh_unconstrained_primary",
    ):
        assert fact in text, fact


def test_outputs_are_counted_against_their_audio(pristine):
    (row,) = (line.split() for line in preview_text(preview(pristine)).splitlines() if line.startswith("en-de  ACL "))
    # Three lines, one blank, 10 and 17 characters in 3 s of audio; the blank line is the one finding.
    assert row == ["en-de", "ACL", "3", "1", "10", "17", "3.0", "9.0", "1"]


def test_intervals_are_shown_where_the_scores_have_them(good):
    scores = json.loads((good / "scores.json").read_text(encoding="utf-8"))
    scores["scores"][0] |= {"low": 28.25, "high": 35.0}
    (good / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    for text in both(good):
        assert "BLEU 31.5 (28.2–35.0)" in text


def test_hostile_text_is_escaped_and_made_visible(good):
    lines = ["<script>alert(1)</script>", "a\u202eb\x1b[31m", "</bdi><img src=x>"]
    (good / "en-de" / "ACL.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (good / "description" / "en-de.txt").write_text("Model name: </pre><b>\x07\n", encoding="utf-8")
    text, page = both(good)
    for rendering in (text, page):
        assert not {"\u202e", "\x1b", "\x07"} & set(rendering)
        assert "\\u202e" in rendering and "\\x1b" in rendering
    assert "<script" not in page and "<img" not in page and "</pre><b>" not in page
    assert "&lt;script&gt;" in page


def test_page_refers_to_nothing_outside_itself(pristine):
    page = both(pristine)[1]
    assert not re.search(r"<(script|link|img|iframe|object|base)\b|\b(src|href|srcset)=|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page


def test_broken_bundle_still_gives_a_page_with_the_findings(good):
    (good / "en-de" / "ACL.txt").write_bytes(b"one\xff\n")
    (good / "en-zh" / "YOUTUBE.txt").unlink()
    (good / "segments" / "CALLCENTER.yaml").write_text("nothing\n", encoding="utf-8")
    (good / "scores.json").write_text('{"scores": [{"pair": [], "value": "x"}], "testsets": {}}', encoding="utf-8")
    (good / "model" / "config.json").unlink()
    (good / "description" / "en-zh.txt").unlink()
    overview = preview(good)
    assert overview.findings
    for rendering in (preview_text(overview), preview_page(overview)):
        for code in ("TXT02", "SET01", "SET03", "SCO01", "CFG01", "DES01"):
            assert code in rendering
    displayed = {*overview.other_findings, *(finding for output in overview.outputs for finding in output.findings)}
    assert displayed == set(overview.findings)
