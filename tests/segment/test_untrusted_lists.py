"""Untrusted lists, segments and FILE_ORDER: hostile ones are refused at once, in one clear line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from segment.plain_yaml import parse_plain_yaml
from segment.testset import RecordingFile, TestSetFolder, read_positions, read_testset
from submission.errors import UserError

SECONDS = 10.0
LAUGHS = "- &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"- &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "aliases of aliases": (LAUGHS, "holds an alias"),
    "brackets without end": ("[" * 100_000, "nested deeper"),
    "braces without end": ("{" * 100_000, "for a key"),
    "dashes without end": ("- " * 100_000, "nested deeper|is not YAML"),
    "an alias of itself": ("&a [*a]", "holds an alias"),
    "a key given twice": ("- {wav: a, wav: b}", "gives the key 'wav' twice"),
    "a table for a key": ("- {{a: b}: c}", "for a key"),
    "two documents": ("- a\n---\n- b\n", "more than one document"),
    "a very long text": (f"- {{wav: {'a' * 100_000}}}", "lacks offset, duration"),
    "a long number": ("- {wav: a.wav, offset: " + "9" * 100_000 + ", duration: 1}", "expected seconds"),
    "an escape sequence": ('- {wav: a.wav, offset: "\\e[2J", duration: 1}', r"expected seconds, got '\\x1b"),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_list_of_segments_is_refused_at_once(tmp_path, text, said):
    (tmp_path / "segments.yaml").write_text(text, encoding="utf-8")
    started = time.process_time()
    with pytest.raises(UserError, match=said) as refused:
        read_positions(tmp_path / "segments.yaml")
    assert time.process_time() - started < SECONDS
    assert len(str(refused.value)) < 1_000 and str(refused.value).isprintable()


def test_scalars_stay_as_they_are_written_and_tags_name_no_type():
    assert parse_plain_yaml("[2022.110, 2022-99-99, no, ~, !!python/name:os.system x, 'a: b']") == [
        *("2022.110", "2022-99-99", "no", "~", "x", "a: b")
    ]
    assert parse_plain_yaml("") is None and parse_plain_yaml("- {a: {b: [c]}}\n- d") == [{"a": {"b": ["c"]}}, "d"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def long(path: Path) -> None:
    path.write_bytes(b"a\n" * (1 << 20))


@pytest.mark.parametrize(
    ("make", "said"), [(pipe, "is not a regular file"), (endless, "is not a regular file"), (long, "more than")]
)
@pytest.mark.parametrize("name", ["FILE_ORDER", "segments.yaml"])
def test_a_list_is_a_regular_file_of_bounded_size(tmp_path, name, make, said):
    (tmp_path / "a.wav").touch()
    make(tmp_path / name)
    if name == "FILE_ORDER":
        with pytest.raises(UserError, match=said):
            read_testset(tmp_path)
    elif make is not long:  # a longer list of segments is a list
        with pytest.raises(UserError, match=said):
            read_positions(tmp_path / name)


def test_what_a_list_names_is_shown_without_its_control_characters(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "FILE_ORDER").write_text("b\x1b[2J\u202e.wav\n", encoding="utf-8")
    with pytest.raises(UserError, match="none of its 1 entries is a recording") as refused:
        read_testset(tmp_path)
    assert str(refused.value).isprintable()


def test_a_plain_list_is_read_as_before(tmp_path):
    (tmp_path / "x.yaml").write_text("- {duration: 1.5, offset: 0.25, wav: a.wav}\n", encoding="utf-8")
    (found,) = read_positions(tmp_path / "x.yaml")
    assert (found.recording, found.start, found.end) == ("a.wav", 4_000, 28_000)
    assert TestSetFolder(recordings=(RecordingFile(name="a.wav", path=tmp_path),), unlisted=()).unlisted == ()
