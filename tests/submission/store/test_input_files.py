"""Which files of an input folder count, and when they are looked at again."""

from __future__ import annotations

import os
import time
import wave
from pathlib import Path

import pytest

from submission.store import input_files
from submission.store.input_files import InputDigests, Reads, find_files
from submission.store.recording_files import find_recordings

READS = Reads(content=("table.tsv | en/table.tsv", "**/*.yaml"), recordings=("talks",), clips=("clips | en/clips",))
LONG_AGO = time.time() - 1000


def write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def write_wav(path: Path) -> Path:
    """Write a second of silence under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, 8000, 8000, "NONE", ""))
        wav.writeframes(bytes(16_000))
    return path


def settle(folder: Path) -> None:
    """Set the times of all files and folders back, as those of data that was copied before."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for name in ("table.tsv", "lists/a.yaml", "talks/one.wav", "talks/deep/two.WAV", "clips/1.mp3", "clips/more/2.mp3"):
        write(data / name)
    settle(data)
    return data


@pytest.fixture
def digests(tmp_path: Path) -> InputDigests:
    return InputDigests(tmp_path / "cache")


@pytest.mark.parametrize(
    "stray",
    [
        *(".cache/huggingface/download/table.tsv.metadata", ".DS_Store", "clips/.DS_Store", "clips/._1.mp3"),
        *("table.tsv~", "table.tsv.bak", "#table.tsv#", ".table.tsv.swp", "lists/a.yaml~", "lists/.a.yaml"),
        *("corpus.tar.gz", "talks/talks.zip", "clips/README.md", "other/3.mp3", "en/table.tsv", "talks/.trash/4.wav"),
    ],
)
def test_stray_files_change_no_digest(folder, digests, stray):
    before = digests.digest(folder, READS)
    write(folder / stray, "stray")
    assert digests.digest(folder, READS) == before
    (folder / stray).unlink()
    assert digests.digest(folder, READS) == before


@pytest.mark.parametrize("name", ["call", "deep/call.dat", "call.oga", "call.aiff", "call.2025-11-28"])
@pytest.mark.parametrize("where", ["talks", "clips"])
def test_a_recording_without_a_known_suffix_changes_the_digest(folder, digests, where, name):
    before = digests.digest(folder, READS)
    write_wav(folder / where / name)
    assert digests.digest(folder, READS) != before
    (folder / where / name).unlink()
    assert digests.digest(folder, READS) == before


@pytest.mark.parametrize("name", ["README", "notes.de", "The free", "talks.zip", "notes.txt", "1.mp3.part", "call~"])
@pytest.mark.parametrize("where", ["talks", "clips"])
def test_a_stray_text_changes_no_digest(folder, digests, where, name):
    before = digests.digest(folder, READS)
    write(folder / where / name, "The free word, then more of it.\n" * 40)
    assert digests.digest(folder, READS) == before


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        *((name, True) for name in ("a.wav", "a", "a.dat", "deep/a.WAV", "deep/a", "a.m4v", "a.wav.1")),
        *(
            (name, False)
            for name in ("a.wav~", "a.bak", "a.wav.bak", ".a.wav", "._a", "#a.wav#", ".old/a.wav", "old~/a")
        ),
        *((name, False) for name in ("a.txt", "a.zip", "a.wav.tmp", "deep/.a")),
    ],
)
def test_keys_change_by_those_files_that_are_read_as_recordings(folder, digests, name, counts):
    before, read = digests.digest(folder, READS), find_recordings(folder / "talks").paths
    path = write_wav(folder / "talks" / name)
    assert (find_recordings(folder / "talks").paths != read) is counts
    assert (digests.digest(folder, READS) != before) is counts
    path.unlink()
    assert digests.digest(folder, READS) == before


