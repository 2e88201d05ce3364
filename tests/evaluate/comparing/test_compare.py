"""Comparing outputs of bundles, runs and files: matching ones are found, compared and shown."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from unicodedata import normalize

import pytest

from evaluate.__main__ import make_parser
from evaluate.decoding.hypotheses import Hypothesis, write_hypotheses
from evaluate.scoring.metrics import corpus_scores
from submission.cli import run
from submission.text.segments import Segment, segment_ids, write_segments

TALKS = [Segment(recording="b.wav", start=n * 16_000, end=(n + 1) * 16_000) for n in range(3)]
ACCENT = [Segment(recording="c.wav", start=0, end=16_000)]
GERMAN, CHINESE = ["Guten Tag.", "Ja.", ""], ["你好。", "对。", ""]


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def make_bundle(folder: Path) -> Path:
    """Write what is read of a bundle."""
    for name, segments in (("TALKS", TALKS), ("ACCENT", ACCENT)):
        (folder / "segments").mkdir(parents=True, exist_ok=True)
        write_segments(folder / "segments" / f"{name}.yaml", segments)
    write_lines(folder / "en-de" / "TALKS.txt", GERMAN)
    write_lines(folder / "en-de" / "ACCENT.txt", ["Hallo."])
    write_lines(folder / "en-zh" / "TALKS.txt", CHINESE)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder


def make_run(folder: Path, lines: list[str], segments: list[Segment] = TALKS, **about) -> Path:
    """Write what is read of the folder that a run leaves."""
    folder.mkdir()
    write_segments(folder / "segments.yaml", segments)
    ids = segment_ids(segments)
    write_hypotheses(
        folder / "hypotheses.jsonl", [Hypothesis(segment=s, text=t) for s, t in zip(ids, lines, strict=True)]
    )
    if about:
        (folder / "run.json").write_text(json.dumps({"segments": {}} | about), encoding="utf-8")
    return folder


def command(capsys, *arguments: object) -> tuple[int, str, str]:
    status = run(make_parser(), ["compare", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def rows(said: str) -> list[list[str]]:
    return [line.split()[:2] for line in said.split("\n\n")[0].splitlines()[1:-1]]


def test_bundles_are_compared_output_by_output(tmp_path, capsys):
    one, two = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two")
    write_lines(two / "en-de" / "TALKS.txt", ["Guten Tag.", "Nein.", ""])
    shutil.rmtree(two / "en-zh")
    status, said, _ = command(capsys, one, two)
    assert status == 0
    assert rows(said) == [["en-de/ACCENT", "1/1"], ["en-de/TALKS", "2/3"]]
    assert "chrF: A against B as reference, nrefs:1|" in said
    assert re.search(r"  b\.wav 1\.00-2\.00 s, chrF \d+\.\d\n    A: Ja\.\n    B: Nein\.\n", said)


def test_json_holds_the_figures_and_the_positions(tmp_path, capsys):
    one, two = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two")
    write_lines(two / "en-de" / "TALKS.txt", ["Guten Tag.", "Nein.", ""])
    status, said, _ = command(capsys, one, two, "--pair", "en-de", "--testset", "TALKS", "--json")
    (record,) = json.loads(said)
    assert (status, record["name"], record["comparison"]["identical"]) == (0, "en-de/TALKS", 2)
    assert record["comparison"]["worst"][0]["place"] == {
        "end": 32_000,
        "name": "b.wav/0001",
        "recording": "b.wav",
        "start": 16_000,
    }


def test_a_run_meets_the_output_of_its_pair_and_recordings_on_either_side(tmp_path, capsys):
    bundle, run_folder = make_bundle(tmp_path / "one"), make_run(tmp_path / "run", GERMAN, pair="en-de")
    for sides in ((bundle, run_folder), (run_folder, bundle)):
        status, said, _ = command(capsys, *sides)
        assert (status, rows(said)) == (0, [["en-de/TALKS", "3/3"]])


def test_outputs_without_a_pair_need_one_on_the_command_line(tmp_path, capsys):
    bundle, decoded = make_bundle(tmp_path / "one"), make_run(tmp_path / "run", GERMAN)
    status, _, error = command(capsys, decoded, bundle)
    assert status == 2
    assert "could be compared with en-de/TALKS, en-zh/TALKS; name the output itself" in error
    assert command(capsys, decoded / "hypotheses.jsonl", bundle, "--pair", "en-de")[0] == 0
    status, said, _ = command(capsys, decoded, bundle / "en-zh" / "TALKS.txt")
    assert (status, rows(said)) == (0, [["en-zh/TALKS", "1/3"]])


def test_text_files_take_their_segments_from_the_named_file(tmp_path, capsys):
    bundle = make_bundle(tmp_path / "one")
    write_lines(tmp_path / "theirs.txt", GERMAN)
    (tmp_path / "their.yaml").write_text(
        "".join(f"- wav: x/b.wav\n  offset: {n}\n  duration: 1.0\n" for n in range(3)), encoding="utf-8"
    )
    sides = (tmp_path / "theirs.txt", bundle / "en-de" / "TALKS.txt")
    status, said, _ = command(capsys, *sides, "--segments", tmp_path / "their.yaml")
    assert (status, rows(said)) == (0, [["en-de/TALKS", "3/3"]])
    write_lines(tmp_path / "theirs.txt", [*GERMAN, "more"])
    status, _, error = command(capsys, *sides, "--segments", tmp_path / "their.yaml")
    assert status == 2
    assert "theirs.txt: expected 3 lines, one a segment, got 4" in error
    status, _, error = command(capsys, *sides)
    assert status == 2
    assert "has 4 lines and " in error and "give their segments with --segments" in error


def test_runs_with_other_segments_are_compared_by_recording_and_marked(tmp_path, capsys):
    whole = [Segment(recording="b.wav", start=0, end=48_000)]
    one, two = make_run(tmp_path / "one", GERMAN), make_run(tmp_path / "two", ["Guten Tag. Ja."], whole)
    status, said, _ = command(capsys, one, two)
    assert status == 0
    assert "1/1 recordings (100.0%)" in said
    assert "segmented differently: whole recordings are compared" in said


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (("nowhere", "run"), "nowhere: no such file or folder"),
        (("empty", "run"), "empty: holds neither manifest.json nor hypotheses.jsonl"),
        (("run", "other"), "nothing in common: "),
        (("run", "torn"), "its 2 hypotheses are not those of the 3 segments"),
        (("run", "bad.txt"), "bad.txt line 1: byte 0 (0xff) is not UTF-8"),
        (("bundle", "run", "--pair", "en-fr"), "one side has no such output"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused_by_name(tmp_path, monkeypatch, capsys, sides, message):
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "bundle")
    make_run(tmp_path / "run", GERMAN)
    make_run(tmp_path / "other", ["x"], ACCENT)
    torn = make_run(tmp_path / "torn", GERMAN) / "hypotheses.jsonl"
    torn.write_bytes(b"".join(torn.read_bytes().splitlines(keepends=True)[:2]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_bytes(b"\xff\n")
    status, _, error = command(capsys, *sides)
    assert status == 2
    assert message in error


# --- against references ---

BETTER = ["Guten Tag zusammen.", "Ja, das stimmt.", "Auf Wiedersehen."]
WORSE = ["Guten Abend zusammen.", "Nein.", ""]
REFERENCE = ["Guten Tag zusammen.", "Ja, das ist so.", "Auf Wiedersehen."]


def make_references(folder: Path, lines: list[str] = REFERENCE, segments: list[Segment] = TALKS, pair="en-de") -> Path:
    """Write a test set's references as organisers keep them."""
    write_lines(folder / f"{pair}.txt", lines)
    write_segments(folder / "segments.yaml", segments)
    return folder


