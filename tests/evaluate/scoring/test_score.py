"""Figures: sacrebleu's to the digit, and all that they rest on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from unicodedata import normalize

import pytest

from evaluate.decoding.hypotheses import make_hypothesis, write_hypotheses
from evaluate.scoring.metrics import corpus_scores
from evaluate.scoring.references import References
from evaluate.scoring.score import DecodedTestSet, gather, score_testset
from evaluate.scoring.score_files import read_testset_scores, write_testset_scores
from evaluate.scoring.score_table import table
from evaluate.scoring.unicode_form import form_note
from evaluate.system_stages import scored_form_note
from submission.errors import UserError
from submission.store.digests import sha256_file

GERMAN = (
    ["Der Hund läuft schnell nach Hause.", "Wir treffen uns um 9:30 Uhr, nicht später!", "", "Das ist gut."],
    ["Der Hund rennt schnell nach Hause.", "Wir treffen uns um 9.30 Uhr, nicht früher!", "Ja.", "Das ist sehr gut."],
)
CHINESE = (
    ["他有三本书。", "我们用BERT模型做翻译。", "今天天气很好"],
    ["他有四本书。", "我们使用 BERT 模型进行翻译。", "今天的天气非常好。"],
)


SACREBLEU = {"de": [], "zh": ["--ter-normalized", "--ter-asian-support"]}
"""Target language -> options with which sacrebleu's command line takes the settings of ours."""


def shown(figures):
    return [(f.metric, round(f.value, 4), f.signature) for f in figures]