@pytest.mark.parametrize(
    "change",
    [
        *(("table.tsv", "y"), ("lists/a.yaml", "y"), ("talks/deep/two.WAV", "y"), ("lists/b.yaml", "x")),
        *(("clips/3.mp3", "x"), ("clips/more/3.mp3", "x"), ("talks/three.flac", "x")),
    ],
)
def test_what_is_read_changes_the_digest_and_changes_it_back(folder, digests, change):
    name, content = change
    before, old = digests.digest(folder, READS), (folder / name).exists()
    write(folder / name, content)
    assert digests.digest(folder, READS) != before
    if old:
        write(folder / name)
    else:
        (folder / name).unlink()
    assert digests.digest(folder, READS) == before


def test_clips_count_by_name_and_size(folder, digests, tmp_path):
    before = digests.digest(folder, READS)
    (folder / "clips/1.mp3").unlink()
    write(folder / "clips/1.mp3", "z")  # downloaded again
    assert digests.digest(folder, READS) == before
    (folder / "clips/1.mp3").unlink()
    write(folder / "clips/1.mp3", "whole")  # only half of it was there
    assert digests.digest(folder, READS) != before
    (folder / "clips/1.mp3").rename(folder / "clips/2.mp3")
    assert digests.digest(folder, READS) == InputDigests(tmp_path / "fresh").digest(folder, READS) != before


def test_settled_folders_of_clips_are_listed_once(folder, digests, monkeypatch):
    reads = Reads(content=("table.tsv", "lists/*.yaml"), clips=("clips",))
    before = digests.digest(folder, reads)
    listed = []
    listing = input_files.os.scandir
    monkeypatch.setattr(input_files.os, "scandir", lambda path: (listed.append(Path(path).name), listing(path))[1])
    assert digests.digest(folder, reads) == before
    assert set(listed) == {"lists"}
    write(folder / "clips/more/3.mp3")
    assert digests.digest(folder, reads) != before
    assert set(listed) == {"lists", "more"}


def test_what_has_just_changed_is_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "SETTLED_SECONDS", 1e9)  # however slow the machine is
    fresh = tmp_path / "data2"
    write(fresh / "clips/1.mp3")
    write(fresh / "table.tsv", "one")
    digests = InputDigests(tmp_path / "cache")
    before = digests.digest(fresh, READS)
    stat = (fresh / "clips").stat()
    write(fresh / "clips/2.mp3")
    os.utime(fresh / "clips", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a clock that ticks once a second has it
    assert digests.digest(fresh, READS) != before


def test_damaged_caches_are_no_caches(folder, digests, tmp_path):
    before = digests.digest(folder, READS)
    for text in ("[]", "{", '{"files": 3, "folders": {}}', ""):
        for entry in (tmp_path / "cache").iterdir():
            entry.write_text(text, encoding="utf-8")
        assert digests.digest(folder, READS) == before


def test_links_to_folders_and_files_are_followed_and_circles_end(folder, digests, tmp_path):
    before = digests.digest(folder, READS)
    (folder / "clips").rename(tmp_path / "elsewhere")
    (folder / "clips").symlink_to(tmp_path / "elsewhere")
    (folder / "table.tsv").rename(tmp_path / "table")
    (folder / "table.tsv").symlink_to(tmp_path / "table")
    assert digests.digest(folder, READS) == before
    for place in ("clips/up", "talks/up", "lists/up"):
        (folder / place).symlink_to(folder)
    again = digests.digest(folder, READS)  # ends
    assert digests.digest(folder, READS) == again
    assert {path.name for path in find_files(folder, "**/*.yaml")} == {"a.yaml"}


def test_a_folder_of_thousands_shows_no_more_than_its_names_cost(folder, digests, tmp_path):
    for number in range(3000):
        (folder / "clips" / f"common_voice_en_{number:08d}.mp3").touch()
    settle(folder)
    digests.digest(folder, READS)
    assert sum(entry.stat().st_size for entry in (tmp_path / "cache").iterdir()) < 2000
