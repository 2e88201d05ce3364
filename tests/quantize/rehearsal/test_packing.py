from __future__ import annotations

import json
from collections import namedtuple

import pytest

from quantize.rehearsal import packing
from quantize.rehearsal.packing import rehearsal_text, rehearse, rehearse_config
from quantize.rehearsal.random_checkpoint import make_checkpoint, with_layers
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import shipped_config, tensors
from submission.model.forecast import forecast
from submission.store.digests import tree_digest
from submission.system.recipe.quantize_options import MomentsOptions, QuantizeOptions
from tests.quantize.rehearsal.support import SMALL

RULES = {"linears": Affine(bits=4, group_size=128), "embedding": Affine(bits=2, group_size=128)}
OPTIONS = QuantizeOptions(solver="hqq", codecs=RULES)
LIMIT = 1 << 30


def test_a_rehearsal_packs_in_a_process_of_its_own_and_can_keep_its_work(tmp_path):
    record = rehearse_config(tmp_path, SMALL, OPTIONS, LIMIT, keep=True)
    predicted = forecast(SMALL, RULES)
    assert record["parameters"] == predicted.parameters
    assert record["model_bytes"] == record["forecast_bytes"] == predicted.total_bytes
    assert record["passed"] == {"seconds": True, "peak_bytes": True, "forecast": True}
    assert 50 << 20 < record["peak_bytes"] < 4 << 30  # torch by itself takes more than the one
    assert 0.009 < record["relative_mse"]["affine4g128"] < 0.03
    assert json.loads(json.dumps(record)) == record
    text = rehearsal_text({"model": "small", "recipe": "g128", "layers": 2, **record})
    assert f"forecast {predicted.total_bytes:,}" in text and "NOT" not in text
    assert read_checkpoint(tmp_path / "packed").codecs and not read_checkpoint(tmp_path / "checkpoint").codecs


def test_a_rehearsal_resumes_a_killed_one_and_removes_its_files(tmp_path):
    out = tmp_path / "out"
    made = make_checkpoint(out / "checkpoint", SMALL)
    (out / packing.MARK).touch()
    (out / "packed").mkdir()
    (out / "packed" / "model.safetensors").write_bytes(b"half a model")
    record = rehearse_config(out, SMALL, OPTIONS, LIMIT, keep=False)
    assert record["shards_found"] == made["shards"] == 1
    assert record["passed"]["forecast"]
    assert list(out.iterdir()) == []


def test_a_folder_that_no_rehearsal_made_is_left_alone(tmp_path):
    make_checkpoint(tmp_path / "checkpoint", SMALL)
    before = tree_digest(tmp_path)
    with pytest.raises(UserError, match="exists, and was not made by a rehearsal"):
        rehearse_config(tmp_path, SMALL, OPTIONS, LIMIT, keep=False)
    assert tree_digest(tmp_path) == before


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: usage(100 << 30, 90 << 30, 10 << 30))
    with pytest.raises(UserError, match=r"needs 19\.7 GiB of disk, 10\.0 are free; free 9\.7 GiB"):
        rehearse(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_recipe_that_calibrates_is_refused(tmp_path):
    with pytest.raises(UserError, match="random weights cannot"):
        rehearse(tmp_path, "primary")


def test_a_target_is_allotted_and_solved_from_random_moments(tmp_path):
    codec = Entropy(trellis=True)
    moments = MomentsOptions(pairs=("en-de",), seed=0)
    options = QuantizeOptions(
        solver="feedback", codecs={"linears": codec, "embedding": codec}, target="700 kB", moments=moments
    )
    record = rehearse_config(tmp_path, SMALL, options, None, keep=True, target=700_000)
    assert record["passed"] == {"seconds": True, "peak_bytes": True, "forecast": True}
    assert 690_000 < record["model_bytes"] == record["forecast_bytes"] <= 700_000
    assert record["bars"] == {"seconds": 1800, "peak_bytes": 6 << 30} and record["packing_processor_seconds"] > 0
    assert 0 < record["relative_mse"]["entropy-trellis"] < 0.3
    text = rehearsal_text({"model": "small", "recipe": "frontier", "layers": "all", **record})
    assert "budgets  " in text and "bars     30 minutes: passed; 6 GiB: passed" in text
    inputs = json.loads((tmp_path / "moments" / "moments.json").read_text(encoding="utf-8"))["inputs"]
    assert set(inputs) == {spec.name for spec in tensors(SMALL) if spec.packable}
    assert not (tmp_path / "budgets").exists()


def test_a_model_of_another_family_weighs_its_forecast(tmp_path):
    published = shipped_config("gemma-4-12B-it")
    text = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}
    text |= {"head_dim": 64, "global_head_dim": 128, "vocab_size": 512}
    config = published | {"text_config": published["text_config"] | text}
    record = rehearse_config(tmp_path, with_layers(config, 7), OPTIONS, None, keep=False)
    assert record["passed"]["forecast"] and record["model_bytes"] == record["forecast_bytes"]
    assert not (tmp_path / "packed").exists()


def test_a_campaign_whose_model_is_not_published_is_not_rehearsed(tmp_path):
    with pytest.raises(UserError, match=r"campaign miniature: no configuration .* ships"):
        rehearse(tmp_path, campaign="miniature")
