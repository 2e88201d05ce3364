"""ACL 60/60 with its full recordings: the gold wavs are found where they were cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import UserError
from submission.runtime.audio import read_slice
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.system.system import System
from submission.text.corpus import read_corpus
from tests.train.support import write_acl
from train.corpora.build import build_corpus
from train.corpora.formats import acl6060_full

CUTS = {
    "2022.acl-long.268": [(4_000, 20_000)],
    "2022.acl-long.110": [(100, 16_100), (16_100, 40_001), (39_000, 50_000)],  # the last two overlap
}


def write_split(folder: Path) -> None:
    """Write a split of two talks, the first being the alphabetically later, with silence before and in the cuts."""
    write_acl(folder, "dev", 4)
    rng, number = np.random.default_rng(0), 0
    (folder / "full_wavs").mkdir()
    for talk, cuts in CUTS.items():
        samples = rng.integers(-9_000, 9_000, 60_000).astype(np.int16)
        samples[:2_000] = samples[16_100:17_000] = 0
        soundfile.write(folder / f"full_wavs/{talk}.wav", samples, 16_000)
        for start, end in cuts:
            number += 1
            soundfile.write(folder / f"segmented_wavs/gold/sent_{number}.wav", samples[start:end], 16_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_split(tmp_path / "acl_6060/dev")
    return tmp_path / "acl_6060/dev"


def test_gold_segments_are_stretches_of_their_talks(folder: Path) -> None:
    found = list(acl6060_full.read(folder, ["de"]))
    places = [(f"full_wavs/{talk}.wav", *cut) for talk, cuts in CUTS.items() for cut in cuts]
    assert [(c.audio, c.start, c.end) for c in found] == places
    assert [c.id for c in found] == ["sent_1", "sent_2", "sent_3", "sent_4"]
    for number, candidate in enumerate(found, 1):
        gold = read_slice(folder / f"segmented_wavs/gold/sent_{number}.wav", 0)
        assert np.array_equal(read_slice(folder / candidate.audio, candidate.start, candidate.end), gold)


def test_a_cut_that_matches_in_two_places_is_the_one_behind_the_cut_before(folder: Path) -> None:
    path = folder / "full_wavs/2022.acl-long.110.wav"
    samples, _ = soundfile.read(path, dtype="int16")
    samples[45_000:47_000] = samples[:2_000]  # silence, again
    soundfile.write(path, samples, 16_000)
    soundfile.write(folder / "segmented_wavs/gold/sent_4.wav", samples[45_000:46_500], 16_000)
    last = list(acl6060_full.read(folder, ["de"]))[-1]
    assert (last.start, last.end) == (45_000, 46_500)


@given(samples=st.lists(st.sampled_from([0.0, 0.5, 2.0**-127]), min_size=1, max_size=40), data=st.data())
def test_a_cut_is_found_between_samples_nowhere(samples: list[float], data: st.DataObject, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.float32(samples), 16_000, subtype="FLOAT")
    start = data.draw(st.integers(0, len(samples) - 1))
    begin = data.draw(st.integers(0, start))
    cut = np.float32(samples[start : data.draw(st.integers(start + 1, len(samples)))])
    found = acl6060_full._Talk(path).find(cut, begin)
    slow = (i for i in range(begin, len(samples)) if np.array_equal(np.float32(samples[i : i + len(cut)]), cut))
    assert found == next(slow)


def test_a_gold_wav_that_is_no_cut_is_refused_by_name(folder: Path) -> None:
    path = folder / "segmented_wavs/gold/sent_3.wav"
    samples, _ = soundfile.read(path, dtype="int16")
    samples[7_000] += 1
    soundfile.write(path, samples, 16_000)
    with pytest.raises(UserError, match=r"sent_3.wav: its 23901 samples are not found in .*2022.acl-long.110.wav"):
        list(acl6060_full.read(folder, ["de"]))
    soundfile.write(path, samples[:0], 16_000)
    with pytest.raises(UserError, match="sent_3.wav: holds no sample"):
        list(acl6060_full.read(folder, ["de"]))
    (folder / "full_wavs/2022.acl-long.268.wav").unlink()
    with pytest.raises(UserError, match="2022.acl-long.268.wav: no such recording"):
        list(acl6060_full.read(folder, ["de"]))


def test_where_full_recordings_are_trained_on_dev_is_read_from_them_too(folder: Path, tmp_path: Path) -> None:
    source = Source(name="acl6060-dev", format="acl6060-full", folder="acl_6060/dev")
    options = CorpusOptions(sources=(source,), utterances={"de": 0, "zh": 0}, seed=1, held_out_recordings=1)
    (tmp_path / "out").mkdir()
    report = build_corpus(tmp_path, options, ["de", "zh"], ["de", "zh"], 8, tmp_path / "out")
    trained, dev = (read_corpus(tmp_path / f"out/{part}.jsonl") for part in ("train", "dev"))
    assert {u.audio for u in dev} == {f"acl_6060/dev/full_wavs/{talk}.wav" for talk in CUTS}
    assert [u for u in dev if u.recording not in report["held_out"]] == trained
    assert 0 < len(trained) < len(dev)


def test_full_recordings_are_constrained_data_too(tmp_path: Path) -> None:
    campaign, recipe = read_campaign("miniature"), read_recipe("constrained", "miniature")
    keys = set()
    for layout in ("acl6060", "acl6060-full"):
        source = replace(recipe.corpus.sources[0], format=layout)
        chosen = replace(recipe, corpus=replace(recipe.corpus, sources=(source,)))
        keys.add(System(campaign, chosen, None, tmp_path).stage("corpus").key)
    assert len(keys) == 2
    plain = replace(recipe.corpus, sources=(Source(name="own", format="plain"),))
    with pytest.raises(UserError, match="constrained means ACL 60/60 alone"):
        System(campaign, replace(recipe, corpus=plain), None, tmp_path)
