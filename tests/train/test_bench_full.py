"""The step at full size: what of it can be known without a GPU."""

from __future__ import annotations

import json

import pytest
import torch

from submission.cli import run
from submission.model.families import read_config, shipped_config
from submission.runtime.prompt import IGNORED
from tests.train.finetuning_inputs import FinetuningInputs, options
from train.__main__ import make_parser
from train.bench.full_size import PROMPT_TOKENS, TARGET_TOKENS, make_batch, make_model, peak_flops, time_steps

MODEL = "Qwen2-Audio-7B"
CPU = torch.device("cpu")


@pytest.mark.parametrize("choices", [options(), options(dtype="bfloat16", gradient_checkpointing=True)])
def test_the_step_trains_the_adapters_and_its_operations_are_counted(inputs: FinetuningInputs, choices) -> None:
    config = read_config(inputs.base)
    model = make_model(config, choices, CPU)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = make_batch(config, 2, torch.Generator().manual_seed(0))
    found = time_steps(model, batch, choices, 3, CPU)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if ".lora_" in name}
    linears = sum(p.numel() for name, p in before.items() if p.dim() == 2 and "language_model.layers" in name)
    tokens = int(batch["attention_mask"].sum())
    assert found["flops_per_step"] > 4 * linears * tokens  # forward, and backward to the activations
    assert found["seconds_per_step"] > 0 and found["peak_bytes"] > 1 << 20


def test_a_full_size_batch_is_what_fine_tuning_makes() -> None:
    config = shipped_config(MODEL)
    batch = make_batch(config, 2, torch.Generator().manual_seed(0))
    assert batch["input_features"].shape == (2, 128, 632)
    assert (batch["input_ids"] == config["audio_token_index"]).sum(dim=1).tolist() == [157, 157]
    assert batch["input_ids"].shape == (2, 157 + PROMPT_TOKENS + TARGET_TOKENS)
    assert ((batch["labels"] != IGNORED).sum(dim=1) == TARGET_TOKENS).all()


def test_full_size_adapters_are_those_of_the_recipe() -> None:
    paper = options(roles=("attn", "mlp", "audio.attn", "audio.mlp", "projector"), rank=64, alpha=128, dtype="bfloat16")
    model = make_model(shipped_config(MODEL), paper, torch.device("meta"))
    sizes = {True: 0, False: 0}
    for name, p in model.named_parameters():
        sizes[".lora_" in name] += p.numel()
    assert sizes[False] == 8_397_094_912
    # r (in + out): 4 attention and 3 FFN linears a layer; 4 and 2 of the encoder; the projector.
    text, audio = 4 * (4096 + 4096) + 3 * (4096 + 11008), 4 * (1280 + 1280) + 2 * (1280 + 5120)
    assert sizes[True] == 64 * (32 * (text + audio) + 1280 + 4096)


@pytest.mark.skipif(torch.cuda.is_available(), reason="its error where there is no GPU")
@pytest.mark.parametrize(("campaign", "model"), [("iwslt26", "Qwen2-Audio-7B"), ("iwslt27", "gemma-4-12B-it")])
def test_without_a_gpu_it_says_so_of_the_campaigns_model(
    capsys: pytest.CaptureFixture[str], campaign: str, model: str
) -> None:
    assert run(make_parser(), ["bench", "--full-size", "--campaign", campaign]) != 0
    assert f"no GPU here: a step of {model}" in capsys.readouterr().err


def test_a_model_that_is_not_published_has_no_full_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_parser(), ["bench", "--full-size", "--campaign", "miniature-gemma4"]) != 0
    assert "no configuration of Gemma4-miniature ships" in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_parser(), ["bench", "--full-size", "--json", "--campaign", "iwslt26", "--steps", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 8_397_094_912
    assert found["tokens_per_second"] > 0 and found["peak_bytes"] > 16 << 30
    assert found["share_of_peak"] is None or 0 < found["share_of_peak"] < 1


@pytest.mark.parametrize(
    ("card", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("x", None)],
)
def test_a_cards_peak_is_found_by_its_name(card: str, peak: float | None) -> None:
    assert peak_flops(card) == peak
