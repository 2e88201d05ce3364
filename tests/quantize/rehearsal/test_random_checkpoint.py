from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quantize.rehearsal import random_checkpoint
from quantize.rehearsal.random_checkpoint import (
    BLOCK_LENGTH,
    draw_block,
    is_made,
    make_checkpoint,
    plan_shards,
    weights,
    with_layers,
)
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.families import shipped_config, tensors
from submission.model.safetensors_header import tensor_bytes
from submission.store.digests import tree_digest
from tests.quantize.rehearsal.support import SMALL

REAL = shipped_config("Qwen2-Audio-7B")
SHARD_BYTES = 400_000


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
    found = loaded(made)
    up = found["language_model.model.layers.0.mlp.up_proj.weight"]
    assert up.dtype == torch.bfloat16
    assert torch.equal(found["language_model.model.norm.weight"], torch.ones(128, dtype=torch.bfloat16))
    assert torch.equal(found["audio_tower.layers.0.final_layer_norm.weight"], torch.ones(128, dtype=torch.bfloat16))
    everything = torch.cat([w.float().flatten() for name, w in found.items() if "norm" not in name])
    assert 0.0195 < float(everything.std()) < 0.0205 and abs(float(everything.mean())) < 1e-4
    assert 1e-5 < float((everything.abs() > 0.12).float().mean()) < 1e-4


def test_no_group_of_a_tensor_is_like_another(made):
    head = loaded(made)["language_model.lm_head.weight"].view(-1, 128)
    assert len(torch.unique(head, dim=0)) == len(head)


def test_a_tensor_longer_than_the_block_repeats_the_block():
    block = draw_block()
    spec = next(spec for spec in tensors(REAL) if spec.name.endswith("layers.0.mlp.up_proj.weight"))
    pieces = list(weights(spec, block))
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
        assert sum(sizes) <= random_checkpoint.SHARD_BYTES or len(sizes) == 1
    assert [spec for shard in plan_shards(REAL) for spec in shard.specs] == tensors(REAL)


def test_fewer_layers_shrink_the_decoder_and_the_encoder_and_nothing_else():
    config = with_layers(REAL, 3)
    assert {spec.layer for spec in tensors(config)} == {None, 0, 1, 2}
    assert with_layers(REAL, 32)["text_config"]["vocab_size"] == 156032
    assert sum(np.prod(s.shape) for s in tensors(with_layers(REAL, 32))) == sum(np.prod(s.shape) for s in tensors(REAL))
    for wrong in (0, 33):
        with pytest.raises(UserError, match="expected 1 to 32"):
            with_layers(REAL, wrong)
