"""Every step that may run on a GPU, on a simulated one: no operation meets tensors of two devices.

Results are as on the CPU; what a GPU computes with kernels of its own is left to the tests marked `gpu`.
`test_simulated_gpu.py` runs this file in a process of its own, since torch counts devices at the first backward pass.
By hand: python -m pytest tests/devices/steps_on_a_gpu.py
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quantize.calibration.awq import calibrate as calibrate_awq
from quantize.calibration.model_moments import calibrate as calibrate_moments
from quantize.packing.pack import pack_checkpoint
from quantize.ranking.sensitivity import analyse
from quantize.recovery.recover import recover_system
from quantize.solvers.bound import bind_solver
from submission.miniature.model import END, SMALL
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from submission.runtime.weight_form import prepare_weights
from submission.system.recipe.decoding_options import DecodeOptions
from submission.system.recipe.quantize_options import AwqOptions, MomentsOptions
from submission.text.segments import SAMPLE_RATE
from tests.quantize.recovery.support import OPTIONS, PROMPTS, coarse_codecs, pack_coarsely, write_data
from tests.quantize.support import OVERRIDES, RULES, ranked_options
from tests.runtime.entropy.support import entropy_codecs, pack
from tests.support.simulated_gpu import SimulatedTensor, simulated_gpu
from tests.support.tiny_qwen import build_checkpoint

PAIRS = ("en-de", "en-zh")

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: pytest -m gpu runs on it")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a folder with train.jsonl and dev.jsonl of the same utterances, and their recording."""
    folder = write_data(tmp_path_factory.mktemp("data"))
    shutil.copyfile(folder / "train.jsonl", folder / "dev.jsonl")
    return folder


def test_tensors_of_two_devices_do_not_meet():
    here = torch.ones(2, 2)
    with simulated_gpu():
        there = here.to("cuda")
        assert isinstance(there @ there, SimulatedTensor)
        assert type((there @ there).cpu()) is torch.Tensor
        assert (there * torch.tensor(2.0)).tolist() == [[2, 2], [2, 2]]  # a number may come from the CPU
        assert there[torch.tensor([0])].tolist() == [[1, 1]]  # and so may an index
        for mixed in (lambda: there @ here, lambda: torch.cat([here, there]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)
    assert not torch.cuda.is_available()


@pytest.fixture(scope="module", params=["plain", "affine", "entropy"])
def model_folder(request, base, tmp_path_factory) -> Path:
    if request.param == "plain":
        return base
    out = tmp_path_factory.mktemp("packed") / "model"
    if request.param == "entropy":
        return pack(base, out, entropy_codecs(base, 4.0))
    out.mkdir()
    pack_checkpoint(base, out, resolve_codecs(read_config(base), RULES, OVERRIDES), solver="hqq")
    return out


def decoded(folder: Path, device: str, free: int | None) -> tuple[list[str], list[float], list[str]]:
    """Return texts, their scores, and texts with a penalty, of three utterances; free: bytes to choose a form by."""
    from evaluate.decoding.audio_batches import make_segment_audio
    from evaluate.decoding.generation import translator

    model, processor = load_model(folder, "float32", device)
    model = prepare_weights(model, free)
    settings = DecodeOptions(dtype="float32", num_beams=1, max_new_tokens=8, batch_size=4)
    noise = [np.random.default_rng(n).uniform(-0.3, 0.3, SAMPLE_RATE * n).astype(np.float32) for n in (1, 2, 3)]
    with translator(model, processor, PROMPTS["en-de"], settings, END) as lent:
        utterances = [make_segment_audio(processor, f"noise/{n}", wave) for n, wave in enumerate(noise)]
        texts = [found.text for found in lent.generate(utterances)]
        scores = [lent.score(utterance, text) for utterance, text in zip(utterances, texts, strict=True)]
        penalized = [found.text for found in lent.generate(utterances, repetition_penalty=1.2, no_repeat_ngram_size=3)]
    return texts, scores, penalized


@pytest.mark.parametrize("free", [0, 64 << 30], ids=["codes", "decoded-once"])
def test_decoding(model_folder, free):
    texts, scores, penalized = decoded(model_folder, "cpu", None)
    with simulated_gpu():
        there = decoded(model_folder, "cuda", free)
    assert (there[0], there[2]) == (texts, penalized)
    assert there[1] == pytest.approx(scores, abs=1e-3)


@pytest.mark.parametrize("solver", ["hqq", "hqq-rounded-zero", "hqq-library", "als"])
def test_solving(solver):
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(0)) / 50
    solve = bind_solver(solver)("w", Affine(bits=3, group_size=64))
    here = solve(weight, 3, 64)
    with simulated_gpu():
        there = solve(weight.to("cuda"), 3, 64)
        assert isinstance(there.codes, SimulatedTensor)
        codes = there.codes.cpu()
    assert (codes != here.codes).float().mean() < 0.01


