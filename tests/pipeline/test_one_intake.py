"""`train corpus`, `segment run` and `evaluate translate` hear the same of every file, or refuse it with the same words.

Each takes a recording through the function that its command calls before the expensive step. Files are a known clip in
every container and codec that `tests.support.audio_files` writes, whole, joined, cut, labelled otherwise, with other
headers and packets, and the cases that were reported.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluate.decoding.audio_files import check_space, readable_in_pieces
from evaluate.recordings.recording_folder import checked_lengths
from segment.probabilities.detectors import vad_detectors
from segment.probabilities.speech_probabilities import ProbabilityCache, detect_speech
from segment.recording_parts import RecordingPart
from segment.testset import TestSetFolder, read_folder
from submission.errors import UserError
from submission.system.revisions import REVISIONS
from submission.text.segments import SAMPLE_RATE, Segment
from tests.support.audio_files import ENCODINGS, REMUXES, remux, speechlike, write_encoded
from train.corpora.formats.corpus_utterance import CorpusUtterance
from train.corpora.sampling import Corpus, sample_utterances

SECONDS = 2
CLIP = speechlike(SECONDS, SAMPLE_RATE)
CASES = Path(__file__).parents[3] / "shared" / "cases"
"""Inputs that were reported, beside the repository; not every copy of it has them."""
REPORTED = sorted(path for path in CASES.rglob("talk.*") if path.suffix in (".wav", ".flac", ".mp3"))
SHARES = (0.02, 0.35, 0.7, 0.95)

Said = int | str
"""What is said of a file: its samples at 16 kHz, or why it is refused."""


def of_corpus(path: Path) -> Said:
    """Return what the corpus's sample says of a file that a corpus names."""

    def read(folder: Path, languages: object) -> Iterator[CorpusUtterance]:
        texts = {"source": "one", "targets": {"de": "eins"}}
        yield CorpusUtterance(id="1", audio=path.name, start=0, end=None, recording="1", **texts)

    corpus = Corpus(name="c", folder=".", read=read)
    place = {"out": path.parent, "label": "corpus", "seed": 1}
    sample = sample_utterances([corpus], path.parent, {"de": 0}, window_seconds=60, **place)
    if sample.taken["de"]:
        return sample.taken["de"][0].end
    (name, what), (reason, _) = *sample.unusable.items(), *sample.skipped.items()
    assert name == str(path) and reason.startswith("audio ")
    return what


def of_segment(folder: TestSetFolder, cache: Path) -> Said:
    """Return what segmentation says of the recording of a folder, with the project's voice-activity detector."""
    parts = [RecordingPart(recording=recording) for recording in folder.recordings]
    ((_, found),) = detect_speech(parts, vad_detectors(REVISIONS["segment"]), ProbabilityCache(folder=cache))
    if isinstance(found, UserError):
        return found.what
    assert len(found.vad) == -(-found.samples // 512)
    return found.samples


def of_translate(folder: TestSetFolder, aside: Path) -> Said:
    """Return what translation says of the recording of a folder, whose samples it reads to the last."""
    check_space(folder.recordings, aside.parent)
    try:
        ((name, length),) = checked_lengths(folder.recordings).items()
    except UserError as error:
        return error.what
    # Two recordings that are not seekable are decoded to files of their own, as those of a whole test set are.
    twin = TestSetFolder(
        recordings=(*folder.recordings, *(type(r)(name="twin", path=r.path) for r in folder.recordings)), unlisted=()
    )
    segments = [Segment(recording=recording.name, start=0, end=length) for recording in twin.recordings]
    for path in readable_in_pieces(twin, segments, aside).values():
        assert path == folder.recordings[0].path or soundfile.info(path).frames == length, name
    return length


def agreed(path: Path, work: Path) -> Said:
    """Return what all three say of a file, which is the same."""
    place = work / "one"
    shutil.rmtree(place, ignore_errors=True)
    (place / "set").mkdir(parents=True)
    file = Path(shutil.copy(path, place / "set" / path.name))
    folder = read_folder(file.parent)
    assert [recording.path for recording in folder.recordings] == [file]
    corpus = of_corpus(file)
    segment, translate = of_segment(folder, place / "cache"), of_translate(folder, place / "aside")
    assert corpus == segment == translate, f"{path.name}: {corpus!r}, {segment!r}, {translate!r}"
    return corpus


@pytest.fixture(scope="module", params=ENCODINGS, ids=lambda encoding: f"{encoding[1]}.{encoding[0]}")
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, codec = request.param
    return write_encoded(tmp_path_factory.mktemp("clip") / f"clip.{suffix}", CLIP, SAMPLE_RATE, codec)


def rewritten(path: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    target.write_bytes(change(path.read_bytes()))
    return target


def test_a_whole_clip_has_one_length(encoded: Path, tmp_path: Path) -> None:
    samples = agreed(encoded, tmp_path)
    assert isinstance(samples, int) and SECONDS <= samples / SAMPLE_RATE < SECONDS + 0.15


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "", ".part"])
def test_a_label_changes_nothing(encoded: Path, suffix: str, tmp_path: Path) -> None:
    path = rewritten(encoded, tmp_path / f"clip{'.' if suffix else ''}{suffix.strip('.')}", bytes)
    assert agreed(path, tmp_path) == agreed(encoded, tmp_path)


