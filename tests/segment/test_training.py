"""Training and measuring the classifier, and the one that ships with the miniature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.classifier.model import load_classifier
from segment.classifier.training import FrameScore, TrainingOptions, measure, train_classifier
from segment.classifier.training_data import read_labelled
from segment.probabilities.windows import sample_at
from submission.errors import UserError
from submission.miniature.acoustics import add_noise, concatenate, telephone_band
from submission.miniature.voice import VOICES, speak
from submission.text.corpus import Utterance, write_corpus
from submission.text.segments import Segment, write_segments

RATE = 16_000
SHIPPED = Path(__file__).parents[2] / "submission" / "miniature" / "shas"
HEADER = "id\taudio\tstart\tend\trecording\tsource\tde\tzh\n"
GOOD = "0\tr0.wav\t20\t30\tr\tx\ty\tz"


@pytest.fixture(scope="module")
def bursts(tmp_path_factory) -> Path:
    """Four recordings of 12 s in which an "utterance" is a louder stretch of another sound."""
    root = tmp_path_factory.mktemp("bursts")
    rng = np.random.default_rng(3)
    rows = []
    for n in range(4):
        wave = 0.02 * rng.standard_normal(12 * RATE)
        for i in range(4):
            start = int((3 * i + rng.uniform(0.1, 0.8)) * RATE)
            end = start + int(rng.uniform(1, 2) * RATE)
            wave[start:end] += 0.2 * np.sin(np.arange(end - start) * rng.uniform(0.1, 0.3))
            rows.append(f"{n}-{i}\tr{n}.wav\t{start}\t{end}\tr{n}\tx\ty\tz\n")
        soundfile.write(root / f"r{n}.wav", wave, RATE)
    (root / "utterances.tsv").write_text(HEADER + "".join(rows), encoding="utf-8")
    return root


def test_a_few_steps_learn_to_find_speech_and_are_recorded(bursts, tmp_path):
    options = TrainingOptions(steps=20, batch_size=2, window_seconds=4, learning_rate=5e-3, heldout_every=4)
    report = train_classifier(read_labelled(bursts / "utterances.tsv", bursts), options, tmp_path)
    assert report["heldout"]["all"]["f1_macro"] > 0.8
    assert report["training"]["count"] == 3 and report["heldout"]["count"] == 1
    assert json.loads((tmp_path / "forge.json").read_text(encoding="utf-8")) == report
    again = measure(load_classifier(tmp_path), read_labelled(bursts / "utterances.tsv", bursts))
    assert again["recordings"]["r0.wav"] == report["heldout"]["recordings"]["r0.wav"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("heldout_every", 0), ("batch_size", 0), ("steps", 0), ("steps", -3), ("learning_rate", 0.0),
     ("learning_rate", float("nan")), ("learning_rate", float("inf"))],
)  # fmt: skip
def test_numbers_that_train_nothing_are_refused_by_their_option(option, value):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')}: expected"):
        TrainingOptions(**{option: value})


def test_training_twice_gives_the_same_bytes(bursts, tmp_path):
    options = TrainingOptions(steps=2, batch_size=2, window_seconds=3)
    recordings = read_labelled(bursts / "utterances.tsv", bursts)
    for name in ("a", "b"):
        train_classifier(recordings, options, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_labels_are_one_exactly_inside_utterances(bursts):
    recording = read_labelled(bursts / "utterances.tsv", bursts)[0]
    labels = recording.labels()
    assert len(labels) == round(12 * 49.95)
    changes = np.flatnonzero(np.diff(labels.astype(int))) + 1
    edges = [edge for utterance in recording.utterances for edge in utterance]
    assert np.abs(np.array([sample_at(c) for c in changes]) - edges).max() <= 161


def test_every_form_of_a_corpus_says_the_same(bursts, tmp_path):
    from_tsv = read_labelled(bursts / "utterances.tsv", bursts)
    places = [(r.name, start, end) for r in from_tsv for start, end in r.utterances]
    utterances = [
        Utterance(
            id=f"{i}{lang}",
            audio=f"x/{name}",
            start=start,
            end=end,
            source="",
            target="",
            source_lang="en",
            target_lang=lang,
            recording=name,
        )  # fmt: skip
        for i, (name, start, end) in enumerate(places)
        for lang in ("de", "zh")
    ]
    (tmp_path / "x").symlink_to(bursts)
    write_corpus(tmp_path / "corpus.jsonl", utterances)
    write_segments(tmp_path / "s.yaml", [Segment(recording=name, start=a, end=b) for name, a, b in places])
    expected = [(r.path.name, r.utterances) for r in from_tsv]
    for corpus, root in (("corpus.jsonl", tmp_path), ("s.yaml", bursts)):
        assert [(r.path.name, r.utterances) for r in read_labelled(tmp_path / corpus, root)] == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1\tmissing.wav\t0\t10\tr\tx\ty\tz", "names missing.wav, which is not below"),
        ("1\tr0.wav\t0\t99999999\tr\tx\ty\tz", "r0.wav: an utterance lies at samples 0 to 99999999, the recording has"),
        (f"1\tr0.wav\t0\t99999999\tr\tx\ty\tz\n{GOOD}", "r0.wav: an utterance lies at samples 0 to 99999999"),
        (f"1\tr0.wav\t-5\t10\tr\tx\ty\tz\n{GOOD}", "r0.wav: an utterance lies at samples -5 to 10"),
        (f"1\tr0.wav\t10\t10\tr\tx\ty\tz\n{GOOD}", "r0.wav: an utterance lies at samples 10 to 10"),
        (f"1\tr0.wav\t10\t5\tr\tx\ty\tz\n{GOOD}", "r0.wav: an utterance lies at samples 10 to 5"),
        (f"{GOOD}\n1\tr0.wav\t0\t10\tr\tx\ty", "line 3: expected 8 cells as in the header, got 7"),
        (f"{GOOD}\n1\tr0.wav\t0\t10\tr\tx\ty\tz\tmore", "line 3: expected 8 cells as in the header, got 9"),
        (f"{GOOD}\n1\t\t0\t10\tr\tx\ty\tz", "line 3: names no audio"),
        ("1\t../r0.wav\t0\t10\tr\tx\ty\tz", "names ../r0.wav, which leaves the audio's folder"),
        ("1\t/elsewhere/r0.wav\t0\t10\tr\tx\ty\tz", "names /elsewhere/r0.wav, which leaves the audio's folder"),
        ("1\tr0.wav\tsoon\t10\tr\tx\ty\tz", "line 2"),
        ("", "no utterances"),
    ],
)
def test_a_wrong_corpus_is_refused_by_name(bursts, tmp_path, row, message):
    (tmp_path / "utterances.tsv").write_text(HEADER + row + "\n" * bool(row), encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_labelled(tmp_path / "utterances.tsv", bursts)
    assert message in str(error.value)


def test_a_line_of_the_table_ends_at_a_line_end_only(bursts, tmp_path):
    rows = "1\tr0.wav\t0\t10\tr\tone\u2028two\x0bthree\x85\ty\tz\r\n2\tr0.wav\t20\t30\tr\tx\ty\tz\r\n"
    (tmp_path / "utterances.tsv").write_bytes((HEADER.replace("\n", "\r\n") + rows).encode())
    (recording,) = read_labelled(tmp_path / "utterances.tsv", bursts)
    assert recording.utterances == ((0, 10), (20, 30))


def test_scores_are_those_of_the_counted_frames():
    score = FrameScore(true_speech=6, false_speech=2, true_pause=3, false_pause=1)
    assert score.figures() == {
        "precision": 0.75, "recall": 0.8571, "f1": 0.8, "f1_pause": 0.6667, "f1_macro": 0.7333,
    }  # fmt: skip
    assert (score + score).figures() == score.figures()


@pytest.mark.parametrize("condition", ["clean", "noise", "telephone"])
def test_the_shipped_classifier_finds_speech_of_a_voice_that_it_was_not_trained_on(condition, tmp_path):
    voice = [v for v in VOICES if v.split == "heldout"][0]
    texts = ["thank you for calling", "the train leaves at nine", "my order has not arrived", "we will call you back"]
    wave, places = concatenate([speak(text, voice) for text in texts], [0.6, 0.8, 0.7, 0.9, 0.6])
    if condition == "noise":
        wave = add_noise(wave, 10, np.random.default_rng(0), "pink")
    elif condition == "telephone":
        wave = telephone_band(wave)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    write_segments(tmp_path / "gold.yaml", [Segment(recording="a.wav", start=a, end=b) for a, b in places])
    figures = measure(load_classifier(SHIPPED), read_labelled(tmp_path / "gold.yaml", tmp_path))["all"]
    assert figures["f1_macro"] > 0.85


def test_the_shipped_classifier_is_small_and_says_how_it_was_made():
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 1_000_000
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "python -m segment train" in readme
    assert json.loads((SHIPPED / "forge.json").read_text(encoding="utf-8"))["heldout"]["all"]["f1"] > 0.9
