"""A folder of recordings is walked once, in one way: links, suffixes, and what is not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segment.testset import _print_skipped, read_folder, read_testset
from tests.support.audio_files import ENCODINGS, speechlike, write_encoded
from tests.support.recordings import write_noise


def names(folder: Path) -> list[str]:
    return [recording.name for recording in read_folder(folder).recordings]


@pytest.fixture(autouse=True)
def _each_test_prints_again() -> None:
    _print_skipped.cache_clear()


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path, capsys):
    folder, other = tmp_path / "set", tmp_path / "elsewhere"
    write_noise(folder / "a.wav", seconds=0.5)
    write_noise(other / "b.wav", seconds=0.5)
    (folder / "linked").symlink_to(other)
    (folder / "again").symlink_to(other)
    (folder / "loop").symlink_to(folder)
    assert names(folder) == ["a.wav", "b.wav"]
    said = capsys.readouterr().err
    assert "skipped 2 of its entries" in said and "linked: is the folder" in said and "loop: is the folder" in said


def test_what_could_be_a_recording_and_is_not_read_is_named(tmp_path, capsys):
    write_noise(tmp_path / "a.wav", seconds=0.5)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    write_noise(tmp_path / "._a.wav", seconds=0.5)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "notes.txt").write_text("no audio", encoding="utf-8")
    assert names(tmp_path) == ["a.wav"]
    said = capsys.readouterr().err
    for line in ("gone.wav: is a link to nothing", "._a.wav: is hidden", "pipe.wav: is no regular file"):
        assert line in said
    assert "notes" not in said
    read_folder(tmp_path)
    assert not capsys.readouterr().err  # said once


def test_hidden_folders_and_what_editors_leave_behind_are_no_recordings(tmp_path, capsys):
    for name in ("a.wav", "a.wav~", "b.wav.bak", ".trash/c.wav", "old~/d.wav", "#e.wav#"):
        write_noise(tmp_path / "x.wav", seconds=0.5)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x.wav").rename(tmp_path / name)
    assert names(tmp_path) == ["a.wav"]
    said = capsys.readouterr().err
    for line in (
        *("a.wav~: is what an editor left behind", "b.wav.bak: is what", "#e.wav#: is what"),
        *(".trash: is a hidden folder", "old~: is a folder left behind"),
    ):
        assert line in said


@pytest.mark.parametrize(("suffix", "codec"), ENCODINGS)
def test_every_container_is_known_by_its_content_alone(suffix, codec, tmp_path):
    write_encoded(tmp_path / f"x.{suffix}", speechlike(1, 16_000), 16_000, codec).rename(tmp_path / "talk")
    assert names(tmp_path) == ["talk"]


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"ID3",
            b"ID3\x04\0\0\0\0\0\x10" + bytes(100),
            b"\xff\xfb\x90\x44" + bytes(4000),
            b"\xff\xf1" + bytes(4000),
        ),
        *(b"The free word\n" * 100, b"In a wide" * 9, b"G" + b"abc" * 400, b"G" * 400 + b"x" * 400),
    ],
)
def test_what_bears_a_short_mark_by_chance_is_no_recording(content, tmp_path):
    write_noise(tmp_path / "a.wav", seconds=0.5)
    (tmp_path / "thing").write_bytes(content)
    assert names(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("codec", ["libmp3lame", "mp2"])
def test_frames_of_mpeg_audio_are_known_at_every_rate_with_and_without_a_tag(codec, rate, tmp_path):
    path = write_encoded(tmp_path / "x.mp3" if codec != "mp2" else tmp_path / "x.ts", speechlike(1, rate), rate, codec)
    if codec == "libmp3lame":
        content = path.read_bytes()
        tag = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(content[6:10]))
        (tmp_path / "bare").write_bytes(content[tag:])
    path.rename(tmp_path / "tagged")
    assert names(tmp_path) == (["bare", "tagged"] if codec == "libmp3lame" else ["tagged"])


def test_audio_is_found_by_its_content_whatever_its_suffix(tmp_path):
    clip = speechlike(1, 16_000)
    for name, suffix, codec in (
        ("talk.opus", "ogg", "libopus"),
        ("talk.dat", "flac", "flac"),
        ("talk", "wav", "pcm_s16le"),
        ("talk.mpga", "mp3", "libmp3lame"),
        ("film.mp4", "m4a", "aac"),
    ):
        write_encoded(tmp_path / f"x.{suffix}", clip, 16_000, codec).rename(tmp_path / name)
    (tmp_path / "weights.bin").write_bytes(b"\xff\xfb" + bytes(1000))
    (tmp_path / "utf16.txt").write_text("kein Ton", encoding="utf-16")
    assert sorted(names(tmp_path)) == ["film.mp4", "talk", "talk.dat", "talk.mpga", "talk.opus"]


def test_entries_of_file_order_need_no_extension(tmp_path):
    clip = speechlike(1, 16_000)
    write_encoded(tmp_path / "x.ogg", clip, 16_000, "libopus").rename(tmp_path / "b.opus")
    write_encoded(tmp_path / "x.m4a", clip, 16_000, "aac").rename(tmp_path / "a.mp4")
    (tmp_path / "FILE_ORDER").write_text("b\na\n", encoding="utf-8")
    assert [recording.name for recording in read_testset(tmp_path).recordings] == ["b.opus", "a.mp4"]
