from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantize.__main__ import make_parser, one_each
from quantize.packing.pack import pack_system
from submission.cli import open_systems, run
from submission.miniature.model import SMALL
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config, tensors
from submission.model.forecast import CARD_BYTES, add_up, companion_bytes, forecast, resolve_codecs, uploaded_bytes
from submission.store.digests import canonical_json
from submission.system.pipeline import has_step
from submission.system.recipe.quantize_options import Override
from tests.support.tiny_qwen import build_checkpoint

ROOT = Path(__file__).parents[2]
TARGETS = """
extends = "frontier"
[[systems]]
name = "larger"
description = "More bytes"
quantize.target = "1.6 MB"
[[systems]]
name = "smaller"
description = "Fewer bytes"
quantize.target = "1.4 MB"
"""


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
    other = companion_bytes(base)
    limit = forecast(read_config(base), rules, other_bytes=other).total_bytes - 1
    codecs = resolve_codecs(read_config(base), rules, (override,), limit_bytes=limit, other_bytes=other)
    pack_system(base, tmp_path, codecs, "hqq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "packing_report.json"]
    assert sum(path.stat().st_size for path in (tmp_path / "model").iterdir()) <= limit - CARD_BYTES
    expected = add_up(read_config(base), tensors(read_config(base)), codecs, other).total_bytes
    assert uploaded_bytes(tmp_path / "model") == expected <= limit
    assert affine(3, 64) in read_checkpoint(tmp_path / "model").codecs.values()
    text = (tmp_path / "packing_report.json").read_text(encoding="utf-8")
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
    assert "limit 4 GiB: 4,294,967,296 bytes = 4.295 GB = 4.000 GiB; met" in out
    assert "read as 4 GB: 4,000,000,000 bytes = 4.000 GB = 3.725 GiB; NOT met" in out


def test_the_forecast_says_where_a_tied_head_is_counted(capsys):
    assert call("forecast", "--campaign", "iwslt27") == 0
    out = capsys.readouterr().out
    assert "The head is the embedding: one weight, stored and counted once." in out
    assert sum(line.startswith(("embedding", "lm_head")) for line in out.split("One step further")[0].splitlines()) == 1
    assert call("forecast", "--campaign", "iwslt26") == 0
    assert "counted once" not in capsys.readouterr().out


def test_the_forecast_says_what_each_further_step_would_save(capsys):
    assert call("forecast", "--campaign", "iwslt26") == 0
    out = capsys.readouterr().out
    # One MLP of 3 x 4096 x 11008 weights from 4 bits to 3.
    assert f"{3 * 4096 * 11008 // 8:,}" in next(line for line in out.splitlines() if line.startswith("mlp         one"))


def test_a_list_of_systems_is_forecast_one_a_line(capsys):
    assert call("forecast", "--campaign", "iwslt26", "--recipe", "ablation") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name, gib in {"bf16": "15.641", "emb4": "4.411", "emb2": "4.262", "g128": "4.018"}.items():
        assert gib in lines[name] and " no " in lines[name]
    assert " yes " in lines["sensitive"]


def test_a_checkpoint_folder_can_be_forecast(base, capsys):
    assert call("forecast", "--checkpoint", base, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["other_bytes"] == companion_bytes(base)


def test_what_systems_of_a_list_share_is_shown_once(tmp_path):
    args = argparse.Namespace(campaign="miniature", recipe="ablation", data=None, store=tmp_path)
    systems = [opened for opened in open_systems(args) if has_step(opened[0], "sensitivity")]
    assert [system.recipe.name for system, _ in one_each(systems, "sensitivity")] == ["sensitive"] and len(systems) > 9
    calibrated = [opened for opened in systems if has_step(opened[0], "awq")]
    names = [system.recipe.name for system, _ in one_each(calibrated, "awq")]
    assert len(names) == 9 and names[0] == "awq-source-128"


@pytest.mark.parametrize("verb", ["sensitivity", "calibrate"])
def test_several_processes_refuse_a_list_of_systems(tmp_path, capsys, monkeypatch, verb):
    recipes = {"sensitivity": "ablation", "calibrate": tmp_path / "targets.toml"}
    recipes["calibrate"].write_text(TARGETS, encoding="utf-8")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert call(verb, "--recipe", recipes[verb], "--store", tmp_path / "store") == 2
    said = capsys.readouterr().err
    assert "several processes share the work of one system, and this is a list; name one system, or start" in said


def test_packing_before_merging_names_the_command_to_run(tmp_path, capsys):
    assert call("pack", "--store", tmp_path / "store") == 2
    assert "python -m train merge" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert call("forecast", "--checkpoint", tmp_path) == 2
    assert "config.json: cannot be read" in capsys.readouterr().err
