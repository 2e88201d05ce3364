from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quantize import rehearsal
from quantize.rehearsal import (
    BLOCK_LENGTH,
    draw_block,
    is_made,
    make_checkpoint,
    plan_shards,
    rehearsal_text,
    rehearse,
    rehearse_config,
    with_layers,
)
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import shipped_config, tensors
from submission.model.forecast import forecast
from submission.model.safetensors_header import tensor_bytes
from submission.store.digests import tree_digest
from submission.system.recipe.quantize_options import MomentsOptions, QuantizeOptions

REAL = shipped_config("Qwen2-Audio-7B")
SMALL = {
    "model_type": "qwen2_audio",
    "architectures": ["Qwen2AudioForConditionalGeneration"],
    "dtype": "bfloat16",
    "audio_config": {
        "d_model": 128,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 256,
        "encoder_layers": 2,
        "max_source_positions": 100,
        "num_mel_bins": 80,
    },
    "text_config": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}
RULES = {"linears": Affine(bits=4, group_size=128), "embedding": Affine(bits=2, group_size=128)}
OPTIONS = QuantizeOptions(solver="hqq", codecs=RULES)
SHARD_BYTES = 400_000
LIMIT = 1 << 30


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, SMALL, shard_bytes=SHARD_BYTES)
    return folder


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_the_checkpoint_is_complete_and_in_shards_named_as_on_the_hub(made):
    assert read_checkpoint(made).codecs == {}
    names = sorted(path.name for path in made.glob("*.safetensors"))
    assert len(names) > 2 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert set(json.loads((made / "model.safetensors.index.json").read_text())["weight_map"].values()) == set(names)


def test_weights_are_gaussian_with_a_few_that_stand_out_and_norms_are_ones(made):
    weights = loaded(made)
    up = weights["language_model.model.layers.0.mlp.up_proj.weight"]
    assert up.dtype == torch.bfloat16
    assert torch.equal(weights["language_model.model.norm.weight"], torch.ones(128, dtype=torch.bfloat16))
    assert torch.equal(weights["audio_tower.layers.0.final_layer_norm.weight"], torch.ones(128, dtype=torch.bfloat16))
    everything = torch.cat([w.float().flatten() for name, w in weights.items() if "norm" not in name])
    assert 0.0195 < float(everything.std()) < 0.0205 and abs(float(everything.mean())) < 1e-4
    assert 1e-5 < float((everything.abs() > 0.12).float().mean()) < 1e-4


def test_no_group_of_a_tensor_is_like_another(made):
    head = loaded(made)["language_model.lm_head.weight"].view(-1, 128)
    assert len(torch.unique(head, dim=0)) == len(head)


def test_a_tensor_longer_than_the_block_repeats_the_block():
    block = draw_block()
    spec = next(spec for spec in tensors(REAL) if spec.name.endswith("layers.0.mlp.up_proj.weight"))
    pieces = list(rehearsal.weights(spec, block))
    assert len(pieces) == 4 and sum(map(len, pieces)) == 4096 * 11008 > 2 * BLOCK_LENGTH
    assert np.array_equal(pieces[1], block) and np.shares_memory(pieces[1], block)


def test_making_a_checkpoint_again_gives_the_same_bytes(made, tmp_path):
    make_checkpoint(tmp_path, SMALL, shard_bytes=SHARD_BYTES)
    assert tree_digest(tmp_path) == tree_digest(made)


def test_a_killed_run_resumes_with_the_shards_that_are_complete(made, tmp_path):
    shards = plan_shards(SMALL, SHARD_BYTES)
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    (copy / shards[1].name).unlink()
    data = (copy / shards[2].name).read_bytes()
    (copy / shards[2].name).write_bytes(b"\xff" * len(data))
    (copy / f".{shards[1].name}.aside").write_bytes(b"half a shard")
    (copy / "model-00001-of-00099.safetensors").write_bytes(b"of another rehearsal")
    report = make_checkpoint(copy, SMALL, shard_bytes=SHARD_BYTES)
    assert report["shards_found"] == len(shards) - 2
    assert tree_digest(copy) == tree_digest(made)


def test_a_shard_of_another_configuration_is_not_taken_for_its_own(made):
    other = SMALL | {"text_config": SMALL["text_config"] | {"vocab_size": 640}}
    name = {spec.name: shard for shard in plan_shards(other, SHARD_BYTES) for spec in shard.specs}
    shard = name["language_model.lm_head.weight"]
    assert is_made(made / plan_shards(SMALL, SHARD_BYTES)[0].name, plan_shards(SMALL, SHARD_BYTES)[0])
    assert not is_made(made / shard.name, shard)


def test_a_shard_holds_so_many_bytes_or_one_tensor():
    for shard in plan_shards(REAL):
        sizes = [tensor_bytes(*part) for part in shard.layout.values()]
        assert sum(sizes) <= rehearsal.SHARD_BYTES or len(sizes) == 1
    assert [spec for shard in plan_shards(REAL) for spec in shard.specs] == tensors(REAL)


def test_fewer_layers_shrink_the_decoder_and_the_encoder_and_nothing_else():
    config = with_layers(REAL, 3)
    assert {spec.layer for spec in tensors(config)} == {None, 0, 1, 2}
    assert with_layers(REAL, 32)["text_config"]["vocab_size"] == 156032
    assert sum(np.prod(s.shape) for s in tensors(with_layers(REAL, 32))) == sum(np.prod(s.shape) for s in tensors(REAL))
    for wrong in (0, 33):
        with pytest.raises(UserError, match="expected 1 to 32"):
            with_layers(REAL, wrong)


def test_a_rehearsal_packs_in_a_process_of_its_own_and_can_keep_its_work(tmp_path):
    record = rehearse_config(tmp_path, SMALL, OPTIONS, LIMIT, keep=True)
    cast = forecast(SMALL, RULES)
    assert record["parameters"] == cast.parameters
    assert record["model_bytes"] == record["forecast_bytes"] == cast.total_bytes
    assert record["passed"] == {"seconds": True, "peak_bytes": True, "forecast": True}
    assert 50 << 20 < record["peak_bytes"] < 4 << 30  # torch by itself takes more than the one
    assert 0.009 < record["relative_mse"]["affine4g128"] < 0.03
    assert json.loads(json.dumps(record)) == record
    text = rehearsal_text({"model": "small", "recipe": "g128", "layers": 2, **record})
    assert f"forecast {cast.total_bytes:,}" in text and "NOT" not in text
    assert read_checkpoint(tmp_path / "packed").codecs and not read_checkpoint(tmp_path / "checkpoint").codecs


def test_a_rehearsal_resumes_a_killed_one_and_removes_its_files(tmp_path):
    out = tmp_path / "out"
    made = make_checkpoint(out / "checkpoint", SMALL)
    (out / rehearsal.MARK).touch()
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
    monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda path: usage(100 << 30, 90 << 30, 10 << 30))
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
    text = rehearsal_text({"model": "small", "recipe": "frontier", "layers": 2, **record})
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