def test_joined_clips_have_one_length_or_one_refusal(encoded: Path, tmp_path: Path) -> None:
    said = agreed(rewritten(encoded, tmp_path / encoded.name, lambda content: content * 2), tmp_path)
    assert isinstance(said, str) or said >= 2 * len(CLIP)


@pytest.mark.parametrize("share", SHARES)
def test_a_cut_clip_has_one_length_or_one_refusal(encoded: Path, share: float, tmp_path: Path) -> None:
    path = tmp_path / encoded.name
    said = agreed(rewritten(encoded, path, lambda content: content[: int(len(content) * share)]), tmp_path)
    assert isinstance(said, str) or (said < len(CLIP) and encoded.suffix in (".aac", ".ts"))


@pytest.mark.parametrize(("suffix", "codec", "other"), REMUXES)
def test_packets_in_another_container_have_one_length(suffix: str, codec: str, other: str, tmp_path: Path) -> None:
    source = write_encoded(tmp_path / f"source.{suffix}", CLIP, SAMPLE_RATE, codec)
    said = agreed(remux(source, tmp_path / f"clip.{other}"), tmp_path)
    assert isinstance(said, int) and said >= len(CLIP) - 400


def unlike_others(place: Path) -> Iterator[Path]:
    """Yield files whose samples, header or beginning is not what is usual."""
    yield write_encoded(place / "late.m4a", CLIP, SAMPLE_RATE, "aac", first=2.0)
    yield write_encoded(place / "live.webm", CLIP, SAMPLE_RATE, "libopus", live="1")
    yield write_encoded(place / "counted_not.mp3", CLIP, SAMPLE_RATE, "libmp3lame", write_xing="0")
    yield write_encoded(place / "slow.flac", speechlike(SECONDS, 8000), 8000, "flac")
    wav = write_encoded(place / "whole.wav", CLIP, SAMPLE_RATE, "pcm_s16le")
    at = wav.read_bytes().index(b"data") + 4
    for size in (0, 1000, 0xFFFFFFFF):
        new = size.to_bytes(4, "little")
        yield rewritten(
            wav, place / f"size_{size}.wav", lambda content, new=new: content[:at] + new + content[at + 4 :]
        )
    for name, samples in (
        ("unscaled", CLIP * 32_768),
        ("not_finite", np.where(np.arange(len(CLIP)) == 9_999, np.nan, CLIP)),
        ("nothing", CLIP[:0]),
        ("stereo", np.stack([CLIP, -CLIP / 2], axis=1)),
    ):
        soundfile.write(place / f"{name}.wav", samples, SAMPLE_RATE, subtype="FLOAT")
        yield place / f"{name}.wav"
    soundfile.write(place / "slowest.wav", CLIP, 1, subtype="PCM_16")
    yield place / "slowest.wav"
    for name, content in (("empty.wav", b""), ("text.mp3", b"no audio " * 99), ("empty.m4a", b"")):
        (place / name).write_bytes(content)
        yield place / name


def test_unusual_files_have_one_length_or_one_refusal(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    said = {path.stem: agreed(path, tmp_path) for path in unlike_others(tmp_path / "made")}
    heard = {name for name, what in said.items() if isinstance(what, int)}
    assert heard == {"late", "live", "counted_not", "slow", "size_0", "size_4294967295", "stereo"}
    for name, cause in (
        ("size_1000", "counts 1,000 bytes of samples"),
        ("unscaled", "expected full scale at 1"),
        ("not_finite", "not finite numbers"),
        ("nothing", "no samples"),
        ("slowest", "samples a second"),
        ("text", "is not audio"),
    ):
        assert cause in str(said[name])


@pytest.mark.skipif(not REPORTED, reason="the reported inputs are not beside this copy of the repository")
@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.parent.name)
def test_reported_recordings_are_heard_whole_or_refused_with_both_lengths(path: Path, tmp_path: Path) -> None:
    said = agreed(path, tmp_path)
    if path.parent.name == "wav-size-short":
        assert isinstance(said, str) and "counts 160,000 bytes of samples, and 448" in said
    else:
        assert isinstance(said, int) and said / SAMPLE_RATE == pytest.approx(14.05, abs=0.07)
