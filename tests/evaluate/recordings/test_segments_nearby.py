"""The YAML of a test set's segments, in a folder that holds several test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.recordings.recording_folder import given_file_near
from segment.testset import RecordingFile
from submission.errors import UserError


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def recordings(*paths: Path) -> list[RecordingFile]:
    return [RecordingFile(name=path.name, path=written(path)) for path in paths]


def test_of_several_test_sets_each_has_its_own(tmp_path):
    found = {}
    for name in ("ACCENT", "NEWS"):
        own = written(tmp_path / name / "segments.yaml")
        wavs = recordings(tmp_path / name / "wav" / "a.wav", tmp_path / name / "wav" / "b.wav")
        found[name] = (given_file_near(wavs, tmp_path), own)
    assert all(near == own for near, own in found.values())


def test_a_folder_of_one_test_set_is_searched_whole(tmp_path):
    wavs = recordings(tmp_path / "a.wav", tmp_path / "more" / "b.wav")
    assert given_file_near(wavs, tmp_path) is None
    own = written(tmp_path / "lists" / "regions.yml")
    assert given_file_near(wavs, tmp_path) == own == given_file_near([], tmp_path)


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    written(tmp_path / "segments.yaml")
    assert given_file_near(recordings(tmp_path / "audio" / "a.wav"), tmp_path / "audio") is None


def test_several_in_the_nearest_folder_are_an_error(tmp_path):
    wavs = recordings(tmp_path / "SET" / "a.wav")
    for name in ("one.yaml", "two.yaml"):
        written(tmp_path / "SET" / name)
    with pytest.raises(UserError, match="--segments"):
        given_file_near(wavs, tmp_path)
