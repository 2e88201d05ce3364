"""Reference alignment: names, order, and whether the lines of an output correspond to those of its references."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluate.comparing.comparison import LinePosition
from evaluate.scoring.reference_alignment import align_references
from evaluate.scoring.references import References, references_of
from submission.errors import UserError
from tests.evaluate.support import XML


def given(tmp_path, recordings: list[str], starts: list[int] | None = None) -> References:
    """Return references of a line for each of these recordings, which last two seconds from these ones on."""
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "en-de.txt").write_text("".join(f"Zeile {n}\n" for n in range(len(recordings))), encoding="utf-8")
    entries = [
        f"- {{wav: {name}, offset: {start}, duration: 2}}\n"
        for name, start in zip(recordings, starts or range(0, 100, 2), strict=False)
    ]
    (folder / "segments.yaml").write_text("".join(entries), encoding="utf-8")
    return references_of(folder, "en-de")


def places(*of: tuple[str, float, float]) -> list[LinePosition]:
    return [LinePosition(recording=r, start=round(s * 16_000), end=round(e * 16_000)) for r, s, e in of]


def test_lines_answer_lines_whatever_order_the_file_has_the_recordings_in(tmp_path):
    references = given(tmp_path, ["b.wav", "b.wav", "a.wav", "b.wav"], [0, 3, 0, 6])
    fit, own = align_references(
        references, places(("a.wav", 0, 2), ("b.wav", 0, 2), ("b.wav", 3, 5), ("b.wav", 6, 8)), "here"
    )
    assert own and fit.lines == ("Zeile 2", "Zeile 0", "Zeile 1", "Zeile 3")
    again, own = align_references(
        fit, places(("a.wav", 0, 2), ("b.wav", 0, 2), ("b.wav", 3, 5), ("b.wav", 6, 8)), "here"
    )
    assert own and again == fit
    _, own = align_references(fit, places(("a.wav", 0, 2), ("b.wav", 0, 2), ("b.wav", 3, 5), ("b.wav", 9, 11)), "here")
    assert not own


def test_gold_wavs_are_answered_in_any_order_of_their_names(tmp_path):
    names = [f"sent_{n}.wav" for n in range(1, 13)]
    fit, own = align_references(given(tmp_path, names, [0] * 12), places(*((n, 0, 2) for n in sorted(names))), "here")
    assert own and fit.recordings == tuple(sorted(names)) and fit.lines[1] == "Zeile 9"


@pytest.mark.parametrize(("shift", "own"), [(0.5, True), (-0.4, True), (0.6, False)])
def test_half_a_second_makes_no_other_segment(tmp_path, shift, own):
    references = given(tmp_path, ["a.wav", "a.wav"], [1, 4])
    assert align_references(references, places(("a.wav", 1, 3), ("a.wav", 4 + shift, 6)), "here")[1] is own
    assert align_references(references, places(("a.wav", 1, 3), ("a.wav", 4, 6 + shift)), "here")[1] is own


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("talk", "talk.mp3"),
        ("talk.wav", "talk.WAV"),
        ("talk.wav", "talk.mp3"),
        ("2022.110", "2022.110.wav"),
        ("Gru\u0308n.wav", "Gr\u00fcn.wav"),
        ("a/b/talk.wav", "talk.wav"),
    ],
)
def test_a_recording_is_meant_with_or_without_its_extension(tmp_path, name, file):
    fit, own = align_references(given(tmp_path, [name]), places((file, 0, 2)), "here")
    assert own and fit.recordings == (file,)


def test_of_two_files_with_one_stem_the_one_that_is_named_is_meant(tmp_path):
    both = places(("a.flac", 0, 2), ("a.wav", 2, 4))
    fit, own = align_references(given(tmp_path, ["a.wav", "a.flac"], [2, 0]), both, "here")
    assert own and fit.lines == ("Zeile 1", "Zeile 0")
    with pytest.raises(UserError, match="2 of 2 recordings have no reference line"):
        align_references(replace(fit, recordings=("a", "a")), both, "here")


def test_xml_with_several_lines_of_a_recording_gives_no_positions(tmp_path):
    (tmp_path / "en-de.xml").write_text(XML.replace("{third}", "3"), encoding="utf-8")
    references = references_of(tmp_path, "en-de")
    counted = [(recording, 0.0, 1.0) for recording in references.recordings]
    assert not align_references(references, places(*counted), "here")[1]
