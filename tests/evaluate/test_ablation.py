"""Many systems in one table: what is measured, what is found in the store, what is shown."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from evaluate.__main__ import make_parser
from evaluate.ablation import Quality, Row, render, render_csv, render_markdown
from submission.cli import open_systems, run
from submission.corpus import Utterance, write_corpus
from submission.digest import canonical_json, tree_digest, write_text
from submission.segments import SAMPLE_RATE, Segment
from tests.evaluate.test_command import CAMPAIGN, RECIPE, write_data

SYSTEMS = """
[[systems]]
name = "one"
description = "The first"
[[systems]]
name = "two"
description = "The second"
quantize.solver = "als"
"""


def row(name: str, size: int, bleu: float) -> Row:
    quality = Quality(bleu=bleu, chrf=50.0, loss=1.25, loss_standard_error=0.0123)
    return Row(
        system=name,
        description=f"It is {name}",
        size_bytes=size,
        meets_limit=size < 4 << 30,
        bits_per_parameter=4.079,
        pairs={"en-de": quality},
        stages={"quantize": "a" * 64},
    )


def test_the_table_shows_size_quality_and_how_certain_the_loss_is():
    lines = render([row("small", 4_280_067_176, 24.36), row("large", 16_794_297_512, 25.0)]).splitlines()
    assert lines[1].split()[:4] == ["system", "GiB", "bits", "fits"]
    assert lines[2].split() == [
        "small",
        "3.986",
        "4.08",
        "yes",
        "24.4",
        "50.0",
        "1.250",
        "±",
        "0.012",
        "It",
        "is",
        "small",
    ]
    assert lines[3].split()[:4] == ["large", "15.641", "4.08", "no"]


def test_markdown_has_a_column_for_every_figure():
    lines = render_markdown([row("small", 1_740_776, 24.36)]).splitlines()[2:]
    assert {line.count("|") for line in lines} == {9}
    assert "1.741" in lines[2]


def test_csv_holds_the_figures_unrounded():
    (record,) = csv.DictReader(io.StringIO(render_csv([row("small", 1_740_776, 24.3612)])))
    assert record["en-de.bleu"] == "24.3612" and record["size_bytes"] == "1740776"


@pytest.fixture
def arguments(checkpoint, tmp_path) -> list[str]:
    """Return the arguments that name a list of two systems that are packed and wait to be measured."""
    (tmp_path / "probe.toml").write_text(CAMPAIGN, encoding="utf-8")
    (tmp_path / "some.toml").write_text(RECIPE + SYSTEMS, encoding="utf-8")
    segments = [Segment(recording="one.wav", start=n * SAMPLE_RATE, end=(n + 2) * SAMPLE_RATE) for n in (0, 2, 4)]
    write_data(tmp_path / "data", checkpoint, segments)
    (tmp_path / "data/references/TALKS/en-zh.txt").write_text("x\n" * 3, encoding="utf-8")
    named = [("campaign", "probe.toml"), ("recipe", "some.toml"), ("data", "data"), ("store", "store")]
    options = [f"--{key}={tmp_path / value}" for key, value in named]
    for system, store in open_systems(make_parser().parse_args(["ablate", *options])):
        store.obtain(system.stage("merge"), lambda out: shutil.copytree(checkpoint, out, dirs_exist_ok=True))
        store.obtain(system.stage("corpus"), write_dev)
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


def pretend_to_pack(checkpoint: Path, out: Path) -> None:
    shutil.copytree(checkpoint, out / "model")
    write_text(out / "report.json", canonical_json({"parameters": 1000}))


def test_every_system_is_measured_once_and_read_afterwards(arguments, tmp_path, capsys):
    assert run(make_parser(), ["ablate", *arguments]) == 0
    done = capsys.readouterr()
    assert [line.split()[0] for line in done.out.splitlines()[2:4]] == ["one", "two"]
    assert done.err.count("loss: built") == done.err.count("decode:en-zh/ACL6060: built") == 2
    rows = json.loads((tmp_path / "out/ablation.json").read_text(encoding="utf-8"))
    assert rows[0]["pairs"]["en-de"]["loss"] > 0 and rows[0]["pairs"]["en-zh"]["loss_standard_error"] > 0
    assert set(rows[0]["stages"]) == {"quantize", "loss", "decode:en-de/ACL6060", "decode:en-zh/ACL6060"}
    before = tree_digest(tmp_path / "out")
    assert run(make_parser(), ["ablate", *arguments]) == 0
    assert "built" not in capsys.readouterr().err and tree_digest(tmp_path / "out") == before


def test_a_system_that_is_not_packed_stops_the_table_before_the_first_measurement(arguments, tmp_path, capsys):
    system, store = open_systems(make_parser().parse_args(["ablate", *arguments]))[1]
    shutil.rmtree(store.folder(system.stage("quantize")))
    assert run(make_parser(), ["ablate", *arguments]) == 2
    error = capsys.readouterr().err
    assert "python -m quantize pack" in error and "some.toml:two" in error and "building" not in error
