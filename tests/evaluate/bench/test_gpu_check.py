"""The check of a GPU: every part at toy size on a processor, and what is written with and without a card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from evaluate.bench.gpu_check import GPU_TESTS, PARTS, CheckPart, check_text, gpu_check, measured_lines, run_part
from evaluate.bench.kernel_proofs import kernel_proofs, proofs_text
from quantize.bench import gpu_layers
from quantize.bench.gpu_layers import bench_layers, layers_text
from submission.miniature.model import SMALL
from submission.model.codecs.affine import Affine
from submission.model.families import read_config
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from tests.support.launching import HANG_SECONDS
from tests.support.tiny_qwen import build_checkpoint

ROOT = Path(__file__).parents[3]
OPTIONS = QuantizeOptions(
    solver="hqq",
    codecs={"linears": Affine(bits=4, group_size=64)},
    overrides=(Override(role="mlp", layers="sensitivity", count="fit", codec=Affine(bits=3, group_size=64)),),
)
TRAINING = {"flops_per_second": 3e14, "tokens_per_second": 5000.0, "share_of_peak": 0.3}
DECODING = {"packed": {"tokens_per_second": {"1": 60.0, "32": 1200.0}}}


def test_the_parts_end_within_eight_minutes_and_have_names_of_their_own():
    assert sum(part.limit_seconds for part in PARTS) <= 8 * 60
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_the_tests_are_all_that_need_a_gpu_but_the_training_step():
    marked = re.compile(r"^@pytest\.mark\.gpu", re.MULTILINE)
    found = {p for p in (ROOT / "tests").rglob("test_*.py") if marked.search(p.read_text(encoding="utf-8"))}
    assert {*GPU_TESTS, "tests/train/test_bench_full.py"} == {p.relative_to(ROOT).as_posix() for p in found}


def test_layers_are_measured_on_any_device(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_layers, "SECONDS", 1.0)
    base = build_checkpoint(tmp_path / "base", ["a few words"], SMALL, 1)
    figures = bench_layers(read_config(base), OPTIONS, torch.device("cpu"), layers=2, utterances=2)
    rates = {
        name: value for name, value in figures.items() if name.endswith(("_per_second", "_utterance", "_positions"))
    }
    assert len(rates) == 5
    assert all(value > 0 for value in rates.values())
    assert "sensitivity sweep of 2 layers" in layers_text(figures)
    lines = measured_lines({"training": TRAINING, "decoding": DECODING, "layers": figures})
    assert [line.split(":")[0] for line in lines] == [
        "- finetune",
        "- decode, prompts left out",
        "- sensitivity",
        "- awq",
        "- pack",
    ]
    assert lines[1] == "- decode, prompts left out: 4 min at batch 32, packed"  # 288,000 tokens at 1200 a second


def test_kernels_are_proved_on_any_device():
    figures = kernel_proofs("cpu")
    assert {name.split(", ")[0] for name in figures["proved"]} == {"4-bit codes", "8-bit codes"}
    assert all(isinstance(right, bool) for right in figures["proved"].values())
    assert proofs_text(figures | {"proved": {"x": False}}).endswith("x: NOT proved, not used")


def test_without_a_card_it_says_so_and_runs_nothing(tmp_path):
    record = gpu_check(tmp_path, None)
    assert record["parts"] == []
    assert "No GPU here" in (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))["card"] is None


def module(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return name


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_parts_give_their_figures_from_a_file_or_as_they_print_them(commands):
    bench = {"machine": {}, "benches": {"x": {"text": "12 tokens/s", "passed": True}}}
    from_file = module(commands, "a", f"import sys, json\nopen(sys.argv[1], 'w').write(json.dumps({bench!r}))\n")
    printed = module(commands, "b", f"import json\nprint(json.dumps({TRAINING!r}))\n")
    broken = module(commands, "c", "import sys\nprint('half')\nsys.exit('error: out of memory')\n")
    hanging = module(commands, "d", f"import time\ntime.sleep({HANG_SECONDS})\n")
    parts = [
        CheckPart(name="decoding", words=(from_file, "OUT"), limit_seconds=HANG_SECONDS),
        CheckPart(name="training", words=(printed,), limit_seconds=HANG_SECONDS),
        CheckPart(name="layers", words=(broken,), limit_seconds=HANG_SECONDS),
        CheckPart(name="tests", words=(hanging,), limit_seconds=1),
    ]
    record = gpu_check(commands / "out", "NVIDIA Test", parts[1:])
    first = run_part(parts[0], commands / "out")
    assert (first["passed"], first["figures"]["text"]) == (True, "12 tokens/s")
    assert [part["passed"] for part in record["parts"]] == [True, False, False]
    assert record["parts"][0]["figures"] == TRAINING
    assert "error: out of memory" in record["parts"][1]["printed"]
    assert "ended after its 1 s" in record["parts"][2]["printed"]
    text = (commands / "out/gpu_check.md").read_text(encoding="utf-8")
    assert text.startswith("# GPU check: NVIDIA Test")
    assert "- finetune: 2.1 h at 5000 tokens/s, 30% of the card's peak in bf16" in text
    assert text == check_text(record)
