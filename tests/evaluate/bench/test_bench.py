from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from evaluate.__main__ import make_parser
from evaluate.bench import benches
from evaluate.bench.decoding import bench_decoding, decoding_text
from evaluate.bench.full_size import full_size_forecast, write_random_model
from evaluate.bench.generation import bench_generation, generation_text
from evaluate.bench.memory import bench_memory, memory_text
from evaluate.bench.step import bench_step, layer_shapes, step_text
from quantize.packing.pack import pack_checkpoint
from submission.cli import run
from submission.miniature.model import PROMPT, SMALL
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import forecast, resolve_codecs
from submission.runtime.loading import load_processor
from submission.store.digests import tree_digest
from submission.system.recipe.recipe_files import read_recipe
from tests.support.tiny_qwen import build_checkpoint

RULES = {"linears": Affine(bits=4, group_size=32), "embedding": Affine(bits=2, group_size=32)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def random_model(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "model"
    return write_random_model(folder, forecast(read_config(base), RULES))


def test_a_step_is_measured_at_the_shapes_of_the_real_decoder():
    assert sorted(layer_shapes()) == sorted([(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)])


def test_a_step_of_every_kind_is_measured_and_judged():
    record = bench_step([(128, 256), (64, 128)], rows=(1, 32, 5), runs=2)
    assert list(record["kinds"]) == ["4", "3", "2", "8", "entropy"]
    for kind, found in record["kinds"].items():
        ways = ("bfloat16_ms", "packed_ms", "ratio", *(() if kind == "entropy" else ("dequantized_ms",)))
        for part in found.values():
            assert all(part[name] > 0 for name in ways)
        assert [part["bar"] for part in found.values()] == [{"entropy": 2.4, "8": 1.0}.get(kind, 3.0), 1.0, None]
        assert all(part["passed"] == (part["ratio"] >= (part["bar"] or 0)) for part in found.values())
    assert step_text(record).count("times as fast") == 15
    json.dumps(record)


def test_a_random_model_is_what_the_forecast_says_and_loads(random_model, tmp_path, base):
    checkpoint = read_checkpoint(random_model)
    predicted = forecast(read_config(base), RULES)
    assert checkpoint.codecs == predicted.codecs
    assert sum(path.stat().st_size for path in random_model.iterdir()) == predicted.total_bytes
    again = write_random_model(tmp_path / "again", predicted)
    assert tree_digest(again) == tree_digest(random_model)


def test_the_model_of_full_size_is_the_competitions():
    predicted = full_size_forecast()
    assert 8e9 < predicted.parameters < 9e9
    assert {codec.bits for codec in predicted.codecs.values()} == {2, 3, 4}
    assert predicted.total_bytes < 4 << 30


def test_memory_is_measured_loaded_prepacked_and_at_work(random_model):
    record = bench_memory(random_model)
    assert list(record["resident"]) == ["loaded", "prepacked", "generated"]
    assert record["prepacked"] > 10
    assert record["peak_bytes"] >= record["resident_bytes"] == max(record["resident"].values()) > 0
    assert "prepacked" in memory_text(record)


def test_generation_is_measured_on_any_device(random_model):
    record = bench_generation(random_model, "cpu", batches=(1, 3), prompt_tokens=8, new_tokens=6, runs=1)
    for name in ("plain", "packed"):
        assert all(rate > 0 for rate in record[name]["tokens_per_second"].values())
    assert record["memory_share"] is None and list(record["passed_bars"]) == ["batch 1"]
    assert "batch  3" in generation_text(record)


@pytest.mark.gpu
def test_generation_is_measured_on_a_gpu(random_model):
    record = bench_generation(random_model, "cuda", batches=(1,), prompt_tokens=8, new_tokens=6, runs=1)
    assert 0 < record["memory_share"] < 1
    assert "memory" in generation_text(record)


def test_decoding_is_measured_in_both_dtypes(base, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_checkpoint(base, packed, resolve_codecs(read_config(base), RULES), solver="hqq")
    options = read_recipe("primary", "miniature").decode
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (16_000, 30_000)]
    end = load_processor(base).tokenizer.eos_token
    record = bench_decoding(base, packed, waves, PROMPT.format(target_language="German"), options, end, runs=2)
    for dtype in ("bfloat16", "float32"):
        assert all(value > 0 for value in record[dtype].values())
    assert decoding_text(record).count("times as fast") == 2


def test_a_gpu_that_is_not_there_is_said_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    figures = benches(None, None, ["gpu"])["gpu"](tmp_path)
    assert figures["passed"] is None and "need a CUDA device" in figures["text"]
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_is_not_built_is_refused_before_anything_is_measured(tmp_path, capsys):
    words = ["bench", "step", "decode", f"--store={tmp_path / 'store'}", f"--out={tmp_path / 'figures.json'}"]
    assert run(make_parser(), words) == 2
    assert "stage merge: is not built" in capsys.readouterr().err
