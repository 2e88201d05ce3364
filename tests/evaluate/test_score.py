"""Figures: sacrebleu's to the digit, and all that they rest on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from evaluate.hypotheses import make_hypothesis, write_hypotheses
from evaluate.references import References
from evaluate.score import Decoded, corpus_scores, score_testset, write_scores
from evaluate.table import table
from submission.digest import sha256_file
from submission.errors import UserError

GERMAN = (
    ["Der Hund läuft schnell nach Hause.", "Wir treffen uns um 9:30 Uhr, nicht später!", "", "Das ist gut."],
    ["Der Hund rennt schnell nach Hause.", "Wir treffen uns um 9.30 Uhr, nicht früher!", "Ja.", "Das ist sehr gut."],
)
CHINESE = (
    ["他有三本书。", "我们用BERT模型做翻译。", "今天天气很好"],
    ["他有四本书。", "我们使用 BERT 模型进行翻译。", "今天的天气非常好。"],
)


def lines_of(values):
    return [(name, round(value, 4), signature) for name, value, signature in values]


def test_golden_german():
    assert lines_of(corpus_scores(*GERMAN, "de")) == [
        ("BLEU", 35.1116, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"),
        ("chrF", 67.4783, "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
    ]


def test_golden_chinese():
    assert lines_of(corpus_scores(*CHINESE, "zh")) == [
        ("BLEU", 24.9482, "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"),
        ("chrF", 35.3654, "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
    ]


@pytest.mark.parametrize(("texts", "language"), [(GERMAN, "de"), (CHINESE, "zh")])
def test_figures_equal_sacrebleus_own_command_line_to_the_digit(tmp_path, texts, language):
    for name, lines in zip(("hyp", "ref"), texts, strict=True):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-l", f"en-{language}", "-m", "bleu", "chrf"]
    result = subprocess.run(
        [*command, "-w", "12", "--format", "json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    theirs = [(entry["score"], entry["signature"]) for entry in json.loads(result.stdout)]
    ours = [(round(value, 12), signature) for _, value, signature in corpus_scores(*texts, language)]
    assert ours == theirs


def decoded(folder, hypotheses, references, given, language="de"):
    """hypotheses: (segment id, text); references: (recording, line)."""
    folder.mkdir(exist_ok=True)
    write_hypotheses(folder / "hypotheses.jsonl", [make_hypothesis(*h) for h in hypotheses])
    if references is not None:
        path = folder / "references.txt"
        path.write_text("".join(f"{line}\n" for _, line in references), encoding="utf-8")
        references = References(
            path=path,
            lines=tuple(line for _, line in references),
            recordings=tuple(recording for recording, _ in references),
            sha256=sha256_file(path),
        )
    return Decoded(
        testset="ACL",
        pair=f"en-{language}",
        language=language,
        hypotheses=folder / "hypotheses.jsonl",
        references=references,
        given=given,
    )


PAIRS = [
    ("a.wav", "Der Hund läuft nach Hause."),
    ("a.wav", "Die Katze schläft im Garten."),
    ("b.wav", "Ja, das stimmt so."),
]


def test_a_given_segmentation_is_scored_line_by_line(tmp_path):
    hypotheses = [("a.wav/0000", PAIRS[0][1]), ("a.wav/0001", PAIRS[1][1]), ("b.wav/0000", PAIRS[2][1])]
    one = decoded(tmp_path / "x", hypotheses, PAIRS, given=True)
    scores, summary = score_testset(one)
    assert [(s.metric, s.value, s.segments, s.references, s.resegmented) for s in scores] == [
        ("BLEU", 100.0, 3, 3, False),
        ("chrF", 100.0, 3, 3, False),
    ]
    assert {s.data_sha256 for s in scores} == {sha256_file(tmp_path / "x" / "references.txt")}
    assert {s.hypotheses_sha256 for s in scores} == {sha256_file(one.hypotheses)}
    assert (summary.references, summary.note) == (3, "")


def test_a_free_segmentation_is_cut_along_the_references_first(tmp_path):
    hypotheses = [
        ("a.wav/0000", "Der Hund läuft nach"),
        ("a.wav/0001", "Hause. Die Katze schläft im Garten."),
        ("b.wav/0000", ""),
        ("b.wav/0001", "Ja, das stimmt so."),
    ]
    scores, summary = score_testset(decoded(tmp_path / "x", hypotheses, PAIRS, given=False))
    assert [(s.value, s.segments, s.references, s.resegmented) for s in scores] == [(100.0, 4, 3, True)] * 2
    assert {flag: count for flag, count in summary.flags.items() if count} == {"blank": 1}


def test_free_chinese_is_cut_by_character(tmp_path):
    references = [("a.wav", "他有三本书。"), ("a.wav", "今天天气很好。")]
    hypotheses = [("a.wav/0000", "他有三"), ("a.wav/0001", "本书。今天天气很好。")]
    scores, _ = score_testset(decoded(tmp_path / "x", hypotheses, references, given=False, language="zh"))
    assert [s.value for s in scores] == [100.0, 100.0]
    assert "tok:zh" in scores[0].signature


def test_given_segments_that_were_not_all_decoded_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected 3 hypotheses"):
        score_testset(decoded(tmp_path / "x", [("a.wav/0000", "x")], PAIRS, given=True))


def test_scores_json_is_sorted_and_says_what_was_not_computed(tmp_path):
    hypotheses = [("a.wav/0000", "Ja."), ("a.wav/0001", "", ["too_short"])]
    german = score_testset(decoded(tmp_path / "de", hypotheses, [("a.wav", "Ja."), ("a.wav", "Nein.")], given=True))
    chinese = score_testset(decoded(tmp_path / "zh", hypotheses, None, given=True, language="zh"))
    write_scores(tmp_path / "s", [*chinese[0], *reversed(german[0])], [chinese[1], german[1]])
    record = json.loads((tmp_path / "s").read_text(encoding="utf-8"))
    assert [(s["pair"], s["metric"]) for s in record["scores"]] == [("en-de", "BLEU"), ("en-de", "chrF")]
    assert sorted(record["scores"][0]) == [
        "data_sha256",
        "hypotheses_sha256",
        "metric",
        "pair",
        "references",
        "resegmented",
        "segments",
        "signature",
        "testset",
        "value",
    ]
    assert [(t["pair"], t["note"], t["references"]) for t in record["testsets"]] == [
        ("en-de", "", 2),
        ("en-zh", "not scored: no references", None),
    ]
    assert record["comet"]["state"] == "not computed"
    assert record["comet"]["reason"]
    assert "value" not in record["comet"]


def test_the_table_has_a_row_for_every_test_set(tmp_path):
    hypotheses = [("a.wav/0000", "Ja."), ("a.wav/0001", "", ["too_short"])]
    german = score_testset(decoded(tmp_path / "de", hypotheses, [("a.wav", "Ja."), ("a.wav", "Nein.")], given=True))
    chinese = score_testset(decoded(tmp_path / "zh", hypotheses, None, given=True, language="zh"))
    write_scores(tmp_path / "s", german[0], [chinese[1], german[1]])
    lines = table(json.loads((tmp_path / "s").read_text(encoding="utf-8"))).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[3:7] == ["segments", "blank", "truncated", "too"]
    assert lines[1].split()[:6] == ["en-de", "ACL", "2", "1", "0", "1"]
    assert lines[2].endswith("not scored: no references")
    assert lines[3].startswith("COMET: not computed: ")
