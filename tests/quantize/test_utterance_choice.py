"""Which utterances a calibration reads: every stretch of audio once, the pairs in turn, drawn by the seed."""

from __future__ import annotations

import pytest

from quantize.calibration.utterance_choice import choose_utterances
from submission.errors import UserError
from submission.system.recipe.quantize_options import AwqOptions
from tests.quantize.support import DEV_UTTERANCES


def chosen(dev=DEV_UTTERANCES, **changes) -> list[str]:
    options = {"pairs": ("en-de", "en-zh"), "targets": False, "utterances": 0, "seed": 1} | changes
    return [u.id for u in choose_utterances(dev, AwqOptions(**options), "dev.jsonl")]


def test_every_stretch_of_audio_is_read_once_with_the_pairs_in_turn():
    assert chosen() == [f"{n}-{'zh' if n % 2 else 'de'}" for n in range(10)]
    assert chosen(pairs=("en-zh",)) == [f"{n}-zh" for n in range(10)]


def test_a_stretch_without_the_pair_whose_turn_it_is_takes_the_next():
    assert chosen([u for u in DEV_UTTERANCES if u.id != "1-zh"])[:4] == ["0-de", "1-de", "2-de", "3-zh"]


def test_a_smaller_number_is_part_of_a_larger_one_and_drawn_by_the_seed():
    three, six = (set(chosen(pairs=("en-de",), utterances=n)) for n in (3, 6))
    assert len(three) == 3 and len(six) == 6 and three < six
    assert chosen(pairs=("en-de",), utterances=6) == sorted(six)
    assert len({tuple(chosen(pairs=("en-de",), utterances=3, seed=seed)) for seed in range(5)}) > 1


def test_utterances_and_pairs_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="requests 11 utterances, dev.jsonl has 10"):
        chosen(utterances=11)
    with pytest.raises(UserError, match="has no utterance of en-ja"):
        chosen(pairs=("en-de", "en-ja"))
