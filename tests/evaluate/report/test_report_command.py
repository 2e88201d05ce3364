"""The command: what it plans, what it builds once and finds afterwards, what stops it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evaluate.__main__ import make_parser
from evaluate.scoring.comet import Comet
from segment.segmentation_report import Coverage, make_report, write_report
from segment.testset import TestSetFolder
from submission.cli import open_systems, run
from submission.store.digests import canonical_json, tree_digest, write_text
from submission.system.data_folder import COMET_CHECKPOINT, COMET_HPARAMS
from submission.text.corpus import Utterance, write_corpus
from submission.text.segments import SAMPLE_RATE, Segment, write_segments
from tests.evaluate.support import CAMPAIGN, RECIPE, write_data

SYSTEMS = """
[[systems]]
name = "one"
description = "The first"
[[systems]]
name = "two"
description = "The second"
quantize.solver = "als"
"""
METHODS = """
[[systems]]
name = "fixed"
description = "Equal lengths"
segment = { method = "fixed", max_seconds = 7 }
[[systems]]
name = "gold"
description = "The references' own"
segment = { method = "gold", max_seconds = 7 }
"""

COMET_FILES = (COMET_HPARAMS, COMET_CHECKPOINT)
SEGMENTED = Coverage(
    recording="one.wav", recorded=6 * SAMPLE_RATE, segments=(2 * SAMPLE_RATE,) * 3, speech=6 * SAMPLE_RATE, dropped=0
)


@pytest.fixture
def arguments(checkpoint, tmp_path) -> list[str]:
    """Return the arguments that name a list of two systems that are packed and wait to be measured."""
    (tmp_path / "probe.toml").write_text(CAMPAIGN, encoding="utf-8")
    (tmp_path / "some.toml").write_text(RECIPE + SYSTEMS, encoding="utf-8")
    (tmp_path / "methods.toml").write_text(RECIPE + METHODS, encoding="utf-8")
    segments = [Segment(recording="one.wav", start=n * SAMPLE_RATE, end=(n + 2) * SAMPLE_RATE) for n in (0, 2, 4)]
    write_data(tmp_path / "data", checkpoint, segments)
    (tmp_path / "data/references/TALKS/en-zh.txt").write_text("x\n" * 3, encoding="utf-8")
    shutil.rmtree(tmp_path / "data/references/ACCENT")
    named = [("campaign", "probe.toml"), ("recipe", "some.toml"), ("data", "data"), ("store", "store")]
    options = [f"--{key}={tmp_path / value}" for key, value in named]
    for system, store in open_systems(make_parser().parse_args(["report", *options])):
        store.obtain(system.stage("corpus"), write_dev)
        store.obtain(system.stage("finetune"), nothing_read)
        store.obtain(system.stage("merge"), lambda out: shutil.copytree(checkpoint, out, dirs_exist_ok=True))
        if system.recipe.quantize.awq is not None:
            store.obtain(system.stage("awq"), nothing_read)
        store.obtain(system.stage("quantize"), lambda out: pretend_to_pack(checkpoint, out))
    return [*options, f"--out={tmp_path / 'out'}"]


def write_dev(out: Path) -> None:
    utterances = [
        Utterance(
            id=f"{number}-{language}",
            audio="testsets/TALKS/audio/one.wav",
            start=number * SAMPLE_RATE,
            end=(number + 1) * SAMPLE_RATE,
            source="one",
            target=text,
            source_lang="en",
            target_lang=language,
            recording="one",
        )
        for number in range(3)
        for language, text in (("de", "eins"), ("zh", "一"))
    ]
    write_corpus(out / "dev.jsonl", utterances)


def nothing_read(out: Path) -> None:
    """Stand for a stage of which packing would read the files, which is pretended."""
    write_text(out / "empty.txt", "")


def pretend_to_pack(checkpoint: Path, out: Path) -> None:
    shutil.copytree(checkpoint, out / "model")
    write_text(out / "packing_report.json", canonical_json({"parameters": 1000}))


def test_every_system_is_measured_once_and_read_afterwards(arguments, tmp_path, capsys):
    only = ["--only", "systems"]
    assert run(make_parser(), ["report", *arguments, *only, "--plan"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "report: 2 systems, 10 stages, 10 to build (4 decode, 2 loss, 4 score)\n"
    assert captured.out == "" and not (tmp_path / "out").exists()

    assert run(make_parser(), ["report", *arguments, *only]) == 0
    done = capsys.readouterr()
    assert done.err.count("loss: built") == done.err.count("decode:en-zh/ACL6060: built") == 2
    record = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    first = record["systems"][0]
    assert first["losses"]["en-de"]["low"] < first["losses"]["en-de"]["value"] < first["losses"]["en-de"]["high"]
    assert {o["pair"] for o in first["outcomes"]} == {"en-de", "en-zh"} and first["outcomes"][0]["scores"]["BLEU"]
    before = tree_digest(tmp_path / "out")

    assert run(make_parser(), ["report", *arguments, *only]) == 0
    again = capsys.readouterr()
    assert "0 to build (nothing)" in again.err and ": building" not in again.err and again.out == done.out
    assert tree_digest(tmp_path / "out") == before

    assert run(make_parser(), ["report", *arguments, *only, f"--also={tmp_path / 'some.toml'}:two"]) == 0
    record = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert [(s["name"], s["labelled"]) for s in record["systems"]] == [("one", False), ("two", False), ("two", True)]
    capsys.readouterr()

    system, store = open_systems(make_parser().parse_args(["report", *arguments]))[1]
    shutil.rmtree(store.folder(system.stage("score", "en-zh/ACL6060")))
    assert run(make_parser(), ["report", *arguments, *only]) == 0
    assert "10 stages, 1 to build (1 score)" in capsys.readouterr().err
    assert tree_digest(tmp_path / "out") == before


def test_a_comet_checkpoint_that_is_none_is_refused_before_anything_is_built(arguments, tmp_path, capsys):
    assert run(make_parser(), ["report", *arguments, "--only=systems", f"--comet={tmp_path / 'nowhere'}"]) == 2
    error = capsys.readouterr().err
    assert "lacks hparams.yaml" in error and "building" not in error


def test_comet_of_every_system_that_is_scored_comes_into_the_report(arguments, tmp_path, capsys, monkeypatch):
    """COMET itself has another environment: its model is pretended, everything around it is real."""
    model, transcript = tmp_path / "comet", tmp_path / "data/acl_6060/eval/text/txt/ACL.6060.eval.en-xx.en.txt"
    transcript.write_text("one\ntwo\n", encoding="utf-8")
    for name in COMET_FILES:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).touch()
    arguments_of_comet = [option for option in arguments if not option.startswith("--out")]
    assert run(make_parser(), ["comet", *arguments_of_comet, f"--comet={model}"]) == 2
    assert "is not built" in capsys.readouterr().err
    assert run(make_parser(), ["report", *arguments, "--only=systems"]) == 0
    assert "COMET" not in (tmp_path / "out/report.md").read_text(encoding="utf-8").split("| ")[1]
    capsys.readouterr()

    loaded = []

    def load(folder, digest):
        loaded.append(folder)
        return Comet(model=None, device="cpu", signature="pretended")

    monkeypatch.setattr("evaluate.scoring.comet.load", load)
    monkeypatch.setattr("evaluate.scoring.comet_stage.segment_scores", lambda comet, lines, where: [0.6] * len(lines))
    assert run(make_parser(), ["comet", *arguments_of_comet, f"--comet={model}"]) == 0
    assert "comet: system 2 of 2, two: 2 scored test sets" in capsys.readouterr().err
    assert loaded == [model]
    assert run(make_parser(), ["comet", *arguments_of_comet, f"--comet={model}"]) == 0  # found
    assert loaded == [model]
    more = ["--report", "--only=systems", f"--also={tmp_path / 'some.toml'}:one"]
    assert run(make_parser(), ["comet", *arguments_of_comet, *more, f"--comet={model}"]) == 0
    assert "comet: system 3 of 3, one: 2 scored test sets" in capsys.readouterr().err

    assert run(make_parser(), ["report", *arguments, "--only=systems", f"--comet={model}"]) == 0
    record = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    for system in record["systems"]:
        assert all(outcome["scores"]["COMET"]["value"] > 0.5 for outcome in system["outcomes"])
    assert f"--comet {model}" in record["commands"]["systems"]


def test_ways_of_segmenting_are_cut_decoded_and_scored_where_there_are_references(arguments, tmp_path, capsys):
    methods = [f"--segmentation={tmp_path / 'methods.toml'}", "--only=segmentations"]
    assert run(make_parser(), ["report", *arguments, *methods]) == 0
    record = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    fixed, gold = record["segmentations"]
    assert [cut["testset"] for cut in fixed["segmentation_results"]] == ["TALKS", "ACCENT"]
    assert [cut["testset"] for cut in gold["segmentation_results"]] == ["TALKS"]  # no references of ACCENT
    assert gold["segmentation_results"][0]["segments"] == 3
    missing = {(o["pair"], o["testset"]): o["missing"] for o in fixed["outcomes"] if not o["scores"]}
    assert missing == {("en-de", "ACCENT"): "not computed: no references"}
    assert "ACCENT: segments as given" in capsys.readouterr().out


def test_a_system_that_is_not_packed_stops_the_report_before_the_first_measurement(arguments, tmp_path, capsys):
    system, store = open_systems(make_parser().parse_args(["report", *arguments]))[1]
    shutil.rmtree(store.folder(system.stage("quantize")))
    assert run(make_parser(), ["report", *arguments, "--only=systems"]) == 2
    error = capsys.readouterr().err
    assert "python -m quantize pack" in error and "some.toml:two" in error and "building" not in error


def test_two_uploads_are_compared_line_by_line_on_what_both_are_scored_on(arguments, tmp_path):
    segments = [Segment(recording="one.wav", start=n * SAMPLE_RATE, end=(n + 2) * SAMPLE_RATE) for n in (0, 2, 4)]

    def cut(out: Path) -> None:
        write_segments(out / "segments.yaml", segments)
        write_report(
            out, make_report({"segmentation": "given"}, [SEGMENTED], TestSetFolder(recordings=(), unlisted=()))
        )

    for system, store in open_systems(make_parser().parse_args(["report", *arguments])):
        for name in ("TALKS", "ACCENT"):
            store.obtain(system.stage("segment", name), cut)
    uploads = [f"--upload={tmp_path / 'some.toml'}:{name}" for name in ("one", "two")]
    assert run(make_parser(), ["report", *arguments, *uploads, "--only=uploads"]) == 0
    record = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    found = {(p["pair"], p["testset"], p["metric"]): p for p in record["paired"]}
    assert found.keys() == {(pair, "TALKS", m) for pair in ("en-de", "en-zh") for m in ("BLEU", "chrF", "TER")}
    assert all(p["low"] <= p["difference"] <= p["high"] and 0 < p["p_value"] <= 1 for p in found.values())
    assert "By a paired bootstrap they differ significantly" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_comets_figures_are_read_where_they_were_computed_by_the_model_of_the_data_folder(arguments, tmp_path):
    only = ["--only", "systems"]
    assert run(make_parser(), ["report", *arguments, *only]) == 0
    folder = tmp_path / "data/models/comet"
    for name in ("hparams.yaml", "checkpoints/model.ckpt", "encoder/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n", encoding="utf-8")
    for system, store in open_systems(make_parser().parse_args(["report", *arguments])):
        for pair in ("en-de", "en-zh"):
            part = f"{pair}/ACL6060"
            cell = json.loads((store.need(system.stage("score", part)) / "score.json").read_text(encoding="utf-8"))
            figure = cell["scores"][0] | {"metric": "COMET", "value": 70.5, "low": 69.0, "high": 72.0}
            record = {"pair": pair, "testset": "ACL6060", "reason": "", "scores": [figure], "segments": [70.5]}
            stage = system.comet_stage(folder, part)
            store.obtain(stage, lambda out, record=record: write_text(out / "comet.json", canonical_json(record)))
    assert run(make_parser(), ["report", *arguments, *only]) == 0
    outcome = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["systems"][0]["outcomes"][0]
    assert outcome["scores"]["COMET"]["value"] == 70.5 and "comet:en-de/ACL6060" in outcome["stages"]
    assert "(69.0–72.0)" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
