"""What `plan` and `begin` print, and that they refuse before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from submission.model.families import read_config, tensors
from submission.model.safetensors_header import header_bytes, tensor_bytes
from submission.system.campaign import read_campaign
from submission.system.data_folder import SHIPPED, required_parts
from submission.system.recipe_files import read_recipe

ROOT = Path(__file__).parents[2]


def submission(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "submission", *words, "--store", str(tmp_path / "store")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def fill(data: Path) -> None:
    """Make a data folder in which every part of the real campaign is there, with a tiny base model."""
    for part in required_parts(read_campaign("iwslt26"), read_recipe("primary", "iwslt26")):
        for pattern in part.holds:
            path = data / part.part / pattern.replace("*", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    config = (SHIPPED["base"] / "config.json").read_bytes()
    layout = {t.name: ("BF16", t.shape) for t in tensors(read_config(SHIPPED["base"]))}
    model = data / "models" / "Qwen2-Audio-7B"
    (model / "config.json").write_bytes(config)
    (model / "x.safetensors").unlink()
    with (model / "model.safetensors").open("wb") as file:
        header = header_bytes(layout)
        file.write(header)
        file.truncate(len(header) + sum(tensor_bytes(*part) for part in layout.values()))


def test_help_answers_at_once():
    for package in ("submission", "submission.miniature", "train", "quantize", "segment", "evaluate"):
        code = (
            f"import sys; sys.argv = ['x', '--help']; import runpy; runpy.run_module('{package}', run_name='__main__')"
        )
        watch = f"import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{watch}"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stderr.strip() == "False", package
        assert "usage" in done.stdout


def test_plan_lists_every_stage_with_its_state(tmp_path):
    done = submission(tmp_path, "plan")
    assert done.returncode == 0
    assert done.stdout.count("to build") == 40
    assert "Packed model, expected:" in done.stdout


def test_plan_as_json_names_the_command_of_each_stage_with_the_given_arguments(tmp_path):
    rows = json.loads(submission(tmp_path, "plan", "--json").stdout)
    merge = next(row for row in rows if row["stage"] == "merge")
    assert (
        merge["command"] == f"python -m train merge --campaign miniature --recipe primary --store {tmp_path / 'store'}"
    )


def test_begin_without_data_lists_what_it_looked_for_and_how_to_get_it(tmp_path):
    done = submission(tmp_path, "begin", "--campaign", "iwslt26")
    assert done.returncode == 2
    assert "3.986 GiB" in done.stdout and "DIETKIT_IWSLT26_ModelCompression_en-de_unconstrained_primary" in done.stdout
    assert "lacks 12 of 12 parts (no --data DIR was given)" in done.stderr
    assert "hf download Qwen/Qwen2-Audio-7B --local-dir DIR/models/Qwen2-Audio-7B" in done.stderr
    assert not (tmp_path / "store" / "journals").exists()


def test_begin_names_the_half_of_a_part_that_is_missing(tmp_path):
    fill(tmp_path / "data")
    (tmp_path / "data" / "testsets" / "BUSINESSNEWS" / "x.yxml").unlink()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "lacks 1 of 12 parts" in done.stderr
    assert "testsets/BUSINESSNEWS: *.y*ml\n" in done.stderr


def test_begin_names_what_half_a_corpus_lacks(tmp_path):
    fill(tmp_path / "data")
    next((tmp_path / "data" / "corpora" / "covost2").rglob("*.mp3")).unlink()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "corpora/covost2: *.mp3\n" in done.stderr and "CoVoST 2 (https://" in done.stderr


def test_begin_refuses_half_a_base_model(tmp_path):
    fill(tmp_path / "data")
    words = ("begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    whole = submission(tmp_path, *words)
    assert whole.returncode == 0, whole.stderr
    weights = tmp_path / "data" / "models" / "Qwen2-Audio-7B" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    torn = submission(tmp_path, *words)
    assert torn.returncode == 2
    assert "model.safetensors" in torn.stderr and "Traceback" not in torn.stderr


@pytest.mark.parametrize("verb", ["plan", "begin"])
def test_store_that_cannot_be_one_is_an_error_in_one_line(tmp_path, verb):
    (tmp_path / "store").write_text("a file", encoding="utf-8")
    done = submission(tmp_path, verb)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "fix that and run the same command again" in done.stderr


def test_plan_of_a_system_with_a_target_says_the_target_and_what_moments_take(tmp_path):
    done = submission(tmp_path, "plan", "--campaign", "iwslt26", "--recipe", "frontier-3gb")
    assert done.returncode == 0, done.stderr
    assert "model folder: 3,000,000,000 bytes" in done.stdout and "That is the target" in done.stdout
    assert "calibrate holds one layer at a time: at most 4.118 GiB of memory or of a GPU." in done.stdout
    assert "On disk 12.161 GiB of moments, meanwhile at most 39.486 GiB of activations." in done.stdout
    assert "calibrate" not in submission(tmp_path, "plan").stdout


def test_plan_says_what_recovery_takes(tmp_path):
    done = submission(tmp_path, "plan", "--campaign", "iwslt26", "--recipe", "ablation:primary-recovered")
    assert "recover holds the whole model in float32: about 39.102 GiB of memory or of a GPU" in done.stdout
    assert "recover" not in submission(tmp_path, "plan").stdout
