"""The command: which `evaluate` is imported, and a small system decoded and scored from end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
from evaluate.__main__ import make_parser
from evaluate.decoding.hypotheses import make_hypothesis, read_hypotheses, write_hypotheses
from evaluate.system_stages import scored, scored_testset
from segment.segmentation_report import make_report, write_report
from segment.testset import TestSetFolder
from submission.cli import open_system, run
from submission.errors import UserError
from submission.store.store import Store
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import read_campaign
from submission.system.system import System
from submission.text.segments import SAMPLE_RATE, Segment, write_segments
from tests.evaluate.support import CAMPAIGN, RECIPE, write_data

ROOT = Path(__file__).parents[2]


def test_from_the_root_our_package_wins_over_an_installed_one_of_the_same_name(tmp_path):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").write_text("raise SystemExit('the other one')\n", encoding="utf-8")
    code = "import evaluate, sys; print(evaluate.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(result.stdout.strip()).parent == ROOT / "evaluate"
    assert Path(evaluate.__file__).parent == ROOT / "evaluate"


def test_help_loads_none_of_the_heavy_libraries():
    code = (
        "import sys, runpy; sys.argv = ['evaluate', '--help']\n"
        "try: runpy.run_module('evaluate', run_name='__main__')\n"
        "except SystemExit: print({'torch', 'transformers', 'sacrebleu', 'numpy'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "decode" in result.stdout
    assert result.stdout.splitlines()[-1] == "set()"


SEGMENTS = [Segment(recording="one.wav", start=n * SAMPLE_RATE, end=(n + 2) * SAMPLE_RATE) for n in (0, 2, 4)]


def segment(out: Path) -> None:
    """Write what the stage segment does."""
    write_segments(out / "segments.yaml", SEGMENTS)
    write_report(out, make_report({"segmentation": "given"}, [], TestSetFolder(recordings=(), unlisted=())))


def pack(system: System, store: Store, make: Callable[[Path], object]) -> None:
    """Put a packed model into a store, and what stages before it leave, which nothing reads."""
    for name in ("corpus", "finetune", "merge", "awq"):
        store.obtain(system.stage(name), lambda out: (out / "not-read").touch())
    store.obtain(system.stage("quantize"), make)


@pytest.fixture(scope="module")
def arguments(checkpoint, tmp_path_factory) -> list[str]:
    """Return the arguments that name a system whose model is packed and whose test sets are segmented."""
    folder = tmp_path_factory.mktemp("system")
    (folder / "probe.toml").write_text(CAMPAIGN, encoding="utf-8")
    (folder / "quick.toml").write_text(RECIPE, encoding="utf-8")
    write_data(folder / "data", checkpoint, SEGMENTS)
    named = [("campaign", "probe.toml"), ("recipe", "quick.toml"), ("data", "data"), ("store", "store")]
    options = [f"--{key}={folder / value}" for key, value in named]
    system, store = open_system(make_parser().parse_args(["score", *options]))
    pack(system, store, lambda out: shutil.copytree(checkpoint, out / "model"))
    for name in ("TALKS", "ACCENT"):
        store.obtain(system.stage("segment", name), segment)
    return options


def test_a_system_is_decoded_and_scored(arguments, capsys):
    assert run(make_parser(), ["score", *arguments]) == 2
    error = capsys.readouterr().err
    assert "stage decode:en-de/TALKS: is not built; run `python -m evaluate decode" in error
    assert "building" not in error

    assert run(make_parser(), ["decode", *arguments, "--pair", "en-zh", "--testset", "TALKS"]) == 0
    error = capsys.readouterr().err
    assert "decode:en-zh/TALKS: 3 segments (0 from an earlier run), 6 s of audio" in error
    assert "ACL6060" not in error

    assert run(make_parser(), ["decode", *arguments]) == 0
    error = capsys.readouterr().err
    assert "decode:en-zh/TALKS: cached" in error
    assert error.count(": built in") == 4

    system, store = open_system(make_parser().parse_args(["decode", *arguments]))
    hypotheses = read_hypotheses(store.need(system.stage("decode", "en-de/ACL6060")) / "hypotheses.jsonl")
    assert [h.segment for h in hypotheses] == ["sent_1.wav/0000", "sent_2.wav/0000"]
    assert hypotheses[1].flags == ("blank", "too_short")

    assert run(make_parser(), ["score", *arguments]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table[1:-1]] == [
        ["en-de", "ACCENT"],
        ["en-de", "ACL6060"],
        ["en-de", "TALKS"],
        ["en-zh", "ACL6060"],
        ["en-zh", "TALKS"],
    ]
    assert run(make_parser(), ["score", *arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {(s["testset"], s["pair"], s["resegmented"]) for s in record["scores"]} == {
        ("ACCENT", "en-de", False),
        ("ACL6060", "en-de", False),
        ("ACL6060", "en-zh", False),
        ("TALKS", "en-de", True),
    }
    assert [t["note"] for t in record["testsets"] if (t["testset"], t["pair"]) == ("TALKS", "en-zh")] == [
        "not scored: no references"
    ]


def test_a_test_set_and_pair_is_scored_by_itself_and_found_by_the_whole(arguments, tmp_path, capsys):
    system, store = open_system(make_parser().parse_args(["score", *arguments, f"--store={tmp_path}"]))
    pack(system, store, lambda out: (out / "model").mkdir())
    for name in ("TALKS", "ACCENT"):  # the report says whether given segments were split
        store.obtain(system.stage("segment", name), segment)
    pair = system.campaign.pairs[0]
    with pytest.raises(UserError, match="stage decode:en-de/TALKS: is not built"):
        scored_testset(system, store, pair, "TALKS")
    for part, name in ((f"{p.name}/{name}", name) for p, name in system.pairs_and_testsets()):
        recordings = ("sent_1.wav", "sent_2.wav") if name == "ACL6060" else ("one.wav",) * 3
        hypotheses = [make_hypothesis(f"{r}/{n:04}", f"x {n}") for n, r in enumerate(recordings)]
        store.obtain(
            system.stage("decode", part), lambda out, h=hypotheses: write_hypotheses(out / "hypotheses.jsonl", h)
        )
    record = json.loads(scored_testset(system, store, pair, "TALKS").read_text(encoding="utf-8"))
    assert [score["metric"] for score in record["scores"]] == ["BLEU", "chrF", "TER"]
    assert (record["testset"]["testset"], record["testset"]["segments"]) == ("TALKS", 3)
    capsys.readouterr()
    whole = json.loads(scored(system, store).read_text(encoding="utf-8"))
    assert "score:en-de/TALKS: cached" in capsys.readouterr().err
    assert [s for s in whole["scores"] if (s["pair"], s["testset"]) == ("en-de", "TALKS")] == record["scores"]


@pytest.mark.parametrize(("option", "value"), [("--pair", "en-fr"), ("--testset", "TALK")])
def test_an_unknown_pair_or_test_set_is_refused_with_the_known_ones(arguments, capsys, option, value):
    assert run(make_parser(), ["decode", *arguments, option, value]) == 2
    assert f"error: {option}: unknown: {value}; choose from " in capsys.readouterr().err


def test_a_test_set_that_the_pair_lacks_is_refused_with_what_it_has(arguments, capsys):
    for also in ([], ["--testset", "TALKS"]):
        assert run(make_parser(), ["decode", *arguments, "--pair", "en-zh", "--testset", "ACCENT", *also]) == 2
        assert "error: --testset: en-zh has no ACCENT; choose from TALKS, ACL6060" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "command"), [("quantize", "quantize pack"), ("segment:TALKS", "segment run")])
def test_an_earlier_stage_that_is_not_built_is_reported_before_anything_is_built(
    arguments, tmp_path, capsys, missing, command
):
    own = [*arguments, f"--store={tmp_path}"]
    system, store = open_system(make_parser().parse_args(["decode", *own]))
    if missing != "quantize":
        pack(system, store, lambda out: (out / "model").mkdir())
    capsys.readouterr()
    assert run(make_parser(), ["decode", *own, "--testset", "TALKS"]) == 2
    error = capsys.readouterr().err
    assert f"stage {missing}: is not built; run `python -m {command}" in error
    assert "building" not in error


def test_every_shipped_campaigns_target_languages_can_be_scored():
    from evaluate.scoring.metrics import METRICS, corpus_scores

    for path in sorted(CAMPAIGNS.glob("*.toml")):
        for pair in read_campaign(path.stem).pairs:
            figures = corpus_scores(["a b c d"], ["a b c d"], pair.target)
            assert [figure.metric for figure in figures] == list(METRICS)