def test_both_are_scored_as_the_scorer_scores_and_the_difference_has_an_interval(tmp_path, capsys):
    a = make_run(tmp_path / "a", BETTER, pair="en-de")
    b = make_run(tmp_path / "b", WORSE, pair="en-de")
    references = make_references(tmp_path / "references")
    status, said, _ = command(capsys, a, b, "--references", references, "--json")
    assert status == 0
    paired = json.loads(said)[0]["paired"]
    assert paired["by_line"] == [True, True] and paired["lines"] == 3
    figures = {one["metric"]: one for one in paired["differences"]}
    for side, lines in (("first", BETTER), ("second", WORSE)):
        expected = {one.metric: one.value for one in corpus_scores(lines, REFERENCE, "de")}
        assert {metric: one[side] for metric, one in figures.items()} == expected
    assert figures["BLEU"]["difference"] < 0 < figures["TER"]["difference"]
    assert figures["chrF"]["low"] <= figures["chrF"]["difference"] <= figures["chrF"]["high"]
    status, said, _ = command(capsys, a, b, "--references", references)
    assert f"against 3 lines of {references}/en-de.txt, line by line:" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")][:3] == ["A", "BLEU", "chrF"]


def test_decomposed_references_are_named_and_compared_in_one_form_only_on_request(tmp_path, capsys):
    texts = ["Schöne Grüße.", "Ja, das hört man.", "Auf Wiedersehen."]
    a, b = make_run(tmp_path / "a", texts, pair="en-de"), make_run(tmp_path / "b", WORSE, pair="en-de")
    references = make_references(tmp_path / "references", [normalize("NFD", text) for text in texts])
    plain = json.loads(command(capsys, a, b, "--references", references, "--json")[1])[0]["paired"]
    assert f"2 of 3 lines of {references}/en-de.txt are not in composed Unicode (NFC)" in plain["note"]
    assert plain["differences"][0]["first"] < 100 and "unicode" not in plain["differences"][0]["signature"]
    assert plain["note"] in command(capsys, a, b, "--references", references)[1]
    options = ["--references", references, "--normalize", "NFC"]
    composed = json.loads(command(capsys, a, b, *options, "--json")[1])[0]["paired"]
    assert composed["differences"][0]["first"] == pytest.approx(100) and composed["note"] == ""
    assert all(one["signature"].endswith("|unicode:NFC") for one in composed["differences"])
    assert "line by line, compared in NFC:" in command(capsys, a, b, *options)[1]
    status, _, error = command(capsys, a, b, "--normalize", "NFC")
    assert status == 2 and "add --references DIR" in error


