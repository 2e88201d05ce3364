"""Write corpora and test sets of synthetic speech as they are published: containers, tables, dialects of their lists.

corpora/covost2/          covost_v2.en_*.tsv with a column `split`, Common Voice's validated.tsv, clips/*.mp3 (48 kHz)
corpora/europarl-st/v1.1/ en/audios/*.m4a (AAC, 44.1 kHz), en/de/{train,dev,test}
acl_6060/{dev,eval}/      talks, gold segments, txt and xml
testsets/<NAME>/          telephone calls in two channels at 8 kHz, television at 48 kHz, FILE_ORDER in both dialects,
                          segments in SHAS' and in JSON's
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from submission.miniature.layouts import write_acl_6060
from submission.miniature.recordings import (
    SentencePool,
    Session,
    SyntheticRecording,
    jingle,
    musical,
    noisy,
    quiet,
    record,
    spliced,
    telephone,
)
from submission.progress import progress
from submission.store.digests import write_text
from submission.text.segments import SAMPLE_RATE

SEED = 2026
CLIPS = 20
SPEECHES, SPEECH_LINES = 2, 6
TALKS, TALK_LINES = 2, 4
RECORDINGS, LINES = 2, 3
REGIONS, REGION_LINES = 2, 13
"""Of the broadcast, so many stretches are to be translated, each longer than the model's window of 30 s."""
FREE_SETS = ("ACL", "TVSERIES", "CALLCENTER", "YOUTUBE")
ENVIRONMENTS = {"ACL": quiet, "TVSERIES": musical, "CALLCENTER": telephone, "YOUTUBE": noisy}
DOMAINS = {"ACL": "talks", "TVSERIES": "television", "CALLCENTER": "telephone", "YOUTUBE": "travel"}
VOICES = ("alice", "bruno", "carol", "david")


class Recorder:
    """Records sessions of one pool of sentences, no sentence twice."""

    def __init__(self) -> None:
        self._pool = SentencePool(SEED)
        self._tick = lambda _: None

    def session(self, name: str, domain: str, lines: int, number: int, **fields: object) -> SyntheticRecording:
        """Return a recording of so many sentences; number: whose voice."""
        voice = VOICES[number % len(VOICES)]
        arguments = {"environment": quiet, "split": "train"} | fields
        session = Session(name=name, domains=(domain,), voices=(voice,), lines=lines, **arguments)  # type: ignore[arg-type]
        return record(session, self._pool, SEED, self._tick)


def write_data(data: Path) -> None:
    """Write all corpora and test sets below a data folder."""
    recorder = Recorder()
    parts = (_write_covost2, _write_europarl_st, _write_acl, _write_free_sets, _write_accents, _write_news)
    with progress("speech", len(parts), "corpora and test sets") as tick:
        for write in parts:
            write(data, recorder)
            tick(1)


# --- training corpora ---


def _write_covost2(data: Path, recorder: Recorder) -> None:
    folder = data / "corpora/covost2"
    clips = folder / "clips"
    clips.mkdir(parents=True)
    tables: dict[str, list[str]] = {"de": [], "zh-CN": []}
    sentences = []
    for number in range(CLIPS):
        name = f"common_voice_en_{number:08d}.mp3"
        clip = recorder.session(f"clip_{number}", "daily", 1, number)
        write_resampled(clips / name, clip.samples, 48_000)
        sentence = clip.lines[0].sentence
        split = "train" if number % 8 else "dev"
        for language, rows in tables.items():
            rows.append(f"{name}\t{sentence.targets[language[:2]]}\t{split}")
        sentences.append(f"speaker{number % 7}\t{name}\t{sentence.source}\t2\t0\t\t\t")
    for language, rows in tables.items():
        write_text(folder / f"covost_v2.en_{language}.tsv", _lines(["path\ttranslation\tsplit", *rows]))
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent"
    write_text(folder / "validated.tsv", _lines([header, *sentences]))


def _write_europarl_st(data: Path, recorder: Recorder) -> None:
    root = data / "corpora/europarl-st/v1.1/en"
    (root / "audios").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        folder = root / "de" / split
        folder.mkdir(parents=True)
        columns: dict[str, list[str]] = {"lst": [], "en": [], "de": []}
        names: list[str] = []
        for number in range(SPEECHES if split == "train" else 1):
            name = f"en.20081022.{len(names) + 17}.3-{split}{number:03d}"
            speech = recorder.session(name, "talks", SPEECH_LINES if split == "train" else 1, number)
            write_aac(root / "audios" / f"{name}.m4a", speech.samples, 44_100)
            names.append(name)
            for line in speech.lines:
                columns["lst"].append(f"{name} {line.start / SAMPLE_RATE:.2f} {line.end / SAMPLE_RATE:.2f}")
                columns["en"].append(line.sentence.source)
                columns["de"].append(line.sentence.targets["de"])
        for suffix, lines in columns.items():
            write_text(folder / f"segments.{suffix}", _lines(lines))
        write_text(folder / "speeches.lst", _lines(names))
        write_text(folder / "speakers.lst", _lines([f"MEP_{index}" for index in range(len(names))]))


