"""References: read strictly, refused with numbers."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from evaluate.scoring.references import (
    check_line_by_line,
    find_gold_references,
    find_references,
    gold_segments,
    read_lines,
    references_of,
)
from segment.testset import read_given, read_testset
from submission.errors import UserError
from submission.store.digests import sha256_file
from submission.text.segments import Segment, write_segments
from tests.evaluate.support import XML


def write_testset(folder, lines: bytes, recordings=("b.wav", "a.wav")):
    folder.mkdir(exist_ok=True)
    (folder / "en-de.txt").write_bytes(lines)
    segments = [Segment(recording=name, start=16_000 * n, end=16_000 * (n + 1)) for n, name in enumerate(recordings)]
    write_segments(folder / "segments.yaml", segments)
    return folder


def test_lines_are_found_with_their_recordings_and_the_files_digest(tmp_path):
    folder = write_testset(tmp_path / "ACL", "Hund läuft\nKatze\n".encode())
    references = find_references(folder, "en-de")
    assert references.lines == ("Hund läuft", "Katze")
    assert references.recordings == ("b.wav", "a.wav")
    assert references.sha256 == sha256_file(folder / "en-de.txt")


def test_a_pair_without_references_has_none(tmp_path):
    assert find_references(write_testset(tmp_path / "ACL", b"a\nb\n"), "en-zh") is None
    assert find_references(tmp_path / "nowhere", "en-de") is None


@pytest.mark.parametrize("text", [b"a\nb", b"a\nb\n", b"\xef\xbb\xbfa\r\nb\r\n", b" a \nb\t\n"])
def test_foreign_line_ends_a_bom_and_blanks_are_not_part_of_a_line(tmp_path, text):
    assert find_references(write_testset(tmp_path / "X", text), "en-de").lines == ("a", "b")


def test_an_empty_line_counts(tmp_path):
    assert find_references(write_testset(tmp_path / "X", b"\nb\n"), "en-de").lines == ("", "b")


@pytest.mark.parametrize(("text", "count"), [(b"", 0), (b"a\n", 1), (b"a\nb\n\n", 3)])
def test_another_number_of_lines_than_segments_is_refused_with_both(tmp_path, text, count):
    with pytest.raises(UserError, match=f"expected 2 lines, .* got {count}"):
        find_references(write_testset(tmp_path / "X", text), "en-de")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"gut\nM\xfcller\n", r"line 2: byte 5 \(0xfc\) is not UTF-8"),
        ("gut\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
        (b"gut\ngu\x00t\n", "line 2: holds a NUL"),
    ],
)
def test_what_is_not_utf_8_text_is_refused_by_line(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_lines(tmp_path / "t")


def test_missing_gold_segments_are_named(tmp_path):
    folder = write_testset(tmp_path / "X", b"a\nb\n")
    (folder / "segments.yaml").unlink()
    with pytest.raises(UserError, match="segments.yaml: no such file"):
        find_references(folder, "en-de")


@pytest.mark.parametrize(
    "text",
    [
        "[{duration: 1, offset: 0.2, rW: 0, speaker_id: NA, wav: talk1.wav}, {wav: 2022, offset: 0, duration: 2}]",
        "- duration: 1.5\n  offset: 0.26\n  wav: talk1\n- wav: 2022.wav\n  offset: 1\n  duration: 2\n",
        '[{"wav": "x/y/talk1.wav", "offset": 0, "duration": 1}, {"wav": "x\\\\2022", "offset": 1, "duration": 1}]',
    ],
)
def test_what_can_be_segmented_as_given_is_scored_line_by_line(tmp_path, text):
    folder, testset = write_testset(tmp_path / "X", b"one\ntwo\n"), tmp_path / "testset"
    (folder / "segments.yaml").write_text(text, encoding="utf-8")
    testset.mkdir()
    for name in ("2022.wav", "talk1.wav"):
        (testset / name).touch()
    (testset / "FILE_ORDER").write_text("2022\ntalk1\n", encoding="utf-8")
    given = read_given(folder / "segments.yaml", read_testset(testset), lambda path: 160_000)
    references = find_references(folder, "en-de", testset)
    check_line_by_line(references, [segment.recording for segment in given.segments], "here")
    assert references.recordings == ("2022.wav", "talk1.wav")
    assert references.lines == ("two", "one")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("a: b", "expected a list"),
        ("- {offset: 1}", "entry 1: lacks wav"),
        ("[3]", "entry 1"),
        ("- {wav: c, offset: 1, duration: 1}", "entry 1: there is no recording 'c'"),
    ],
)
def test_what_is_no_list_of_segments_is_refused(tmp_path, text, message):
    folder = write_testset(tmp_path / "X", b"a\n", ["a.wav"])
    (folder / "segments.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "a.wav").touch()
    (tmp_path / "FILE_ORDER").write_text("a\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        find_references(folder, "en-de", tmp_path)


def write_gold(folder, numbers, text="eins\nzwei\n"):
    (folder / "segmented_wavs" / "gold").mkdir(parents=True)
    (folder / "text" / "txt").mkdir(parents=True)
    (folder / "text" / "txt" / f"ACL.6060.{folder.name}.en-xx.de.txt").write_text(text, encoding="utf-8")
    for number in numbers:
        wav = np.zeros(1000 + number, np.float32)
        soundfile.write(folder / "segmented_wavs" / "gold" / f"sent_{number}.wav", wav, 16_000)
    return folder


def test_gold_segments_are_whole_wavs_in_the_order_of_their_numbers(tmp_path):
    folder = write_gold(tmp_path / "eval", range(1, 12), "x\n" * 11)
    segments, recordings = gold_segments(folder)
    assert [(s.recording, s.start, s.end) for s in segments] == [(f"sent_{n}.wav", 0, 1000 + n) for n in range(1, 12)]
    assert list(recordings) == [s.recording for s in segments]
    assert find_gold_references(folder, "de").recordings == tuple(recordings)
    assert find_gold_references(folder, "fr") is None


def test_a_missing_gold_wav_is_refused_because_later_lines_would_shift(tmp_path):
    folder = write_gold(tmp_path / "eval", (1, 3))
    with pytest.raises(UserError, match=r"expected sent_1\.wav to sent_3\.wav, 1 are missing \(first: 2\)"):
        find_gold_references(folder, "de")


def test_gold_text_and_wavs_must_be_as_many(tmp_path):
    with pytest.raises(UserError, match="expected 3 lines, .* got 2"):
        find_gold_references(write_gold(tmp_path / "eval", (1, 2, 3)), "de")


def test_line_by_line_needs_as_many_hypotheses_of_the_same_recordings(tmp_path):
    references = find_references(write_testset(tmp_path / "X", b"a\nb\n"), "en-de")
    check_line_by_line(references, ["b.wav", "a.wav"], "here")
    with pytest.raises(UserError, match="expected 2 hypotheses, .* got 1"):
        check_line_by_line(references, ["b.wav"], "here")
    with pytest.raises(UserError, match=r"here line 1: expected a hypothesis for b\.wav, .* got one for a\.wav"):
        check_line_by_line(references, ["a.wav", "b.wav"], "here")


@pytest.mark.parametrize("third", [1, 3])
def test_references_in_xml_name_their_recordings_and_come_in_the_order_of_the_test_set(tmp_path, third):
    folder, testset = tmp_path / "references", tmp_path / "testset"
    folder.mkdir()
    testset.mkdir()
    (folder / "en-de.xml").write_text(XML.replace("{third}", str(third)), encoding="utf-8")
    for name in ("a", "b"):
        soundfile.write(testset / f"{name}.wav", np.zeros(160, np.float32), 16_000)
    (testset / "FILE_ORDER").write_text("a\nb\n", encoding="utf-8")
    references = find_references(folder, "en-de", testset)
    assert references.lines == ("R&D", "Hund & Katze", "zwei Zeilen")
    assert references.recordings == ("a.wav", "b.wav", "b.wav")
    assert references.sha256 == sha256_file(folder / "en-de.xml")


def test_xml_that_lacks_a_segment_or_names_another_recording_is_refused(tmp_path):
    folder, testset = tmp_path / "references", tmp_path / "testset"
    folder.mkdir()
    testset.mkdir()
    soundfile.write(testset / "b.wav", np.zeros(160, np.float32), 16_000)
    (testset / "FILE_ORDER").write_text("b\n", encoding="utf-8")
    (folder / "en-de.xml").write_text(XML.replace("{third}", "4"), encoding="utf-8")
    with pytest.raises(UserError, match='expected <seg id="3">'):
        find_references(folder, "en-de", testset)
    (folder / "en-de.xml").write_text(XML.replace("{third}", "3"), encoding="utf-8")
    with pytest.raises(UserError, match="no recording 'a'"):
        find_references(folder, "en-de", testset)


def test_xml_with_a_nul_is_refused_by_its_line(tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (folder / "en-de.xml").write_text(XML.replace("{third}", "3").replace("R&", "R\0&"), encoding="utf-8")
    with pytest.raises(UserError, match=r"en-de\.xml line \d+: holds a NUL character"):
        find_references(folder, "en-de")


@pytest.mark.parametrize(
    ("pair", "text", "said"),
    [
        ("en-zh", "Das ist ein deutscher Satz.\nUnd noch einer.\n", "0 of 34 letters are Han .* at least 30%"),
        (
            "en-de",
            "这是一个中文句子，有很多汉字。\n这里还有另一个句子。\n",
            "22 of 22 letters are Han .* less than 30%",
        ),
    ],
)
def test_references_of_another_language_are_refused_with_the_numbers(tmp_path, pair, text, said):
    folder = write_testset(tmp_path / "X", b"")
    (folder / f"{pair}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        find_references(folder, pair)


def test_chinese_full_of_latin_terms_is_chinese(tmp_path):
    folder = write_testset(tmp_path / "X", b"")
    (folder / "en-zh.txt").write_text("我们用 BERT 微调模型，效果很好。\n这是 GPT 的输出结果。\n", encoding="utf-8")
    assert len(find_references(folder, "en-zh").lines) == 2


def test_the_open_set_is_read_from_xml_where_there_is_no_txt(tmp_path):
    folder = write_gold(tmp_path / "eval", (1, 2, 3))
    for path in (folder / "text" / "txt").glob("*"):
        path.unlink()
    (folder / "text" / "xml").mkdir()
    xml = folder / "text" / "xml" / "ACL.6060.eval.en-xx.de.xml"
    xml.write_text(XML.replace("{third}", "3"), encoding="utf-8")
    assert find_gold_references(folder, "de").lines == ("Hund & Katze", "zwei Zeilen", "R&D")


def test_references_without_a_line_are_refused(tmp_path):
    (tmp_path / "en-de.xml").write_text("<refset></refset>", encoding="utf-8")
    with pytest.raises(UserError, match="holds no lines"):
        references_of(tmp_path, "en-de")
