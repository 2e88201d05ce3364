"""Translation of a folder of recordings with references: scored and drawn, or refused before anything is decoded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import soundfile

from evaluate.decoding.hypotheses import read_hypotheses
from evaluate.scoring.metrics import corpus_scores
from submission.store.digests import describe_files
from submission.text.segments import SAMPLE_RATE, Segment, write_segments
from tests.evaluate.recordings.support import GIVEN, YAML, arguments, command


def make_references(folder: Path, lines: list[str], segments: list[Segment] = GIVEN, pair: str = "en-de") -> Path:
    folder.mkdir()
    (folder / f"{pair}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_segments(folder / "segments.yaml", segments)
    return folder


def test_a_folder_with_references_is_scored_and_drawn(bundled, audio, tmp_path, capsys):
    (audio / "segments.yaml").write_text(YAML, encoding="utf-8")
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert command(arguments(bundled, audio, plain), capsys)[0] == 0
    said = [hypothesis.text for hypothesis in read_hypotheses(plain / "hypotheses.jsonl")]
    lines = ["Hallo.", said[1], "Etwas <b>ganz</b> anderes."]
    references = make_references(tmp_path / "references", lines)
    options = ["--references", str(references)]
    status, printed, _ = command([*arguments(bundled, audio, out), *options], capsys)
    assert status == 0
    assert "3 reference lines, line by line" in printed and "report.html beside it" in printed
    scores = {score["metric"]: score for score in json.loads((out / "translation_report.json").read_text())["scores"]}
    expected = {figure.metric: round(figure.value, 4) for figure in corpus_scores(said, lines, "de")}
    assert {metric: score["value"] for metric, score in scores.items()} == expected
    compared = [json.loads(line) for line in (out / "lines.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["hypothesis"], line["reference"]) for line in compared] == list(zip(said, lines, strict=True))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Etwas &lt;b&gt;ganz&lt;/b&gt; anderes." in page and "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert scores["BLEU"]["data_sha256"] in page and str(tmp_path) not in page
    assert (out / "lines.png").stat().st_size > 5000 and (out / "quality.svg").is_file()

    # What was decoded without references is scored afterwards, and the other way round.
    assert command([*arguments(bundled, audio, plain), *options], capsys)[0] == 0
    assert describe_files(plain) == describe_files(out)
    assert command(arguments(bundled, audio, out), capsys)[0] == 0
    assert json.loads((out / "translation_report.json").read_text())["scores"] == []
    assert command(arguments(bundled, audio, tmp_path / "fresh"), capsys)[0] == 0
    assert describe_files(out) == describe_files(tmp_path / "fresh")


def test_references_in_another_unicode_form_are_named_and_scored_in_one_form_on_request(
    bundled, audio, tmp_path, capsys
):
    (audio / "segments.yaml").write_text(YAML, encoding="utf-8")
    references = make_references(tmp_path / "references", ["Schöne", normalize("NFD", "Grüße"), "an alle."])
    options = [*arguments(bundled, audio, tmp_path / "out"), "--references", str(references)]
    assert "1 of 3 lines of references/en-de.txt are not in composed Unicode" in command(options, capsys)[1]
    printed = command([*options, "--normalize", "NFC"], capsys)[1]
    assert "|unicode:NFC" in printed and "not in composed Unicode" not in printed


def test_a_silent_folder_is_scored_and_references_of_what_is_not_there_are_left_out(bundled, tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "quiet.wav", np.zeros(5 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "en-de.xml").write_text(
        '<doc docid="quiet">\n<seg id="1">Wo ist es?</seg></doc><doc docid="gone"><seg id="1">Ja.</seg></doc>'
    )
    out, options = tmp_path / "out", ["--method", "vad", "--references", str(tmp_path / "references")]
    status, printed, _ = command([*arguments(bundled, tmp_path / "audio", out), *options], capsys)
    assert status == 0 and "decoded: nothing, there are no segments" in printed
    assert "missing from the folder: 1 recording with references: gone" in printed
    assert "BLEU: 0.00 (0.00 to 0.00), 1 reference lines" in printed
    lines = [json.loads(line) for line in (out / "lines.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["recording"], line["hypothesis"]) for line in lines] == [("quiet.wav", "")]


def test_own_segments_are_resegmented_along_the_references(bundled, audio, tmp_path, capsys):
    references = make_references(tmp_path / "references", ["Eins.", "Zwei.", "Drei."])
    options = ["--method", "fixed", "--references", str(references)]
    status, printed, _ = command([*arguments(bundled, audio, tmp_path / "out"), *options], capsys)
    assert status == 0 and "3 reference lines, resegmented along them" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder; name the folder that holds the references"),
        (lambda folder: (folder / "en-de.txt").unlink(), "holds no references for en-de"),
        (lambda folder: (folder / "en-de.txt").write_text("eins\n"), "expected 3 lines, one for each entry"),
        (lambda folder: (folder / "en-de.txt").write_bytes(b"\xff\n" * 3), "is not UTF-8"),
        (lambda folder: (folder / "en-de.txt").write_bytes(b"a\n\0\nb\n"), "line 2: holds a NUL"),
        (lambda folder: (folder / "en-de.txt").write_text("你好你好你好你好\n" * 3), "letters are Han characters"),
        (
            lambda folder: write_segments(folder / "segments.yaml", [GIVEN[0]] * 3),
            "--audio: 1 of 2 recordings have no reference line (first: b.wav)",
        ),
    ],
)
def test_references_that_do_not_fit_are_refused_before_anything_is_decoded(
    bundled, audio, tmp_path, capsys, change, message
):
    references = make_references(tmp_path / "references", ["Eins.", "Zwei.", "Drei."])
    change(references)
    out = tmp_path / "out"
    status, _, error = command([*arguments(bundled, audio, out), "--references", str(references)], capsys)
    assert status == 2 and message in error
    assert not out.exists()
