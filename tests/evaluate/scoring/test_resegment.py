"""Resegmentation: nothing of a text is lost, and the boundaries are those of mweralign."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluate.scoring.resegmentation import resegment, resegment_recordings
from submission.errors import UserError

WORDS = st.sampled_from(["der", "Hund", "Äpfel", "###", "</s>", "#", "10\u00a0%", "\x00", "\x1c", "a.", "▁", "0"])
GERMAN = st.lists(WORDS, max_size=6).map(" ".join) | st.text(max_size=12)
CHINESE = st.text(st.sampled_from("我们用模型。，BERT a1▁#\u3000\u00e9"), max_size=10) | st.text(max_size=8)


def ascii_words(text: str) -> list[str]:
    return [word for word in re.split(r"[ \t\n\v\f\r]+", text) if word]


@given(st.lists(GERMAN, max_size=5), st.lists(GERMAN, min_size=1, max_size=5))
@example(["a b"], [""])
@example(["a b"], ["", ""])
@example(["x y d e f"], ["a b c ### x y", "d e f"])
@example([], ["###"])
@settings(deadline=None, max_examples=150)
def test_german_words_are_all_kept_in_order_and_each_reference_gets_a_line(hypotheses, references):
    lines = resegment(hypotheses, references, "de")
    assert len(lines) == len(references)
    assert ascii_words(" ".join(lines)) == ascii_words(" ".join(hypotheses))


@given(st.lists(CHINESE, max_size=5), st.lists(CHINESE, min_size=1, max_size=5))
@example(["\u3000我", "", "▁"], ["", "我"])
@settings(deadline=None, max_examples=150)
def test_chinese_characters_are_all_kept_in_order_and_each_reference_gets_a_line(hypotheses, references):
    lines = resegment(hypotheses, references, "zh")
    assert len(lines) == len(references)
    assert "".join(ascii_words("".join(lines))) == "".join(ascii_words("".join(hypotheses)))


def plain_mweralign(references: list[str], hypothesis: str) -> list[str]:
    """Return what the library gives for the text itself."""
    from mweralign import align_texts

    return [line.strip() for line in align_texts("\n".join(references), hypothesis).split("\n")]


@given(
    st.lists(st.lists(st.sampled_from(["der", "Der", "Hund", "Äpfel", "a."]), min_size=1).map(" ".join), min_size=1),
    st.lists(st.sampled_from(["der", "hund", "Äpfel", "äpfel", "läuft", "b"]), min_size=1).map(" ".join),
)
@settings(deadline=None, max_examples=100)
def test_cuts_of_plain_words_are_those_of_mweralign(references, hypothesis):
    assert resegment([hypothesis], references, "de") == plain_mweralign(references, hypothesis)


def test_cuts_of_chinese_are_those_of_mweralign_by_character():
    from mweralign.segmenter import CJSegmenter

    segmenter = CJSegmenter()
    references = ["我们用BERT模型。", "今天 天气很好。", "他有三本书。"]
    hypotheses = ["我们用 BERT模型今天天", "气好。他有", "四本书。"]
    encoded = [" ".join(segmenter.encode(line)) for line in references]
    plain = plain_mweralign(encoded, " ".join(piece for h in hypotheses for piece in segmenter.encode(h)))
    assert resegment(hypotheses, references, "zh") == [segmenter.decode(line) for line in plain]
    assert resegment(hypotheses, references, "zh") == ["我们用 BERT模型", "今天天气好。", "他有四本书。"]


def test_german_is_cut_where_the_edit_distance_is_least():
    references = ["Guten Morgen allerseits.", "Heute geht es um kleine Modelle.", "Danke."]
    hypotheses = ["Guten Morgen alle. Heute", "geht es um die kleinen Modelle. Danke."]
    assert resegment(hypotheses, references, "de") == [
        "Guten Morgen alle.",
        "Heute geht es um die kleinen Modelle.",
        "Danke.",
    ]


def test_latin_words_of_two_chinese_hypotheses_do_not_grow_together():
    assert resegment(["我用BERT", "GPT很好"], ["我用BERT GPT很好"], "zh") == ["我用BERT GPT很好"]


def test_each_recording_is_aligned_alone_and_one_without_hypotheses_gives_blank_lines():
    references = [("b.wav", "eins zwei"), ("a.wav", "drei"), ("b.wav", "vier"), ("c.wav", "fünf")]
    lines = resegment_recordings({"b.wav": ["eins zwei vier"], "a.wav": ["", "drei"]}, references, "de", "here")
    assert lines == ["eins zwei", "drei", "vier", ""]


def test_hypotheses_of_a_recording_without_references_are_refused_by_name():
    with pytest.raises(UserError, match=r"1 of 2 decoded recordings .*z\.wav"):
        resegment_recordings({"a.wav": ["x"], "z.wav": ["y"]}, [("a.wav", "x")], "de", "here")


def test_the_aligner_prints_nothing_and_leaves_logging_alone(capfd):
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with contextlib.redirect_stdout(io.StringIO()):
        resegment(["a b"], ["a", "b"], "de")
        resegment(["我们"], ["我", "们"], "zh")
    os.write(2, b"still open\n")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "still open\n")
    assert (root.handlers[:], root.level) == before
