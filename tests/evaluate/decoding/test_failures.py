"""Failures: each flag has a hypothesis that deserves it and a like one that does not."""

from __future__ import annotations

import pytest

from evaluate.decoding.failures import FAILURES, compression_ratio, failures, most_compression
from evaluate.decoding.hypotheses import FLAGS

GERMAN = "Wir haben das Modell auf den neuen Daten trainiert und auf allen sechs Testmengen gemessen."
CHINESE = "我们在新的数据上训练了这个模型,并在所有六个测试集上进行了评估。"

PAIRS = [
    ("loop", ("ja ja ja ja", 4, 3.0), ("ja ja ja", 3, 3.0)),
    ("loop", ("好的好的好的好的", 8, 3.0), ("好的好的好的", 6, 3.0)),
    ("compression_ratio", (f"{GERMAN} " * 3, 60, 18.0), (f"{GERMAN} " * 2, 40, 18.0)),
    ("compression_ratio", (CHINESE * 3, 60, 18.0), (CHINESE * 2, 40, 18.0)),
    ("token_rate", (GERMAN, 32, 1.0), (GERMAN, 30, 1.0)),
    ("empty_on_speech", ("", 0, 1.0), ("", 0, 0.9)),
    ("empty_on_speech", ("", 0, 8.0), (GERMAN, 20, 8.0)),
]


@pytest.mark.parametrize(("flag", "broken", "good"), PAIRS)
def test_a_failure_is_flagged_and_its_harmless_neighbour_is_not(flag, broken, good):
    assert flag in failures(*broken)
    assert failures(*good) == []


def test_the_script_of_the_text_and_not_of_the_pair_chooses_the_threshold():
    assert most_compression(CHINESE) < most_compression(GERMAN) == most_compression("")
    assert most_compression(f"BERT {CHINESE}") == most_compression(CHINESE)


def test_a_whole_paragraph_again_and_again_is_dense_where_no_pattern_of_words_sees_it():
    assert failures(f"{GERMAN} " * 4, 60, 18.0) == ["compression_ratio"]


def test_no_text_compresses_to_nothing():
    assert compression_ratio("") == 0


def test_every_failure_is_a_flag_that_a_hypothesis_may_have():
    assert set(FAILURES) < set(FLAGS)


def test_what_verify_warns_of_is_what_decoding_flags():
    from submission.bundle.checks import texts

    for text in ("ja ja ja ja", "ja ja ja", "好的好的好的好的", GERMAN, CHINESE):
        assert bool(texts._loop(text)) == ("loop" in failures(text, 5, 5.0))
