"""What a rehearsal makes is read by the readers of published corpora and test sets, and looks as it is published."""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluate.rehearsal.published_data import (
    CLIPS,
    FREE_SETS,
    RECORDINGS,
    REGIONS,
    SPEECH_LINES,
    SPEECHES,
    write_data,
)
from evaluate.rehearsal.published_models import NARROW_ENCODER, base_config, write_classifier
from evaluate.rehearsal.rehearsed_campaign import CAMPAIGN
from segment.classifier.convert import convert
from segment.testset import read_testset
from submission.errors import UserError
from submission.model.families import family_of, shipped_config, tensors
from submission.runtime.audio import checked_length, read_audio
from submission.store.input_files import find_files
from submission.system.campaign import read_campaign
from submission.system.corpus_formats import CORPUS_FORMATS
from train.corpora.formats import covost2, europarl_st

MODEL = "Qwen2-Audio-7B"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_data(folder)
    return folder


def test_covost_2_has_clips_in_mp3_and_the_english_in_common_voice_s_table(data):
    found = list(covost2.read(data / "corpora/covost2", ["de", "zh"]))
    assert len(found) == CLIPS - len(range(0, CLIPS, 8))  # one in eight is of the dev split
    assert all(set(each.targets) == {"de", "zh"} for each in found)
    clip = data / "corpora/covost2" / found[0].audio
    assert (clip.suffix, soundfile.info(clip).samplerate) == (".mp3", 48_000)
    assert checked_length(clip) > 16_000


def test_europarl_st_has_stretches_of_speeches_in_m4a(data):
    found = list(europarl_st.read(data / "corpora/europarl-st", ["de", "zh"]))
    assert len(found) == SPEECHES * SPEECH_LINES
    assert {frozenset(each.targets) for each in found} == {frozenset({"de"})}
    speech = data / "corpora/europarl-st" / found[0].audio
    assert speech.suffix == ".m4a"
    assert all(each.end <= checked_length(speech) + 1600 for each in found if each.audio == found[0].audio)


def test_every_test_set_of_the_campaign_is_there_in_its_order(data):
    for testset in read_campaign(CAMPAIGN).testsets:
        folder = read_testset(data / "testsets" / testset.name)
        assert len(folder.recordings) == (1 if testset.name == "BUSINESSNEWS" else RECORDINGS)
        assert not folder.unlisted
        assert any((data / "testsets" / testset.name).glob("*.yaml")) == (testset.segmentation != "free")
    assert set(FREE_SETS) < {testset.name for testset in read_campaign(CAMPAIGN).testsets}


def test_the_regions_of_the_broadcast_are_longer_than_the_window(data):
    campaign = read_campaign(CAMPAIGN)
    regions = json.loads((data / "testsets/BUSINESSNEWS/BUSINESSNEWS.yaml").read_text(encoding="utf-8"))
    assert len(regions) == REGIONS
    assert min(region["duration"] for region in regions) > campaign.model.window_seconds


def test_a_call_has_a_speaker_on_each_channel(data):
    call = next((data / "testsets/CALLCENTER").glob("*.wav"))
    samples, rate = soundfile.read(call, always_2d=True)
    assert (rate, samples.shape[1]) == (8_000, 2)
    loud = np.abs(samples) > 0.05
    assert loud.any(axis=0).all()
    assert not loud.all(axis=1).any()  # they take turns
    assert len(read_audio(call)) == pytest.approx(2 * len(samples), abs=2)


def test_every_format_that_the_recipes_train_on_finds_what_it_needs(data):
    for name, folder in (("covost2", "covost2"), ("europarl-st", "europarl-st")):
        needed = CORPUS_FORMATS[name].files(["de"])
        assert needed and all(any(find_files(data / "corpora" / folder, pattern)) for pattern in needed)


def test_a_narrow_model_keeps_the_published_vocabulary_window_and_names():
    published, narrow = shipped_config(MODEL), base_config(MODEL, "narrow", 4)
    assert published is not None
    for section, keys in (("text_config", ("vocab_size",)), ("audio_config", ("max_source_positions", "num_mel_bins"))):
        assert [narrow[section][key] for key in keys] == [published[section][key] for key in keys]
    names = {spec.name for spec in tensors(narrow)}
    assert names < {spec.name for spec in tensors(published)}
    parameters = sum(int(np.prod(spec.shape)) for spec in tensors(narrow))
    assert 80e6 < parameters < 90e6
    assert family_of(narrow).sizes(base_config(MODEL, "full", 2))["text_config.hidden_size"] == 4096
    with pytest.raises(UserError, match="expected 1 to 32, got 33"):
        base_config(MODEL, "narrow", 33)


def test_the_classifier_is_a_pickle_that_converts(tmp_path):
    checkpoint, encoder = write_classifier(tmp_path, "narrow")
    with zipfile.ZipFile(checkpoint) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    named = {argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)}
    assert "argparse Namespace" in named
    classifier = convert(checkpoint, str(encoder), tmp_path / "shas")
    assert classifier.wav2vec2.config.hidden_size == NARROW_ENCODER["hidden_size"]