def test_calibration_by_moments(base, data, tmp_path):
    options = MomentsOptions(pairs=PAIRS, source="dev", utterances=0, gradient_utterances=4, seed=1)

    def measured(device: str) -> dict[str, torch.Tensor]:
        out = tmp_path / device
        out.mkdir()
        calibrate_moments(base, data, data, out, options=options, prompts=PROMPTS, end_token=END, device=device)
        files = sorted(out.rglob("*.safetensors"))
        return {f"{path.relative_to(out)}/{name}": part for path in files for name, part in load_file(path).items()}

    here = measured("cpu")
    with simulated_gpu():
        there = measured("cuda")
    assert len(here) > 40 and here.keys() == there.keys()
    for name, part in here.items():
        torch.testing.assert_close(there[name], part, rtol=2e-3, atol=1e-3 * float(part.abs().max()), msg=name)


def test_calibration_by_awq(base, data, tmp_path):
    options = AwqOptions(pairs=PAIRS, targets=False, utterances=6, seed=42, exponents=2)
    codecs = resolve_codecs(read_config(base), RULES, OVERRIDES)

    def errors(device: str) -> dict[str, float]:
        out = tmp_path / device
        out.mkdir()
        calibrate_awq(
            base, codecs, data, data, out, solver="hqq", options=options, prompts=PROMPTS, end_token=END, device=device
        )
        groups = json.loads((out / "awq_report.json").read_text(encoding="utf-8"))["groups"]
        return {name: group["relative_error"]["after"] for name, group in groups.items()}

    here = errors("cpu")
    with simulated_gpu():
        there = errors("cuda")
    assert there == pytest.approx(here, rel=0.02)


def test_sensitivity_of_layers(base, data, tmp_path):
    def increases(device: str) -> list[float]:
        out = tmp_path / device
        out.mkdir()
        options = ranked_options()
        analyse(base, data, data, out, options=options, prompts=PROMPTS, end_token=END, dtype="float32", device=device)
        layers = json.loads((out / "ranking.json").read_text(encoding="utf-8"))["layers"]
        return [layer["mean"]["value"] for layer in layers]

    here = increases("cpu")
    with simulated_gpu():
        there = increases("cuda")
    assert there == pytest.approx(here, abs=2e-3)


def test_recovery(base, data, tmp_path):
    packed = pack_coarsely(base, tmp_path / "packed", coarse_codecs(base))

    def tuned(device: str) -> dict[str, torch.Tensor]:
        out = tmp_path / device
        out.mkdir()
        recover_system(base, packed, data, data, out, options=OPTIONS, prompts=PROMPTS, end_token=END, device=device)
        return load_file(out / "model" / "model.safetensors")

    here = tuned("cpu")
    with simulated_gpu():
        there = tuned("cuda")
    assert here.keys() == there.keys()
    for name, part in here.items():
        if part.is_floating_point():
            torch.testing.assert_close(there[name].float(), part.float(), rtol=0.05, atol=0.02, msg=name)
        else:
            assert torch.equal(there[name], part), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_training(base, dtype):
    from submission.system.recipe.recipe_files import read_recipe
    from train.bench.full_size import WARM_UP_STEPS, make_batch, make_model, time_steps

    config = read_config(base)
    options = read_recipe("primary", "miniature").finetune
    options = dataclasses.replace(options, dtype=dtype)
    with simulated_gpu():
        device = torch.device("cuda")
        model = make_model(config, options, device)
        before = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
        time_steps(model, make_batch(config, 2, torch.Generator().manual_seed(0)), options, WARM_UP_STEPS + 1, device)
        after = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_from_the_first_step_to_the_adapter(tmp_path):
    from tests.train.finetuning_inputs import TASK, options, write_finetuning_inputs
    from train.finetune import finetune

    given, out = write_finetuning_inputs(tmp_path / "inputs"), tmp_path / "out"
    out.mkdir()
    choices = options(dtype="bfloat16", gradient_checkpointing=True, epochs=1)
    with simulated_gpu():
        report = finetune(given.base, given.corpus, given.data, TASK, choices, out)
    first, last = (loss for _, loss in report["dev_loss_by_step"])
    assert last < first
    assert {tensor.dtype for tensor in load_file(out / "adapter/adapter_model.safetensors").values()} == {torch.float32}
