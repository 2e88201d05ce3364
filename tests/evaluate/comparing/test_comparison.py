"""Two outputs compared: which lines correspond, and how different they are."""

from __future__ import annotations

import pytest

from evaluate.comparing.comparison import (
    SystemOutput,
    compare,
    named_positions,
    notes,
    numbered_positions,
    pair_up,
    segment_positions,
    worst_lines,
)
from submission.errors import UserError
from submission.text.segments import Segment


def segments(*spans: tuple[str, int, int]) -> list[Segment]:
    return [Segment(recording=recording, start=start * 16_000, end=end * 16_000) for recording, start, end in spans]


TALKS = segments(("b.wav", 0, 2), ("b.wav", 3, 5), ("a.wav", 0, 4))


def output(*lines: str, places=None, label: str = "one") -> SystemOutput:
    return SystemOutput(
        label=label, lines=lines, places=tuple(places if places is not None else segment_positions(TALKS))
    )


def test_equal_segments_answer_each_other_line_by_line():
    result = compare(pair_up(output("Guten Tag.", "Ja.", ""), output("Guten Tag.", "Nein.", "")))
    assert (result.unit, result.compared, result.identical) == ("line", 3, 2)
    assert (result.blank_a, result.blank_b) == (1, 1)
    assert [(str(d.place), d.a, d.b) for d in result.worst] == [("b.wav 3.00-5.00 s", "Ja.", "Nein.")]
    assert not notes(result, "A", "B")


def test_chrf_is_sacrebleus_with_the_second_as_reference():
    from sacrebleu.metrics import CHRF

    a, b = ["Das ist ein Haus.", "Ja.", ""], ["Das ist kein Haus mehr.", "Ja.", "Oh."]
    result = compare(pair_up(output(*a), output(*b)))
    metric = CHRF()
    assert result.chrf == pytest.approx(metric.corpus_score(a, [b]).score, abs=1e-4)
    assert result.signature == metric.get_signature().format()
    assert result.chrf != compare(pair_up(output(*b), output(*a))).chrf


def test_equal_outputs_score_a_hundred_even_where_all_is_blank_or_nothing_is_there():
    assert compare(pair_up(output("", "", ""), output("", "", ""))).chrf == 100
    assert compare(pair_up(output("x", "y", "z"), output("x", "y", "z"))).chrf == 100
    nothing = compare(pair_up(output(places=()), output(places=())))
    assert (nothing.compared, nothing.chrf) == (0, None)


def test_the_same_segments_in_another_order_of_recordings_still_answer_each_other():
    moved = output("a", "b1", "b2", places=segment_positions([TALKS[2], *TALKS[:2]]))
    pairing = pair_up(output("b1", "b2", "a"), moved)
    assert pairing.unit == "line"
    assert pairing.a == pairing.b == ("b1", "b2", "a")


def test_recordings_that_are_cut_differently_are_compared_whole():
    other = segments(("b.wav", 0, 5), ("a.wav", 0, 2), ("a.wav", 2, 4))
    result = compare(
        pair_up(
            output("Hallo", "Welt.", "你好 世界"), output("Hallo Welt.", "你好", "", places=segment_positions(other))
        )
    )
    assert (result.unit, result.compared, result.identical) == ("recording", 2, 1)
    assert [(str(d.place), d.a, d.b) for d in result.worst] == [("a.wav", "你好 世界", "你好")]
    assert notes(result, "A", "B") == [
        "segmented differently: whole recordings are compared; comparing lines takes references"
    ]


def test_blanks_between_segments_make_no_recording_differ():
    cut = segments(("a.wav", 0, 2), ("a.wav", 2, 4))
    whole = segments(("a.wav", 0, 4))
    pairing = pair_up(
        output("你好", "世界", places=segment_positions(cut)), output("你好世界", places=segment_positions(whole))
    )
    assert compare(pairing).identical == 1


def test_recordings_of_one_side_alone_are_listed_and_not_compared():
    result = compare(pair_up(output("x", "y", "z"), output("x", "y", places=segment_positions(TALKS[:2]))))
    assert (result.compared, result.only_a, result.only_b) == (2, ("a.wav",), ())
    assert notes(result, "A", "B") == ["only in A, not compared: a.wav"]


def test_ids_without_positions_answer_positions():
    named = output("x", "y", "z", places=named_positions(["b.wav/0000", "b.wav/0001", "a.wav/0000"]))
    for pairing in (pair_up(named, output("x", "y", "q")), pair_up(output("x", "y", "q"), named)):
        assert pairing.unit == "line"
        assert str(pairing.places[2]) == "a.wav 0.00-4.00 s"


def test_bare_lines_answer_as_many_lines_and_no_other_number():
    bare = output("x", "y", "z", places=numbered_positions(3))
    assert compare(pair_up(bare, output("x", "y", "z"))).identical == 3
    assert str(pair_up(bare, bare).places[1]) == "line 2"
    with pytest.raises(UserError, match="has 3 lines and two has 1, .* give their segments with --segments"):
        pair_up(bare, output("x", places=numbered_positions(1), label="two"))


def test_outputs_for_different_recordings_are_refused():
    with pytest.raises(UserError, match=r"no recording in common with two \(b.wav, a.wav against c.wav\)"):
        pair_up(output("x", "y", "z"), output("x", places=segment_positions(segments(("c.wav", 0, 1))), label="two"))


def test_text_and_segments_of_different_lengths_are_refused():
    with pytest.raises(UserError, match="one: expected 3 lines, one a segment, got 1"):
        output("x")


def test_the_worst_come_first_and_the_rest_is_counted():
    result = compare(pair_up(output("abcdef", "Haus", "Katze"), output("abcdeg", "Wal", "Katzen")), worst=2)
    assert [d.a for d in result.worst] == ["Haus", "abcdef"]
    lines = worst_lines(result, "A", "B")
    assert lines[0].startswith("  b.wav 3.00-5.00 s, chrF ")
    assert lines[1:3] == ["    A: Haus", "    B: Wal"]
    assert lines[-1] == "  and 1 more, which differ less"


def test_what_would_trick_a_terminal_is_shown_escaped():
    lines = worst_lines(compare(pair_up(output("\x1b[31mrot", "", "z"), output("rot", "y", "z"))), "A", "B")
    assert "    A: \\x1b[31mrot" in lines
    assert "    A: (blank)" in lines