def test_an_output_with_other_segments_is_resegmented_along_the_references(tmp_path, capsys):
    a = make_run(tmp_path / "a", BETTER, pair="en-de")
    halves = [Segment(recording="b.wav", start=n * 24_000, end=(n + 1) * 24_000) for n in range(2)]
    b = make_run(tmp_path / "b", ["Guten Tag zusammen. Ja,", "das stimmt. Auf Wiedersehen."], halves, pair="en-de")
    references = make_references(tmp_path / "references")
    status, said, _ = command(capsys, a, b, "--references", references, "--json")
    assert status == 0
    paired = json.loads(said)[0]["paired"]
    assert paired["by_line"] == [True, False]
    assert all(one["difference"] == 0 and one["p_value"] == 1 for one in paired["differences"])
    assert "B resegmented along them:" in command(capsys, a, b, "--references", references)[1]


def test_each_output_may_have_its_recordings_in_another_order(tmp_path, capsys):
    spoken = {"b.wav": ("Ja, das stimmt.", "Ja, das ist so."), "c.wav": ("Guten Tag.", "Guten Abend allerseits.")}
    segments = {name: Segment(recording=name, start=0, end=16_000) for name in spoken}
    a, b = (
        make_run(tmp_path / side, [spoken[name][0] for name in order], [segments[n] for n in order], pair="en-de")
        for side, order in (("a", ["b.wav", "c.wav"]), ("b", ["c.wav", "b.wav"]))
    )
    order = ["c.wav", "b.wav"]
    references = make_references(
        tmp_path / "references", [spoken[name][1] for name in order], [segments[n] for n in order]
    )
    paired = json.loads(command(capsys, a, b, "--references", references, "--json")[1])[0]["paired"]
    assert paired["by_line"] == [True, True]
    expected = corpus_scores([spoken[n][0] for n in order], [spoken[n][1] for n in order], "de")
    figures = [(one["first"], one["second"]) for one in paired["differences"]]
    assert figures == [(figure.value, figure.value) for figure in expected]


def test_as_many_lines_of_other_lengths_are_resegmented_too(tmp_path, capsys):
    others = [Segment(recording="b.wav", start=s, end=e) for s, e in ((0, 1_000), (1_000, 2_000), (2_000, 48_000))]
    b = make_run(tmp_path / "b", ["Guten", "Tag", "zusammen. Ja, das stimmt. Auf Wiedersehen."], others, pair="en-de")
    a = make_run(tmp_path / "a", BETTER, pair="en-de")
    references = make_references(tmp_path / "references")
    paired = json.loads(command(capsys, a, b, "--references", references, "--json")[1])[0]["paired"]
    assert paired["by_line"] == [True, False] and paired["differences"][0]["difference"] == 0


