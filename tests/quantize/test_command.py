from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantize.__main__ import make_parser
from quantize.stream import pack_system
from submission.architectures import read_config
from submission.checkpoint import read_checkpoint
from submission.cli import run
from submission.codecs import Affine, Codec
from submission.digest import canonical_json
from submission.forecast import companion_files, forecast
from submission.miniature.model import SMALL, build_checkpoint
from submission.recipe import Override, QuantizeOptions

ROOT = Path(__file__).parents[2]


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps"], SMALL, 1)


def call(*argv: object) -> int:
    return run(make_parser(), [str(a) for a in argv])


def test_help_answers_without_the_heavy_libraries():
    code = "import sys, quantize.__main__; sys.exit(bool({'torch', 'transformers', 'hqq', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_stages_folder_holds_the_model_and_the_report_and_meets_the_limit(base, tmp_path):
    rules = {"*": affine(4, 64), "embedding": affine(2, 64)}
    override = Override(role="mlp", layers="middle", count="fit", codec=affine(3, 64))
    other = sum(path.stat().st_size for path in companion_files(base))
    limit = forecast(read_config(base), rules, other_bytes=other).total_bytes - 1
    pack_system(base, tmp_path, QuantizeOptions(solver="hqq", codecs=rules, overrides=(override,)), limit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.json"]
    assert sum(path.stat().st_size for path in (tmp_path / "model").iterdir()) <= limit
    assert affine(3, 64) in read_checkpoint(tmp_path / "model").codecs.values()
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert canonical_json(json.loads(text)) == text


def test_the_competition_systems_forecast_needs_no_model(capsys):
    assert call("forecast", "--campaign", "iwslt26", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["parameters"] == 8_397_094_912
    assert record["total_bytes"] <= record["limit_bytes"] == 4 << 30
    roles = sum(role["bytes"] for role in record["roles"])
    assert record["total_bytes"] == roles + record["header_bytes"] + record["config_bytes"] + record["other_bytes"]


def test_the_forecast_is_a_table_with_its_units(capsys):
    assert call("forecast", "--campaign", "iwslt26") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[-3:] == ["bytes", "GB", "GiB"]
    assert any(line.startswith("mlp.up") and "affine3g128, affine4g128" in line for line in lines)
    assert "4,294,967,296 bytes" in lines[-1] and "below it" in lines[-1]


def test_a_checkpoint_folder_can_be_forecast(base, capsys):
    assert call("forecast", "--checkpoint", base, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["other_bytes"] == sum(path.stat().st_size for path in companion_files(base))


def test_packing_before_merging_names_the_command_to_run(tmp_path, capsys):
    assert call("pack", "--store", tmp_path / "store") == 2
    assert "python -m train merge" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert call("forecast", "--checkpoint", tmp_path) == 2
    assert "config.json: cannot be read" in capsys.readouterr().err