def _write_acl(data: Path, recorder: Recorder) -> None:
    for split, first in (("dev", 268), ("eval", 110)):
        talks = [
            recorder.session(f"2022.acl-long.{first + number}", "talks", TALK_LINES, number, split="heldout")
            for number in range(TALKS)
        ]
        write_acl_6060(data / "acl_6060" / split, split, talks)


# --- blind test sets ---


def _write_free_sets(data: Path, recorder: Recorder) -> None:
    for name in FREE_SETS:
        folder = data / "testsets" / name
        folder.mkdir(parents=True)
        recordings = [
            recorder.session(
                f"{name.lower()}_{2 - number}",
                DOMAINS[name],
                LINES,
                number,
                split="heldout",
                environment=ENVIRONMENTS[name],
            )
            for number in range(RECORDINGS)
        ]
        for recording in recordings:
            path = folder / recording.name
            if name == "CALLCENTER":
                _write_call(path, recording)
            else:
                write_resampled(path, recording.samples, 48_000 if name == "TVSERIES" else SAMPLE_RATE)
        names = [recording.name for recording in recordings]
        plain = [each.removesuffix(".wav") for each in names]  # the dialect of older editions
        write_text(folder / "FILE_ORDER", _lines(names if name in ("TVSERIES", "YOUTUBE") else plain))


def _write_call(path: Path, recording: SyntheticRecording) -> None:
    """Write a call at 8 kHz: a channel for each of two speakers, who take turns."""
    channels = np.zeros((len(recording.samples), 2), dtype=np.int16)
    for turn, line in enumerate(recording.lines):
        channels[line.start : line.end, turn % 2] = recording.samples[line.start : line.end]
    narrow = soxr.resample(channels.astype(np.float32) / 32768, SAMPLE_RATE, 8_000)
    soundfile.write(path, narrow, 8_000, subtype="PCM_16")


def _write_accents(data: Path, recorder: Recorder) -> None:
    folder = data / "testsets/CHALLENGEACCENT"
    folder.mkdir(parents=True)
    entries, names = [], []
    for number in range(RECORDINGS):
        recording = recorder.session(f"accent_{number}", "daily", LINES, number + 2, split="heldout")
        write_resampled(folder / recording.name, recording.samples, SAMPLE_RATE)
        names.append(recording.name)
        for line in recording.lines:
            offset, duration = line.start / SAMPLE_RATE, (line.end - line.start) / SAMPLE_RATE
            fields = f"duration: {duration:.4f}, offset: {offset:.4f}, rW: 0, speaker_id: NA, uW: 0"
            entries.append(f"{{{fields}, wav: {recording.name}}}")
    listed = ",\n ".join(entries)
    write_text(folder / "segments.yaml", f"[{listed}]\n")
    write_text(folder / "FILE_ORDER", _lines(names))


def _write_news(data: Path, recorder: Recorder) -> None:
    """Write one broadcast of which a list names the parts to translate, paths in `wav`, as JSON."""
    folder = data / "testsets/BUSINESSNEWS"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    pieces: list[SyntheticRecording | np.ndarray] = []
    for number in range(REGIONS + 1):
        pieces += [jingle(4.0, rng), _report(recorder, number)]
    broadcast = spliced("broadcast_2026", pieces)
    write_resampled(folder / broadcast.name, broadcast.samples, SAMPLE_RATE)
    listed = []
    for number in range(REGIONS):  # the last report is not listed
        lines = broadcast.lines[number * REGION_LINES : (number + 1) * REGION_LINES]
        start, end = lines[0].start / SAMPLE_RATE, lines[-1].end / SAMPLE_RATE
        listed.append({"duration": round(end - start, 3), "offset": round(start, 3), "wav": f"wavs/{broadcast.name}"})
    write_text(folder / "BUSINESSNEWS.yaml", json.dumps(listed, indent=1) + "\n")
    write_text(folder / "FILE_ORDER", _lines([broadcast.name]))


def _report(recorder: Recorder, number: int) -> SyntheticRecording:
    return recorder.session(f"report_{number}", "news", REGION_LINES, number, split="heldout")


# --- files ---


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def write_resampled(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write int16 [samples] at 16 kHz as a mono file of another rate, in the format of its suffix."""
    wave = samples.astype(np.float32) / 32768
    soundfile.write(path, wave if rate == SAMPLE_RATE else soxr.resample(wave, SAMPLE_RATE, rate), rate)


def write_aac(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write int16 [samples] at 16 kHz as AAC in an MPEG-4 container, mono."""
    wave = soxr.resample(samples.astype(np.float32) / 32768, SAMPLE_RATE, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(wave), 1024):
            piece = np.ascontiguousarray(wave[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
