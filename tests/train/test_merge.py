from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from submission.errors import UserError
from submission.model.checkpoint import INDEX, read_checkpoint
from submission.model.families import ARCHITECTURES
from submission.runtime.prompt import build_inputs, render_prompt
from submission.store.digests import tree_digest
from tests.train.finetuning_inputs import TASK, FinetuningInputs, options
from train.merge import merge_adapter
from train.model import load_adapted, save_adapter

SHARD = "model-00001-of-00001.safetensors"


def write_adapter(base: Path, folder: Path, dtype: str = "float32"):
    """Write an adapter whose matrices are all far from zero; return the adapted model, in evaluation mode."""
    model = load_adapted(base, options(dtype=dtype)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    save_adapter(model, folder, "small")
    return model


def logits(model, base: Path) -> torch.Tensor:
    waveform = (0.1 * torch.randn(30_000, generator=torch.Generator().manual_seed(0))).numpy()
    processor = AutoProcessor.from_pretrained(base)
    with torch.inference_mode():
        return model(**build_inputs(processor, [waveform], [render_prompt(TASK.prompt, "German")])).logits.float()


def in_float32(base: Path, folder: Path, **settings: str) -> Path:
    """Write a copy of a checkpoint in float32."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    Qwen2AudioForConditionalGeneration.from_pretrained(base, dtype=torch.float32).save_pretrained(folder, **settings)
    return folder


@pytest.fixture
def adapter(inputs: FinetuningInputs, tmp_path: Path) -> Path:
    write_adapter(inputs.base, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("settings", [{}, {"max_shard_size": "300KB"}])
def test_merged_and_adapted_model_agree_in_float32(
    inputs: FinetuningInputs, tmp_path: Path, settings: dict[str, str]
) -> None:
    base = in_float32(inputs.base, tmp_path / "base", **settings)
    adapted = write_adapter(base, tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    merged = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(base, dtype=torch.float32).eval()
    expected = logits(adapted, base)
    assert (logits(plain, base) - expected).abs().max() > 0.1
    assert (logits(merged, tmp_path / "out") - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_bf16_weight_is_the_float32_sum_rounded_once(inputs: FinetuningInputs, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    merge_adapter(inputs.base, adapter, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (inputs.base, tmp_path / "out"))
    lora = load_file(adapter / "adapter_model.safetensors")
    module_name = ARCHITECTURES["qwen2_audio"].module_name
    adapted = 0
    for name, weight in before.items():
        module = f"base_model.model.{module_name(name.removesuffix('.weight'))}"
        expected = weight
        if f"{module}.lora_A.weight" in lora:
            adapted += 1
            delta = 2.0 * lora[f"{module}.lora_B.weight"] @ lora[f"{module}.lora_A.weight"]
            expected = (weight.float() + delta).bfloat16()
        assert torch.equal(after[name], expected), name
    assert 2 * adapted == len(lora)


def test_the_merged_checkpoint_is_a_whole_folder_in_the_bases_layout(
    inputs: FinetuningInputs, adapter: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        merge_adapter(inputs.base, adapter, tmp_path / name)
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")
    assert sorted(p.name for p in inputs.base.iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())
    header = 8 + int.from_bytes((inputs.base / "model.safetensors").read_bytes()[:8], "little")
    base, merged = ((folder / "model.safetensors").read_bytes() for folder in (inputs.base, tmp_path / "one"))
    assert base[:header] == merged[:header]
    assert len(base) == len(merged)


def test_a_base_of_one_shard_keeps_its_index_and_a_leftover_index_goes(
    inputs: FinetuningInputs, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(inputs.base, tmp_path / "base")
    (base / "model.safetensors").rename(base / SHARD)
    weights = load_file(base / SHARD)
    index = {"metadata": {}, "weight_map": dict.fromkeys(sorted(weights), SHARD)}
    (base / INDEX).write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "one").mkdir()
    merge_adapter(base, adapter, tmp_path / "one")
    assert sorted(p.name for p in base.iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())
    assert read_checkpoint(tmp_path / "one").located.keys() == weights.keys()

    (base / SHARD).rename(base / "model.safetensors")
    (tmp_path / "two").mkdir()
    merge_adapter(base, adapter, tmp_path / "two")
    assert not (tmp_path / "two" / INDEX).exists()


def change_adapter(adapter: Path, **tensors: torch.Tensor | None) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        weights.pop(name, None)
        if tensor is not None:
            weights[name] = tensor
    save_file(weights, adapter / "adapter_model.safetensors")


MODULE = "base_model.model.model.language_model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model.model.lm_head.bias": torch.zeros(2)}, "lm_head.bias: is not part of a LoRA pair"),
        ({f"{MODULE}.lora_A.weight": None}, "up_proj: has only lora_B"),
        ({f"{MODULE}.lora_A.weight": torch.zeros(4, 64)}, r"\[128, 4\] · \[4, 64\] does not give \[128, 128\]"),
        (
            {
                "base_model.model.x.lora_A.weight": torch.zeros(4, 8),
                "base_model.model.x.lora_B.weight": torch.zeros(8, 4),
            },
            "x.weight: is no weight of",
        ),
    ],
)
def test_an_adapter_that_would_not_be_used_whole_is_refused(
    inputs: FinetuningInputs, adapter: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    change_adapter(adapter, **changes)
    with pytest.raises(UserError, match=message):
        merge_adapter(inputs.base, adapter, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("rank_pattern", {"q_proj": 8}), ("bias", "all")])
def test_an_adapter_of_another_kind_is_refused(
    inputs: FinetuningInputs, adapter: Path, tmp_path: Path, key: str, value: object
) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")
    with pytest.raises(UserError, match=f"no plain LoRA adapter: {key}"):
        merge_adapter(inputs.base, adapter, tmp_path)
