"""What `plan` and `begin` print, and that they refuse before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.published_data import write_published_data

ROOT = Path(__file__).parents[3]


def submission(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "submission", *words, "--store", str(tmp_path / "store")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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


def test_plan_of_a_competition_counts_processors_where_the_system_has_no_affinity(tmp_path):
    code = (
        "import os, sys; del os.sched_getaffinity\n"  # as on macOS
        "import runpy; runpy.run_module('submission', run_name='__main__', alter_sys=True)"
    )
    words = ["plan", "--campaign", "iwslt26", "--store", str(tmp_path / "store")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"processor, {os.cpu_count()} cores" in done.stdout


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
    write_published_data(tmp_path / "data")
    (tmp_path / "data" / "testsets" / "BUSINESSNEWS" / "segments.yaml").unlink()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "lacks 1 of 12 parts" in done.stderr
    assert "testsets/BUSINESSNEWS: segments.yaml or **/*.yaml or **/*.yml\n" in done.stderr


def test_begin_names_what_half_a_corpus_lacks(tmp_path):
    write_published_data(tmp_path / "data")
    next((tmp_path / "data" / "corpora" / "covost2").rglob("*.mp3")).unlink()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "corpora/covost2: audio, clips/* or en/clips/*\n" in done.stderr and "CoVoST 2 (https://" in done.stderr


@pytest.mark.parametrize(
    ("part", "file", "named"),
    [
        ("covost2", "covost_v2.en_zh-CN.train.tsv", "covost_v2.en_zh-CN.train.tsv or covost_v2.en_zh.train.tsv or"),
        ("europarl-st", "en/de/train/segments.en", "en/de/train/segments.en or v1.1/en/de/train/segments.en\n"),
    ],
)
def test_begin_names_each_table_of_a_language_that_is_missing(tmp_path, part, file, named):
    write_published_data(tmp_path / "data")
    (tmp_path / "data" / "corpora" / part / file).unlink()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "lacks 1 of 12 parts" in done.stderr and f"corpora/{part}: {named}" in done.stderr
    assert "allow_fewer" not in done.stderr


def test_unsplit_tables_need_the_english_of_common_voice(tmp_path):
    write_published_data(tmp_path / "data")
    corpus = tmp_path / "data" / "corpora" / "covost2"
    (corpus / "covost_v2.en_de.train.tsv").rename(corpus / "covost_v2.en_de.tsv")
    words = ("begin", "--campaign", "iwslt26", "--data", str(tmp_path / "data"))
    done = submission(tmp_path, *words)
    assert done.returncode == 2 and "or validated.tsv or en/validated.tsv\n" in done.stderr
    (corpus / "validated.tsv").touch()
    assert submission(tmp_path, *words).returncode == 0


def test_hints_name_the_place_of_the_part_and_leave_other_folders_alone(tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    done = submission(tmp_path, "begin", "--campaign", "iwslt26", "--data", str(data))
    assert f"--wav2vec2 WAV2VEC2 --out '{data}/models/shas'`" in done.stderr
    assert f"--local-dir '{data}/models/Qwen2-Audio-7B'\n" in done.stderr
    assert f"-C '{data}/corpora/europarl-st', of" in done.stderr


def test_begin_refuses_half_a_base_model(tmp_path):
    write_published_data(tmp_path / "data")
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
    assert "calibrate holds one layer at a time: at most 5.118 GiB of memory or of a GPU." in done.stdout
    assert "On disk 12.161 GiB of moments, meanwhile at most 56.388 GiB of activations." in done.stdout
    assert "corpora left out: 57.234 GiB, 105.240 GiB while calibrate runs." in done.stdout
    assert "calibrate" not in submission(tmp_path, "plan").stdout
    assert "while" not in submission(tmp_path, "plan", "--campaign", "iwslt26").stdout


def test_plan_says_what_recovery_takes(tmp_path):
    done = submission(tmp_path, "plan", "--campaign", "iwslt26", "--recipe", "ablation:primary-recovered")
    assert "recover holds the whole model in float32: about 39.102 GiB of memory or of a GPU" in done.stdout
    assert "recover" not in submission(tmp_path, "plan").stdout
