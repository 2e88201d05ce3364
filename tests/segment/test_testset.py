"""Test sets as organisers ship them, in every dialect, and what is refused by name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from segment.testset import find_segments_file, read_folder, read_given, read_positions, read_recordings, read_testset
from submission.errors import UserError
from submission.text.segments import Segment, read_segments, write_segments
from tests.support.recordings import write_noise

RATE = 16_000


def make(folder: Path, order: bytes | str, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"audio")
    (folder / "FILE_ORDER").write_bytes(order if isinstance(order, bytes) else order.encode())
    return folder


def names(folder: Path) -> list[str]:
    return [recording.name for recording in read_testset(folder).recordings]


def given(folder: Path, text: str, seconds: float = 60.0):
    path = folder / "segments.yaml"
    path.write_bytes(text.encode())
    return read_given(path, read_testset(folder), lambda path: int(seconds * RATE))


@pytest.mark.parametrize(
    "order",
    [
        "b\na\n",
        "b.wav\na.wav\n",
        "b.wav\na",
        b"\xef\xbb\xbfb\r\na\r\n",
        b"b.wav\ra.wav\r",
        "\n  b.wav  \n\n./wavs/a.wav\n",
        "C:\\sets\\b.wav\na\n",
    ],
    ids=["without .wav", "with .wav", "no last line end", "BOM and CRLF", "CR", "blanks and paths", "backslashes"],
)
def test_file_order_is_understood_in_every_dialect(tmp_path, order):
    assert names(make(tmp_path, order, "a.wav", "b.wav")) == ["b.wav", "a.wav"]


def test_recordings_are_found_at_any_depth_and_under_any_name(tmp_path):
    make(tmp_path, "2022.acl-long.110\nGespräch 1\nthree", "x/y/2022.acl-long.110.wav", "Gespräch 1.wav", "three.WAV")
    assert names(tmp_path) == ["2022.acl-long.110.wav", "Gespräch 1.wav", "three.WAV"]


def test_recordings_that_file_order_leaves_out_follow_the_others_and_are_named(tmp_path):
    testset = read_testset(make(tmp_path, "c\na", "a.wav", "z/b.wav", "c.wav", "d.wav"))
    assert [r.name for r in testset.recordings] == ["c.wav", "a.wav", "d.wav", "b.wav"]
    assert testset.unlisted == ("d.wav", "b.wav") and testset.missing == ()


def test_entries_without_a_recording_are_named_and_cost_no_other(tmp_path):
    testset = read_testset(make(tmp_path, "gone.wav\nb\nlost/a2\na\n", "a.wav", "b.wav"))
    assert [r.name for r in testset.recordings] == ["b.wav", "a.wav"]
    assert testset.missing == ("gone.wav", "lost/a2")
    result = given(tmp_path, "".join(f"- {{wav: {name}, offset: 0, duration: 1}}\n" for name in ("a", "gone", "b")))
    assert [s.recording for s in result.segments] == ["b.wav", "a.wav"] and result.without_recording == 1


@pytest.mark.parametrize(
    "order",
    ["day2/talk\nday1/talk\n", "./day2/talk.wav\nday1\\talk.wav\n", "/sets/day2/talk.wav\n/sets/day1/talk.wav\n"],
)
def test_files_of_one_name_in_several_folders_are_told_apart_by_their_paths(tmp_path, order):
    make(tmp_path, order, "day1/talk.wav", "day2/talk.wav", "day1/other.wav")
    assert names(tmp_path) == ["day2/talk.wav", "day1/talk.wav", "other.wav"]
    text = "- {wav: day1/talk.wav, offset: 0, duration: 1}\n- {wav: x/day2/talk, offset: 0, duration: 2}\n"
    result = given(tmp_path, text)
    assert [(s.recording, s.end) for s in result.segments] == [("day2/talk.wav", 2 * RATE), ("day1/talk.wav", RATE)]
    write_segments(tmp_path / "again.yaml", result.segments)
    assert read_segments(tmp_path / "again.yaml") == list(result.segments)
    with pytest.raises(UserError, match="entry 1: 'talk.wav' means several of"):
        given(tmp_path, "- {wav: talk.wav, offset: 0, duration: 1}")


@pytest.mark.parametrize("name", ["film.mp4", "film.MKV", "talk.webm", "talk.opus", "talk.mov", "talk.aac"])
def test_containers_are_recordings(tmp_path, name):
    assert names(make(tmp_path, name.partition(".")[0], name)) == [name]


@pytest.mark.parametrize(
    ("order", "files", "message"),
    [
        ("c\nd\n", ["a.wav", "b.wav"], "none of its 2 entries is a recording of the folder (first: 'c')"),
        ("a\na.wav\n", ["a.wav"], "line 2: a.wav is listed twice"),
        ("a\n", ["x/a.wav", "y/a.wav"], "line 1: 'a' means several of x/a.wav, y/a.wav; write more of the path"),
        ("a\n", ["a.wav", "a.flac"], "means several of"),
        ("\n\n", ["a.wav"], "names no recordings"),
        (b"\xff\xfea\n", ["a.wav"], "cannot be read as UTF-8"),
        ("a\n", [], "holds no recordings"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, order, files, message):
    with pytest.raises(UserError) as error:
        read_testset(make(tmp_path, order, *files))
    assert message in str(error.value)


def test_a_missing_file_order_is_refused(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match="FILE_ORDER: no such file"):
        read_testset(tmp_path)


FLOW = (
    "[{duration: 1.5, offset: 2.0, rW: 0, speaker_id: NA, uW: 0, wav: b.wav}, {duration: 2, offset: 0.25, wav: a.wav}]"
)
BLOCK = "- wav: b.wav\n  offset: 2.0\n  duration: 1.5\n- wav: a.wav\n  duration: 2\n  offset: 0.25\n"
JSON_LIKE = (
    '[\n  {"wav": "/sets/acl/b.wav", "offset": 2.0, "duration": 1.5, "speaker_id": "NA"},\n'
    '  {"wav": "wavs/a.wav", "offset": 0.25, "duration": 2}\n]\n'
)
LINES = "- {duration: 1.500000, offset: 2.000000, wav: b}\r\n- {duration: 2.0, offset: '0.25', wav: a}\r\n"


@pytest.mark.parametrize("text", [FLOW, BLOCK, JSON_LIKE, LINES, "\ufeff" + BLOCK])
def test_given_segments_are_understood_in_every_dialect_in_the_order_of_file_order(tmp_path, text):
    result = given(make(tmp_path, "a\nb\n", "a.wav", "b.wav"), text)
    assert result.segments == (
        Segment(recording="a.wav", start=4000, end=36_000),
        Segment(recording="b.wav", start=32_000, end=56_000),
    )
    assert (result.overlaps, result.cut_at_end) == (0, 0)
    assert read_recordings(tmp_path / "segments.yaml", read_testset(tmp_path)) == ["b.wav", "a.wav"]


def test_the_order_within_a_recording_is_kept_and_overlaps_are_counted(tmp_path):
    make(tmp_path, "a\nb\n", "a.wav", "b.wav")
    text = "".join(f"- {{wav: a, offset: {o}, duration: 2}}\n" for o in (9, 4, 5, 0))
    result = given(tmp_path, text)
    assert [s.start // RATE for s in result.segments] == [9, 4, 5, 0]
    assert result.overlaps == 1


def test_a_segment_rounded_past_the_end_is_shortened_to_it(tmp_path):
    make(tmp_path, "a\n", "a.wav")
    result = given(tmp_path, "- {wav: a, offset: 8.0, duration: 2.01}", seconds=10)
    assert result.segments[0].end == 10 * RATE and result.cut_at_end == 1


def test_times_as_small_as_yaml_takes_for_text_are_numbers(tmp_path):
    make(tmp_path, "1\n", "1.wav")
    assert given(tmp_path, "- {wav: 1, offset: 1e-05, duration: 1}").segments[0].start == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{wav: c.wav, offset: 0, duration: 1}", "there is no recording 'c.wav'"),
        ("{wav: a.wav, offset: -0.5, duration: 1}", "expected offset >= 0"),
        ("{wav: a.wav, offset: 0, duration: 0}", "duration > 0"),
        ("{wav: a.wav, offset: 0, duration: -1}", "duration > 0"),
        ("{wav: a.wav, offset: 0, duration: 1e-9}", "does not lie within"),
        ("{wav: a.wav, offset: 57, duration: 4}", "57 s to 61 s does not lie within the recording's 60 s"),
        ("{wav: a.wav, offset: 60.01, duration: 0.01}", "does not lie within"),
        ("{wav: a.wav, offset: soon, duration: 1}", "offset: expected seconds, got 'soon'"),
        ("{wav: a.wav, offset: .nan, duration: 1}", "offset: expected seconds"),
        ("{wav: a.wav, offset: 0, duration: .inf}", "duration: expected seconds"),
        ("{wav: a.wav, offset: true, duration: 1}", "offset: expected seconds, got 'true'"),
        ("{wav: a.wav, offset: [1], duration: 1}", "offset: expected seconds, got a list of 1"),
        ("{wav: [a.wav], offset: 0, duration: 1}", "wav: expected a file name"),
        ("{wav: a.wav, duration: 1}", "lacks offset"),
        ("a.wav", "expected wav, offset and duration, got 'a.wav'"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_number(tmp_path, entry, message):
    make(tmp_path, "a\n", "a.wav")
    with pytest.raises(UserError) as error:
        given(tmp_path, f"- {{wav: a.wav, offset: 0, duration: 1}}\n- {entry}\n")
    assert "segments.yaml entry 2: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "wav: a.wav\n", "- {wav: a", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_list_of_segments_is_refused(tmp_path, text):
    make(tmp_path, "a\n", "a.wav")
    with pytest.raises(UserError, match="segments.yaml"):
        given(tmp_path, text)


@pytest.mark.parametrize("name", ["2022.110", "2022-99-99", "2022-11-23", "0777", "1e3", "no", "null", "a:b", "12:30"])
def test_a_bare_name_is_read_as_it_is_written(tmp_path, name):
    make(tmp_path, f"{name}\n", f"{name}.wav")
    result = given(tmp_path, f"- wav: {name}\n  offset: 0\n  duration: 1\n")
    assert [s.recording for s in result.segments] == [f"{name}.wav"]
    assert read_recordings(tmp_path / "segments.yaml", None) == [name]


@pytest.mark.parametrize("file_form", ["NFC", "NFD"])
@pytest.mark.parametrize("text_form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_of_unicodes_forms(tmp_path, file_form, text_form):
    written, named = unicodedata.normalize(file_form, "Gespräch.wav"), unicodedata.normalize(text_form, "Gespräch")
    make(tmp_path, f"{named}\n", written, "b.wav")
    assert names(tmp_path) == [written, "b.wav"]
    assert read_testset(tmp_path).unlisted == ("b.wav",)
    result = given(tmp_path, f"- {{wav: x/{named}.wav, offset: 0, duration: 1}}\n")
    assert [s.recording for s in result.segments] == [written]
    assert read_recordings(tmp_path / "segments.yaml", read_testset(tmp_path)) == [written]


@pytest.mark.parametrize("name", [b"talk\xff.wav", b"two\nlines.wav", b"a\x1bb.wav"])
def test_a_name_that_outputs_could_not_hold_is_refused(tmp_path, name):
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).touch()
    with pytest.raises(UserError, match="a file name that is not UTF-8, or holds a control character: '.*; rename it"):
        read_folder(tmp_path)


def test_a_name_may_hold_blanks_of_any_script(tmp_path):
    for name in ("Vortrag\u00a01.wav", "演讲\u3000二.wav", "a b.wav"):
        (tmp_path / name).touch()
    assert len(read_folder(tmp_path).recordings) == 3


def test_two_files_of_one_name_in_two_forms_are_refused(tmp_path):
    make(tmp_path, "ä\n", "ä.wav", "a\u0308.wav")
    with pytest.raises(UserError, match="has the same file name"):
        read_testset(tmp_path)


def test_the_segments_file_is_found_or_named_in_the_error(tmp_path):
    make(tmp_path, "a\n", "a.wav")
    with pytest.raises(UserError, match="the folder has none"):
        find_segments_file(tmp_path)
    (tmp_path / "IWSLT.news.yaml").write_text("[]", encoding="utf-8")
    assert find_segments_file(tmp_path).name == "IWSLT.news.yaml"
    (tmp_path / "other.yml").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="has 2 YAML files"):
        find_segments_file(tmp_path)
    (tmp_path / "segments.yaml").write_text("[]", encoding="utf-8")
    assert find_segments_file(tmp_path).name == "segments.yaml"


def test_any_folder_needs_no_order_and_is_then_sorted_by_path(tmp_path):
    make(tmp_path, "x", "b/2.wav", "b/1.flac", "a-1.WAV", "a/9.mp3", "notes.txt")
    (tmp_path / "FILE_ORDER").unlink()
    assert [r.name for r in read_folder(tmp_path).recordings] == ["9.mp3", "a-1.WAV", "1.flac", "2.wav"]


def test_an_order_counts_and_the_orders_of_its_folders_where_a_folder_has_none(tmp_path):
    make(tmp_path / "one", b"\xef\xbb\xbfb\r\na\r\n", "a.wav", "b.wav", "x.wav")
    make(tmp_path / "two", "d.wav\nc.wav\n", "c.wav", "d.wav")
    folder = read_folder(tmp_path)
    assert [r.name for r in folder.recordings] == ["b.wav", "a.wav", "d.wav", "c.wav", "x.wav"]
    assert folder.unlisted == ("x.wav",)
    make(tmp_path, "c\nb\n")
    assert [r.name for r in read_folder(tmp_path).recordings][:2] == ["c.wav", "b.wav"]


def test_the_orders_of_two_folders_mean_their_own_files(tmp_path):
    make(tmp_path / "one", "a", "a.wav")
    make(tmp_path / "two", "a", "a.wav")
    assert [r.name for r in read_folder(tmp_path).recordings] == ["one/a.wav", "two/a.wav"]


def test_positions_are_read_in_every_dialect_and_in_the_order_of_the_entries(tmp_path):
    path = tmp_path / "x.yaml"
    for text in (
        "- {duration: 1.5, offset: 2, rW: 0, speaker_id: NA, wav: b.wav}\n- {duration: 1, offset: 0, wav: a.wav}\n",
        "- wav: b.wav\n  offset: 2.0\n  duration: 1.5\n- wav: a.wav\n  offset: 0\n  duration: 1\n",
        '[{"wav": "/x/b.wav", "offset": 2, "duration": 1.5}, {"wav": "y\\\\a.wav", "offset": 0, "duration": 1}]',
    ):
        path.write_text(text, encoding="utf-8")
        assert read_positions(path) == [
            Segment(recording="b.wav", start=2 * RATE, end=7 * RATE // 2),
            Segment(recording="a.wav", start=0, end=RATE),
        ]
    path.write_text("- {duration: 0, offset: 0, wav: a.wav}\n", encoding="utf-8")
    with pytest.raises(UserError, match="entry 1: expected offset >= 0 and duration > 0"):
        read_positions(path)


def given_file(tmp_path, text):
    write_noise(tmp_path / "talk.wav", seconds=14)
    (tmp_path / "FILE_ORDER").write_text("talk\n", encoding="utf-8")
    (tmp_path / "given.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "given.yaml"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "{duration: 3,55, offset: 1,63, wav: talk.wav}",
            "entry 1: duration: expected seconds, got 3,55",
        ),
        ("{duration: 3, offset: 1,63, wav: talk.wav}", r"offset: expected seconds, got 1,63 .*; write 1\.63"),
        ("{duration: '3,55', offset: 1, wav: talk.wav}", "duration: expected seconds, got '3,55'"),
        (
            "{duration: 3, offset: 1, ofset: 2, wav: talk.wav}",
            "entry 1: unknown key 'ofset'; the keys",
        ),
    ],
)
def test_decimal_commas_and_unknown_keys_are_refused_by_entry_and_key(entry, said, tmp_path):
    path = given_file(tmp_path, f"- {entry}\n")
    with pytest.raises(UserError, match=said):
        read_positions(path)
