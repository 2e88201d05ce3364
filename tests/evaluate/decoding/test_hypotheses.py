"""Hypotheses: one plain line each for any output of the model, complete after a killed run."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluate.decoding.hypotheses import (
    FallbackRecord,
    Hypothesis,
    ScoredCandidate,
    make_hypothesis,
    parse_line,
    read_hypotheses,
    recover_journal,
    to_line,
    write_hypotheses,
)
from submission.errors import UserError

TEXT = st.text(st.characters(codec=None)) | st.text(st.sampled_from("a \n\r\t\v\f\x1c\x85\u2028\u2029\x00\x7f\ufeff"))


def with_fallback(kept: str) -> Hypothesis:
    tried = {"split": ScoredCandidate(flags=(), score=-0.25), "penalty": ScoredCandidate(flags=("loop",), score=-0.5)}
    original = ScoredCandidate(flags=("loop", "truncated"), score=-0.125)
    record = FallbackRecord(kept=kept, text="ja ja ja ja", original=original, tried=tried)
    return Hypothesis(segment="a.wav/0000", text="Ja." if kept else "ja ja ja ja", flags=(), fallback=record)


@given(TEXT)
@example("\n\r\n")
@example("ein\nzwei\r\ndrei\u2028vier")
def test_no_line_break_and_no_control_character_gets_through(raw):
    hypothesis = make_hypothesis("a.wav/0000", raw)
    assert len(hypothesis.text.splitlines()) <= 1
    assert not [c for c in hypothesis.text if unicodedata.category(c) in ("Cc", "Cs")]
    assert hypothesis.text == hypothesis.text.strip()
    assert ("blank" in hypothesis.flags) == (hypothesis.text == "")
    assert parse_line(to_line(hypothesis)) == hypothesis
    assert to_line(hypothesis).count("\n") == 1


@pytest.mark.parametrize("kept", ["", "split"])
def test_a_hypothesis_with_fallback_reads_back_as_written_here_and_in_the_bundle(tmp_path, kept):
    from submission.bundle import bundle

    hypotheses = [with_fallback(kept), make_hypothesis("a.wav/0001", "x")]
    write_hypotheses(tmp_path / "h", hypotheses)
    assert read_hypotheses(tmp_path / "h") == hypotheses
    assert list(bundle.read_hypotheses(tmp_path / "h")) == [(h.segment, h.text) for h in hypotheses]
    assert json.loads((tmp_path / "h").read_text(encoding="utf-8").splitlines()[0])["fallback"] == kept


def test_a_hypothesis_with_fallback_has_the_flags_of_both_texts():
    assert (with_fallback("split").flags, with_fallback("split").plain_flags) == ((), ("loop", "truncated"))
    assert make_hypothesis("a", "", ["empty_on_speech"]).plain_flags == ("blank", "empty_on_speech")


def test_line_breaks_become_blanks():
    assert make_hypothesis("a.wav/0000", " Guten\nTag\r").text == "Guten Tag"


def test_a_finished_file_reads_back_as_written(tmp_path):
    hypotheses = [make_hypothesis("a.wav/0000", "Größe 中"), make_hypothesis("a.wav/0001", "", ["too_short"])]
    write_hypotheses(tmp_path / "h", hypotheses)
    assert read_hypotheses(tmp_path / "h") == hypotheses
    assert (tmp_path / "h").read_text(encoding="utf-8").splitlines() == [
        '{"flags": [], "segment": "a.wav/0000", "text": "Größe 中"}',
        '{"flags": ["blank", "too_short"], "segment": "a.wav/0001", "text": ""}',
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        '{"segment": "a"}',
        '{"segment": "a", "text": 3, "flags": []}',
        '{"segment": "a", "text": "", "flags": ["odd"]}',
        '{"segment": "a", "text": "x\\ny", "flags": []}',
        '{"segment": "a", "text": "x", "flags": []',
        '{"segment": "a", "text": "x", "flags": [], "fallback": "split"}',
        to_line(with_fallback("split")).replace('"fallback": "split"', '"fallback": "luck"').rstrip(),
        to_line(with_fallback("split")).replace('"score"', '"figure"').rstrip(),
    ],
)
def test_a_line_that_is_no_hypothesis_is_named(tmp_path, line):
    good = to_line(Hypothesis(segment="a", text="b"))
    (tmp_path / "h").write_text(f"{good}{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match="h line 2: is not a hypothesis"):
        read_hypotheses(tmp_path / "h")


@given(st.integers(0, 200))
def test_a_journal_torn_anywhere_keeps_its_whole_lines_and_loses_the_rest(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "h"
    hypotheses = [make_hypothesis(f"a.wav/{n:04d}", "中文" * n) for n in range(3)]
    lines = [to_line(h).encode() for h in hypotheses]
    data = b"".join(lines)[:cut]
    path.write_bytes(data)
    done = recover_journal(path)
    whole = [n for n in range(3) if cut >= sum(map(len, lines[: n + 1]))]
    assert done == {hypotheses[n].segment: hypotheses[n] for n in whole}
    assert path.read_bytes() == b"".join(lines[n] for n in whole)


def test_a_damaged_line_ends_what_is_resumed(tmp_path):
    lines = [to_line(make_hypothesis(f"a.wav/{n:04d}", "x")) for n in range(3)]
    (tmp_path / "h").write_text(f"{lines[0]}\x00\x00\n{lines[2]}", encoding="utf-8")
    assert list(recover_journal(tmp_path / "h")) == ["a.wav/0000"]
    assert (tmp_path / "h").read_text(encoding="utf-8") == lines[0]


def test_a_missing_journal_is_empty(tmp_path):
    assert recover_journal(tmp_path / "h") == {}