def test_scores_and_signatures_of_german_stay_as_they_are():
    assert shown(corpus_scores(*GERMAN, "de")) == [
        ("BLEU", 35.1116, "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"),
        ("chrF", 67.4783, "nrefs:1|bs:1000|seed:12345|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
        ("TER", 26.3158, "nrefs:1|bs:1000|seed:12345|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:2.6.0"),
    ]


def test_scores_and_signatures_of_chinese_stay_as_they_are():
    assert shown(corpus_scores(*CHINESE, "zh")) == [
        ("BLEU", 24.9482, "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"),
        ("chrF", 35.3654, "nrefs:1|bs:1000|seed:12345|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
        ("TER", 29.6296, "nrefs:1|bs:1000|seed:12345|case:lc|tok:tercom|norm:yes|punct:yes|asian:yes|version:2.6.0"),
    ]


def theirs(folder, texts, language, *options):
    """Return what sacrebleu's command line prints as JSON, with its own default seed."""
    for name, lines in zip(("hyp", "ref"), texts, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "ref",
        "-i",
        "hyp",
        "-l",
        f"en-{language}",
        "-m",
        "bleu",
        "chrf",
        "ter",
    ]
    result = subprocess.run(
        [*command, *SACREBLEU[language], "-w", "12", "--format", "json", *options],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize(("texts", "language"), [(GERMAN, "de"), (CHINESE, "zh")])
def test_figures_and_intervals_equal_sacrebleus_own_command_line_to_the_digit(tmp_path, texts, language):
    texts = [lines * 5 for lines in texts]
    entries, figures = theirs(tmp_path, texts, language, "--confidence"), corpus_scores(*texts, language)
    assert [(round(f.value, 12), f.signature) for f in figures] == [(e["score"], e["signature"]) for e in entries]
    widths = [f"{(f.high - f.low) / 2:.4f}" for f in figures]
    assert widths == [f"{entry['confidence_var']:.4f}" for entry in entries]
    assert all(f.low < f.value < f.high for f in figures)


def test_plain_figures_equal_sacrebleus_too(tmp_path):
    entries = theirs(tmp_path, GERMAN, "de")
    assert [round(f.value, 12) for f in corpus_scores(*GERMAN, "de")] == [entry["score"] for entry in entries]


def test_a_damaged_line_widens_the_interval_and_equal_lines_leave_none():
    same = corpus_scores(["Ja, das ist gut."] * 8, ["Ja, das ist gut."] * 8, "de")
    assert [(round(f.low, 9), round(f.high, 9)) for f in same] == [(100.0, 100.0), (100.0, 100.0), (0.0, 0.0)]
    one_wrong = corpus_scores(["Ja, das ist gut."] * 7 + ["Nein."], ["Ja, das ist gut."] * 8, "de")
    assert all(f.low < f.high for f in one_wrong)


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
            numbers=tuple(range(len(references))),
        )
    return DecodedTestSet(
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
    cell = score_testset(one)
    scores, summary = cell.scores, cell.summary
    assert [(s.metric, s.value, s.segments, s.references, s.resegmented) for s in scores] == [
        ("BLEU", 100.0, 3, 3, False),
        ("chrF", 100.0, 3, 3, False),
        ("TER", 0.0, 3, 3, False),
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
    cell = score_testset(decoded(tmp_path / "x", hypotheses, PAIRS, given=False))
    scores, summary = cell.scores, cell.summary
    assert [(s.value, s.segments, s.references, s.resegmented) for s in scores[:2]] == [(100.0, 4, 3, True)] * 2
    assert {flag: count for flag, count in summary.flags.items() if count} == {"blank": 1}


@pytest.mark.parametrize("given", [True, False])
def test_outputs_take_the_form_of_references_that_have_one_and_the_signature_says_so(tmp_path, given):
    hypotheses = [(f"{PAIRS[n][0]}/{n:04d}", normalize("NFD", PAIRS[n][1])) for n in range(3)]
    one = decoded(tmp_path / "x", hypotheses, PAIRS, given)
    plain = score_testset(one)
    assert plain.scores[0].value < 100
    composed = score_testset(replace(one, references=one.references.in_form("NFC")))
    assert composed.scores[0].value == 100
    for before, after in zip(plain.scores, composed.scores, strict=True):
        assert after.signature == f"{before.signature}|unicode:NFC"


@pytest.mark.parametrize(
    ("output", "reference", "said"),
    [
        (["für", "ja"], ["für", "ja"], ""),
        (["für", "ja"], [normalize("NFD", "für"), "ja"], "1 of 2 lines of en-de.txt are not"),
        ([normalize("NFD", "für"), "ja"], ["für", "ja"], "1 of 2 lines of output are not"),
        ([normalize("NFD", "für"), "ja"], [normalize("NFD", "für"), "ja"], ""),
        (
            [normalize("NFD", "für"), "ü"],
            [normalize("NFD", "für"), "ü"],
            "output and 1 of 2 lines of en-de.txt are not",
        ),
        (["ja", "nein"], [normalize("NFD", "für"), "ja"], ""),
    ],
)
def test_unicode_forms_are_named_where_they_can_cost_a_match(output, reference, said):
    note = form_note({"output": output, "en-de.txt": reference})
    assert said in note and bool(said) == bool(note)


def test_the_compared_lines_of_a_stage_tell_that_forms_differ_whenever_it_is_asked(tmp_path):
    references = [(recording, normalize("NFD", line)) for recording, line in PAIRS]
    hypotheses = [(f"{PAIRS[n][0]}/{n:04d}", PAIRS[n][1]) for n in range(3)]
    cell = score_testset(decoded(tmp_path / "x", hypotheses, references, given=True))
    write_testset_scores(tmp_path, cell)
    note = scored_form_note(tmp_path, tmp_path / "en-de.txt")
    assert note.startswith(
        f"2 of 3 lines of {tmp_path}/en-de.txt are not in composed Unicode (NFC), those of its output"
    )


def test_free_chinese_is_cut_by_character(tmp_path):
    references = [("a.wav", "他有三本书。"), ("a.wav", "今天天气很好。")]
    hypotheses = [("a.wav/0000", "他有三"), ("a.wav/0001", "本书。今天天气很好。")]
    scores = score_testset(decoded(tmp_path / "x", hypotheses, references, given=False, language="zh")).scores
    assert [s.value for s in scores] == [100.0, 100.0, 0.0]
    assert "tok:zh" in scores[0].signature


def test_given_segments_that_were_not_all_decoded_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected 3 hypotheses"):
        score_testset(decoded(tmp_path / "x", [("a.wav/0000", "x")], PAIRS, given=True))


def gathered(folder, *results):
    """Return what scores.json holds, by way of the files of the test sets."""
    cells = []
    for number, result in enumerate(results):
        (folder / str(number)).mkdir()
        write_testset_scores(folder / str(number), result)
        cells.append(read_testset_scores(folder / str(number)))
        assert cells[-1] == result
    return gather(cells)


def test_scores_json_is_sorted_and_says_what_was_not_computed(tmp_path):
    hypotheses = [("a.wav/0000", "Ja."), ("a.wav/0001", "", ["too_short"])]
    german = score_testset(decoded(tmp_path / "de", hypotheses, [("a.wav", "Ja."), ("a.wav", "Nein.")], given=True))
    chinese = score_testset(decoded(tmp_path / "zh", hypotheses, None, given=True, language="zh"))
    record = gathered(tmp_path, chinese, german)
    assert [(s["pair"], s["metric"]) for s in record["scores"]] == [("en-de", m) for m in ("BLEU", "chrF", "TER")]
    assert sorted(record["scores"][0]) == [
        "data_sha256",
        "high",
        "hypotheses_sha256",
        "low",
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
    lines = table(gathered(tmp_path, chinese, german)).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[3:7] == ["segments", "blank", "truncated", "too"]
    assert lines[1].split()[:6] == ["en-de", "ACL", "2", "1", "0", "1"]
    assert lines[2].endswith("not scored: no references")
    assert lines[3].startswith("COMET: not computed: ")