def test_each_output_of_bundles_meets_the_references_of_its_test_set(tmp_path, capsys):
    a, b = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    write_lines(b / "en-de" / "TALKS.txt", ["Guten Abend.", "Ja.", "Ende."])
    make_references(tmp_path / "references" / "TALKS")
    status, said, _ = command(capsys, a, b, "--references", tmp_path / "references", "--json")
    assert status == 0
    found = {one["name"]: one["paired"] for one in json.loads(said)}
    assert found["en-de/TALKS"]["lines"] == 3
    assert found["en-de/ACCENT"] is None and found["en-zh/TALKS"] is None
    said = command(capsys, a, b, "--references", tmp_path / "references")[1]
    assert said.count("against 3 lines") == 1 and "p: two-sided p-value" in said


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: None, ["--references", "nowhere"], "nowhere: no such folder"),
        (lambda folder: (folder / "en-de.txt").unlink(), [], "holds no references for"),
        (lambda folder: write_lines(folder / "en-de.txt", REFERENCE[:2]), [], "expected 3 lines, one for each entry"),
        (
            lambda folder: write_lines(folder / "en-de.txt", ["你好，世界，你好吗？"] * 3),
            [],
            "letters are Han characters",
        ),
        (
            lambda folder: make_references(folder, segments=[*TALKS[:2], *ACCENT]),
            [],
            None,  # the recording that has no hypothesis counts as blank lines
        ),
        (
            lambda folder: make_references(folder, segments=ACCENT * 3),
            [],
            "recordings have no reference line (first: b.wav)",
        ),
    ],
)
def test_references_that_do_not_fit_are_refused(tmp_path, monkeypatch, capsys, change, options, message):
    monkeypatch.chdir(tmp_path)
    a, b = make_run(tmp_path / "a", BETTER, pair="en-de"), make_run(tmp_path / "b", WORSE, pair="en-de")
    references = make_references(tmp_path / "references")
    change(references)
    status, _, error = command(capsys, a, b, *(options or ["--references", references]))
    assert (status, error) == (0, "") if message is None else status == 2 and message in error


def test_text_files_that_name_no_recordings_answer_line_by_line_or_not_at_all(tmp_path, capsys):
    for name, lines in (("a", BETTER), ("b", WORSE), ("c", WORSE[:2])):
        write_lines(tmp_path / name / "out.txt", lines)
    references = make_references(tmp_path / "references")
    named = ["--references", references]
    status, _, error = command(capsys, tmp_path / "a/out.txt", tmp_path / "b/out.txt", *named)
    assert status == 2 and "the pair of the outputs is unknown; name it with --pair" in error
    named += ["--pair", "en-de"]
    assert command(capsys, tmp_path / "a/out.txt", tmp_path / "b/out.txt", *named)[0] == 0
    write_lines(tmp_path / "a" / "out.txt", BETTER[:2])
    status, _, error = command(capsys, tmp_path / "a/out.txt", tmp_path / "c/out.txt", *named)
    assert status == 2 and "has 2 lines" in error and "give its segments with --segments" in error


ESCAPE = "\x1b[2J\u202e"


@pytest.mark.parametrize("name", ["talk", f"talk{ESCAPE}"])
def test_names_of_strangers_are_printed_with_their_control_characters_spelled_out(capsys, tmp_path, name):
    lines = {"a": ["Guten Tag.", "Ja."], "b": ["Guten Abend.", "Nein."]}
    for side, texts in lines.items():
        ids = [f"{name}.wav/0000", f"{name}.wav/0001"]
        (tmp_path / side).mkdir()
        found = [Hypothesis(segment=s, text=t) for s, t in zip(ids, texts, strict=True)]
        write_hypotheses(tmp_path / side / "hypotheses.jsonl", found)
    status, said, _ = command(capsys, tmp_path / "a", tmp_path / "b")
    assert status == 0 and "identical" in said
    assert all(c.isprintable() or c == "\n" for c in said)
    assert (r"talk\x1b[2J\u202e.wav" in said) == (name != "talk")
    status, _, error = command(capsys, tmp_path / f"{name}.txt", tmp_path / "b")
    assert status == 2 and "no such file" in error
    assert all(c.isprintable() or c == "\n" for c in error)


def test_a_bundles_outputs_behind_links_and_pipes_are_not_opened(capsys, tmp_path):
    other = make_run(tmp_path / "run", GERMAN, pair="en-de")
    bundle = make_bundle(tmp_path / "bundle")
    assert command(capsys, bundle, other, "--testset", "TALKS")[0] == 0
    (bundle / "en-de" / "ACCENT.txt").unlink()
    (bundle / "en-de" / "ACCENT.txt").symlink_to("/dev/zero")
    (bundle / "en-zh" / "TALKS.txt").unlink()
    os.mkfifo(bundle / "en-zh" / "TALKS.txt")
    status, said, _ = command(capsys, bundle, other)
    assert status == 0 and [row[0] for row in rows(said)] == ["en-de/TALKS"]
    (other / "run.json").unlink()
    os.mkfifo(other / "run.json")
    assert command(capsys, bundle, other, "--pair", "en-de")[0] == 0
    (bundle / "segments" / "TALKS.yaml").unlink()
    os.mkfifo(bundle / "segments" / "TALKS.yaml")
    status, _, error = command(capsys, bundle, other)
    assert status == 2 and "TALKS.yaml: is not a regular file" in error
