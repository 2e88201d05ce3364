"""Snapshots of the published corpora as the hub has them, audio embedded in parquet: one corpus comes out of them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from segment.classifier.training_data import read_labelled
from submission.runtime.audio import read_slice
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import Utterance, read_corpus
from tests.train.support import write_acl
from train.corpora.build import build_corpus

AUDIO = pa.struct({"bytes": pa.binary(), "path": pa.string()})
SECONDS = 1.5
CLIPS, SPEECHES, SENTENCES = 6, 4, 5


def tone(hertz: int, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(SECONDS * rate)) / rate)).astype(np.float32)


def encoded(hertz: int, rate: int, kind: str) -> bytes:
    file = io.BytesIO()
    if kind != "M4A":
        soundfile.write(file, tone(hertz, rate), rate, format=kind)
        return file.getvalue()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(hertz, rate)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def write(path: Path, audio: list[dict], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"audio": pa.array(audio, AUDIO), **columns}), path, row_group_size=2)


def hertz(corpus: int, number: int) -> int:
    """Return the tone of an utterance, another one for each."""
    return 300 + 400 * corpus + 50 * number


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """CoVoST 2 with a configuration per language (mp3), Europarl-ST (m4a of a speech's segments), ACL 60/60 (wav)."""
    write_acl(tmp_path / "acl_6060/dev", "dev", 3)
    for config, words in (("en_de", "Satz"), ("en_zh-CN", "句子")):
        write(
            tmp_path / f"corpora/covost2-{config}/{config}/train-00000-of-00001.parquet",
            [{"bytes": encoded(hertz(0, n), 48_000, "MP3"), "path": f"common_voice_en_{n}.mp3"} for n in range(CLIPS)],
            client_id=[f"speaker {n % 2}" for n in range(CLIPS)],
            file=[f"/home/someone/clips/common_voice_en_{n}.mp3" for n in range(CLIPS)],
            sentence=[f"Sentence {n}." for n in range(CLIPS)],
            translation=[f"{words} {n}" for n in range(CLIPS)],
            id=[f"common_voice_en_{n}" for n in range(CLIPS)],
        )
    write(
        tmp_path / "corpora/europarl-st/data/train-00000.parquet",
        [{"bytes": encoded(hertz(1, n), 44_100, "M4A"), "path": f"speech_{n}.m4a"} for n in range(SPEECHES)],
        speech=[f"en.2008{n // 2}" for n in range(SPEECHES)],
        transcript=[f"Mr President {n}" for n in range(SPEECHES)],
        translations=[{"de": f"Herr Präsident {n}", "fr": f"Monsieur {n}"} for n in range(SPEECHES)],
    )
    write(
        tmp_path / "corpora/acl6060-hub/dev.parquet",
        [{"bytes": encoded(hertz(2, n), 16_000, "WAV"), "path": f"sent_{n}.wav"} for n in range(SENTENCES)],
        talk=["2022.acl-long.268"] * SENTENCES,
        text_en=[f"We propose {n}" for n in range(SENTENCES)],
        text_de=[f"Wir schlagen {n} vor" for n in range(SENTENCES)],
        text_zh=[f"我们提出{n}" for n in range(SENTENCES)],
    )
    return tmp_path


COVOST = {"audio": "audio", "source": "sentence", "id": "id", "recording": "client_id"}
SOURCES = (
    Source(
        name="covost2-en_de",
        format="hub",
        files=("en_de/train-*.parquet",),
        columns=COVOST,
        targets={"de": "translation"},
    ),
    Source(
        name="covost2-en_zh-CN",
        format="hub",
        files=("en_zh-CN/train-*.parquet",),
        columns=COVOST,
        targets={"zh": "translation"},
    ),
    Source(
        name="europarl-st",
        format="hub",
        files=("data/train-*.parquet",),
        columns={"audio": "audio", "source": "transcript", "recording": "speech"},
        targets={"de": "translations.de"},
    ),
    Source(
        name="acl6060-hub",
        format="hub",
        files=("dev.parquet",),
        columns={"audio": "audio", "source": "text_en", "recording": "talk"},
        targets={"de": "text_de", "zh": "text_zh"},
    ),
)


def build(data: Path) -> tuple[dict, list[Utterance]]:
    options = CorpusOptions(sources=SOURCES, utterances={"de": 0, "zh": 0}, seed=1, max_skipped_share=0.0)
    (data / "out").mkdir()
    report = build_corpus(data, options, ["de", "zh"], ["de", "zh"], 8, data / "out")
    return report, read_corpus(data / "out/train.jsonl")


def test_snapshots_of_the_three_corpora_become_one_with_their_own_audio(data: Path) -> None:
    report, utterances = build(data)
    counts = {language: figures["utterances"] for language, figures in report["train"]["languages"].items()}
    assert counts == {"de": CLIPS + SPEECHES + SENTENCES, "zh": CLIPS + SENTENCES}
    starts = {"Sentence": 0, "Mr": 1, "We": 2}
    for u in utterances:
        corpus = starts[u.source.partition(" ")[0]]
        number = int("".join(filter(str.isdigit, u.source)))
        samples = read_slice(data / u.audio, u.start, u.end)
        assert len(samples) / 16_000 == pytest.approx(SECONDS, abs=0.15)  # mp3 and aac pad
        inner = samples[4000:20_000]
        assert np.argmax(np.abs(np.fft.rfft(inner))) == pytest.approx(hertz(corpus, number), abs=3)
        assert str(number) in u.target and (u.target_lang == "zh") == (u.target[0] > "\u3000")
    by_corpus = {u.source.partition(" ")[0]: u.recording for u in utterances if u.source.endswith("0")}
    assert by_corpus["We"] == "2022.acl-long.268" and by_corpus["Mr"] == "en.20080"


def test_the_classifier_is_trained_on_audio_that_the_corpus_stage_extracted(data: Path) -> None:
    _, utterances = build(data)
    labelled = read_labelled(data / "out/train.jsonl", data)
    assert len(labelled) == len({u.audio for u in utterances}) == 2 * CLIPS + SPEECHES + SENTENCES
    assert all(recording.path.is_file() and recording.name.startswith("audio/") for recording in labelled)
    assert all(recording.labels().mean() > 0.9 for recording in labelled)
