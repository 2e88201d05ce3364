"""The miniature's data folder: every layout is read by the packages that read the real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluate.scoring.references import find_gold_references, find_references
from segment.classifier.training_data import read_labelled
from segment.testset import find_segments_file, read_given, read_testset
from submission.errors import UserError
from submission.miniature.dataset import FULL, DataSize, write_data_folder
from submission.miniature.language import split_of
from submission.miniature.recordings import LONGEST_SECONDS, SentencePool
from submission.runtime.audio import checked_length
from submission.store.digests import tree_digest
from submission.system.campaign import read_campaign
from submission.system.data_folder import SHIPPED, missing_parts, required_parts
from submission.system.recipe.recipe_files import read_recipe
from submission.system.recipe.training_options import Source
from submission.system.system import System
from submission.text.segments import SAMPLE_RATE, read_segments
from train.corpora.formats import reader_of

SMALL = DataSize(clips=8, recordings=2, most_lines=2)
CAMPAIGN = read_campaign("miniature")
TESTSETS = {testset.name: testset.segmentation for testset in CAMPAIGN.testsets}
LANGUAGES = ("de", "zh")


@pytest.fixture(scope="module")
def shipped() -> dict[str, Path]:
    return SHIPPED


@pytest.fixture(scope="module")
def data(tmp_path_factory, shipped) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_folder(folder, CAMPAIGN.model.name, shipped, volume=SMALL)
    return folder


def test_the_same_arguments_give_the_same_bytes(data, shipped, tmp_path):
    write_data_folder(tmp_path, CAMPAIGN.model.name, shipped, volume=SMALL)
    assert tree_digest(tmp_path) == tree_digest(data)


def test_another_seed_gives_other_sentences():
    first, second = (SentencePool(seed).take("talks", "heldout") for seed in (1, 2))
    assert first.source != second.source


def test_nothing_that_the_system_reads_is_missing(data, tmp_path):
    recipe = read_recipe("primary", CAMPAIGN.name)
    assert missing_parts(data, required_parts(CAMPAIGN, recipe)) == []
    given = System(CAMPAIGN, recipe, data, tmp_path)
    assert given.missing() == []


def test_models_are_copied_without_the_report_of_their_training(data):
    assert [path.name for path in sorted((data / "models").iterdir())] == [CAMPAIGN.model.name, "shas"]
    there = {path.name for path in SHIPPED["base"].iterdir()}
    copied = {path.name for path in (data / "models" / CAMPAIGN.model.name).iterdir()}
    assert there - copied == {"README.md", "forge.json"}


def test_a_model_that_was_never_trained_is_named_with_its_command_before_anything_is_written(tmp_path, shipped):
    with pytest.raises(
        UserError, match=r"holds no trained model; train it with `python -m submission\.miniature forge`"
    ):
        write_data_folder(tmp_path / "out", "m", shipped | {"base": tmp_path / "nothing"}, volume=SMALL)
    with pytest.raises(UserError, match=r"python -m segment train"):
        write_data_folder(tmp_path / "out", "m", shipped | {"shas": tmp_path / "nothing"}, volume=SMALL)
    assert not (tmp_path / "out").exists()


def test_every_wav_is_mono_16_bit_at_16_khz_and_never_clips(data):
    wavs = sorted(data.rglob("*.wav"))
    assert len(wavs) == 50
    for path in wavs:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (SAMPLE_RATE, 1, "PCM_16", "WAV"), path
        samples, _ = soundfile.read(path, dtype="int16")
        assert 1000 < np.abs(samples.astype(int)).max() < 32767, path


@pytest.mark.parametrize("name", ["talks", "recordings"])
def test_corpora_are_plain_ones_with_sentences_of_training(data, name):
    found = list(reader_of(Source(name=name, format="plain"))(data / "corpora" / name, LANGUAGES))
    assert len(found) == {"talks": SMALL.clips, "recordings": SMALL.recordings * SMALL.most_lines}[name]
    assert len({candidate.id for candidate in found}) == len(found)
    for candidate in found:
        assert split_of(candidate.source) == "train"
        assert set(candidate.targets) == set(LANGUAGES) and all(candidate.targets.values())
        samples = soundfile.info(data / "corpora" / name / candidate.audio).frames
        end = samples if candidate.end is None else candidate.end
        assert 0 <= candidate.start < end <= samples
        assert (end - candidate.start) / SAMPLE_RATE <= LONGEST_SECONDS + 0.6


def test_the_segmenter_can_learn_from_the_long_recordings(data):
    folder = data / "corpora" / "recordings"
    labelled = read_labelled(folder / "utterances.tsv", folder / "audio")
    assert len(labelled) == SMALL.recordings
    assert all(0.1 < recording.labels().mean() < 0.95 for recording in labelled)


@pytest.mark.parametrize(("split", "talks"), [("dev", 5), ("eval", 4)])
def test_acl_6060_has_gold_segments_that_are_exact_cuts_in_the_order_of_its_text(data, split, talks):
    folder = data / "acl_6060" / split
    found = list(reader_of(Source(name="acl", format="acl6060"))(folder, LANGUAGES))
    order = (folder / "FILE_ORDER").read_text("utf-8").split()
    assert len(order) == talks and order != sorted(order)
    assert list(dict.fromkeys(candidate.recording for candidate in found)) == [f"{name}.wav" for name in order]
    for language in LANGUAGES:
        references = find_gold_references(folder, language)
        assert list(references.lines) == [candidate.targets[language] for candidate in found]
    reached: dict[str, int] = {}
    for candidate in found:
        assert split_of(candidate.source) == "heldout"
        talk, _ = soundfile.read(folder / "full_wavs" / candidate.recording, dtype="int16")
        gold, _ = soundfile.read(folder / candidate.audio, dtype="int16")
        windows = np.lib.stride_tricks.sliding_window_view(talk, 64)
        starts = np.flatnonzero((windows == gold[:64]).all(axis=1))
        places = [start for start in starts if np.array_equal(talk[start : start + len(gold)], gold)]
        assert len(places) == 1 and places[0] > reached.get(candidate.recording, 0)
        reached[candidate.recording] = places[0] + len(gold)


@pytest.mark.parametrize("name", TESTSETS)
def test_blind_sets_come_as_organisers_ship_them(data, name):
    folder, kept = data / "testsets" / name, data / "references" / name
    testset = read_testset(folder)
    names = [recording.name for recording in testset.recordings]
    assert testset.unlisted == ()
    shipped = sorted(path.name for path in folder.iterdir())
    given = ["segments.yaml"] if TESTSETS[name] != "free" else []
    assert shipped == sorted([*names, "FILE_ORDER", *given])
    gold = read_segments(kept / "segments.yaml")
    assert list(dict.fromkeys(segment.recording for segment in gold)) == names
    for segment in gold:
        assert segment.end <= soundfile.info(folder / segment.recording).frames
        assert segment.seconds <= LONGEST_SECONDS
    sources = (kept / "en.txt").read_text("utf-8").splitlines()
    assert len(sources) == len(gold) and {split_of(source) for source in sources} == {"heldout"}
    pairs = [pair.name for pair in CAMPAIGN.pairs if name in pair.testsets]
    assert sorted(path.stem for path in kept.glob("en-*.txt")) == sorted(pairs)
    for pair in pairs:
        assert len(find_references(kept, pair).lines) == len(gold)


def test_given_segments_are_those_of_the_references(data):
    for name in (name for name, segmentation in TESTSETS.items() if segmentation == "given"):
        given = (data / "testsets" / name / "segments.yaml").read_bytes()
        assert given == (data / "references" / name / "segments.yaml").read_bytes()


def test_the_broadcast_is_one_recording_of_which_only_regions_are_named_longer_than_the_window(data):
    folder = data / "testsets" / "BUSINESSNEWS"
    testset = read_testset(folder)
    assert len(testset.recordings) == 1
    regions = read_given(find_segments_file(folder), testset, checked_length).segments
    assert len(regions) == 2  # of eight sentences the fifth is not listed
    sentences = read_segments(data / "references" / "BUSINESSNEWS" / "segments.yaml")
    within = [[s for s in sentences if region.start <= s.start and s.end <= region.end] for region in regions]
    assert [len(some) for some in within] == [4, 3] and len(sentences) == 7
    assert max(region.seconds for region in regions) > CAMPAIGN.model.window_seconds


def test_no_sentence_occurs_twice(data):
    said = [line for path in data.glob("references/*/en.txt") for line in path.read_text("utf-8").splitlines()]
    said += [
        line
        for split in ("dev", "eval")
        for line in (data / f"acl_6060/{split}/text/txt/ACL.6060.{split}.en-xx.en.txt").read_text("utf-8").splitlines()
    ]
    assert len(said) == len(set(said)) == 49


def test_the_full_data_folder_is_large_enough_to_train_and_to_measure():
    assert FULL.clips >= 1000 and FULL.recordings * FULL.most_lines >= 500


def test_help_answers_and_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "something").write_text("here", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "submission.miniature", "data", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2 and "is not an empty folder; name a new one" in run.stderr
    run = subprocess.run(
        [sys.executable, "-m", "submission.miniature", "--help"], capture_output=True, text=True, check=True
    )
    assert "forge" in run.stdout and "data" in run.stdout
