from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantize.calibration.folding import SCALES, Folding, divide_channels, effective_scales, write_scales
from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL
from submission.model.families import family_of, read_config, tensors
from submission.runtime.loading import load_model, load_processor
from submission.runtime.prompt import build_inputs, render_prompt
from tests.support.tiny_qwen import build_checkpoint

UP = "language_model.model.layers.0.mlp.up_proj.weight"
NORM = "language_model.model.layers.0.post_attention_layernorm.weight"
BIAS = "audio_tower.layers.1.final_layer_norm.bias"
GROUP = "language_model.model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A checkpoint whose norms and biases are no ones and zeros, so that folding them shows."""
    folder = build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)
    draw, path = torch.Generator().manual_seed(2), folder / "model.safetensors"
    weights = {name: t.clone() for name, t in load_file(path).items()}
    for name, tensor in weights.items():
        if tensor.dim() == 1:
            noise = torch.randn(tensor.shape, generator=draw) * 0.3
            weights[name] = (noise if name.endswith("bias") else noise.exp()).to(tensor.dtype)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def groups_of(folder: Path):
    config = read_config(folder)
    return family_of(config).smoothing_groups(config)


def draw_scales(folder: Path, *, powers_of_two: bool) -> dict[str, torch.Tensor]:
    """Effective scales of every group, between an eighth and eight."""
    draw, weights, scales = torch.Generator().manual_seed(7), load_file(folder / "model.safetensors"), {}
    for group in groups_of(folder):
        exponents = torch.rand(len(weights[group.sources[0]]), generator=draw) * 6 - 3
        wanted = torch.exp2(exponents.round() if powers_of_two else exponents)
        scales[group.name] = effective_scales(wanted, [weights[name] for name in group.sources])
    return scales


def cast(folder: Path, out: Path, dtype: torch.dtype) -> Path:
    shutil.copytree(folder, out)
    weights = {name: t.to(dtype) for name, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}), "utf-8")
    return out


def fold_all(folder: Path, out: Path, scales: dict[str, torch.Tensor]) -> Path:
    """The checkpoint with every tensor folded and none packed."""
    shutil.copytree(folder, out)
    folding = Folding(scales, read_config(folder), packed=())
    weights = {name: folding.fold(name, t) for name, t in load_file(folder / "model.safetensors").items()}
    save_file({name: t.contiguous() for name, t in weights.items()}, out / "model.safetensors", {"format": "pt"})
    return out


def logits(folder: Path, dtype: str = "float32") -> torch.Tensor:
    processor, draw = load_processor(folder), np.random.default_rng(3)
    waveforms = [draw.normal(0, 0.1, n).astype(np.float32) for n in (20_000, 90_000)]
    prompts = [render_prompt(PROMPT, name) for name in ("German", "Chinese")]
    inputs = build_inputs(processor, waveforms, prompts, ["die Katze schläft", "die Katze"])
    del inputs["labels"]
    model, _ = load_model(folder, dtype)
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"] == 1]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far logits are apart, relative to how far they spread."""
    return float((one - other).square().mean().sqrt() / other.std())


def test_a_folded_models_logits_are_the_originals_in_float32(base, tmp_path):
    original = cast(base, tmp_path / "float32", torch.float32)
    folded = fold_all(original, tmp_path / "folded", draw_scales(original, powers_of_two=False))
    assert distance(logits(folded), logits(original)) < 1e-5


def test_a_folded_models_logits_differ_by_the_rounding_of_bfloat16(base, tmp_path):
    folded = fold_all(base, tmp_path / "folded", draw_scales(base, powers_of_two=False))
    scales = draw_scales(cast(base, tmp_path / "wide", torch.float32), powers_of_two=False)
    unrounded = fold_all(tmp_path / "wide", tmp_path / "unrounded", scales)
    rounded = cast(unrounded, tmp_path / "rounded", torch.bfloat16)
    # What any rounding of all weights to bfloat16 does to this model, the folded one's among them.
    rounding = distance(logits(rounded), logits(base))
    assert 0 < distance(logits(folded), logits(base)) < 1.2 * rounding < 0.05


def test_powers_of_two_change_no_logit_at_all(base, tmp_path):
    folded = fold_all(base, tmp_path / "folded", draw_scales(base, powers_of_two=True))
    before, after = (load_file(f / "model.safetensors")[UP] for f in (base, folded))
    assert not torch.equal(before, after)
    assert torch.equal(logits(folded), logits(base))


def test_what_is_packed_is_not_rounded_and_what_is_kept_stays_in_its_dtype(base):
    scales, weights = draw_scales(base, powers_of_two=False), load_file(base / "model.safetensors")
    folding = Folding(scales, read_config(base), packed={UP})
    norm_scale = scales[NORM.removesuffix(".weight")]
    expected = weights[UP].float() * norm_scale / scales[GROUP][:, None]
    assert torch.equal(folding.fold(UP, weights[UP]), expected)
    norm = folding.fold(NORM, weights[NORM])
    assert norm.dtype == torch.bfloat16
    assert torch.allclose(norm.float() * norm_scale, weights[NORM].float(), rtol=1e-6)
    assert folding.fold(BIAS, weights[BIAS]).dtype == torch.bfloat16
    untouched = weights["language_model.model.norm.weight"]
    assert folding.fold("language_model.model.norm.weight", untouched) is untouched


def test_every_other_tensor_is_handed_through(base):
    scales, weights = draw_scales(base, powers_of_two=False), load_file(base / "model.safetensors")
    folding = Folding(scales, read_config(base), packed=())
    touched = {
        spec.name for spec in tensors(read_config(base)) if folding.fold(spec.name, w := weights[spec.name]) is not w
    }
    assert touched == {name for group in groups_of(base) for name in (*group.sources, *group.targets)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 8.0))
def test_dividing_by_effective_scales_gives_the_rounded_weights_again(dtype, seed, spread):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, generator=draw).to(dtype)
    scales = torch.exp2((torch.rand(64, generator=draw) * 2 - 1) * spread)
    effective = effective_scales(scales, [weight])
    rounded = (weight.float() / scales).to(dtype)
    assert torch.equal(divide_channels(weight.float(), effective).to(dtype), rounded)
    assert torch.allclose(rounded.float() * effective, weight.float(), rtol=1e-6)
    assert torch.equal(effective_scales(torch.ones(64), [weight]), torch.ones(64))


def test_a_channel_that_rounding_would_lose_keeps_its_scale_of_one():
    weight = torch.tensor([1e-6, 0.0, 6e4, 1.0], dtype=torch.float16)
    scales = torch.tensor([256.0, 4.0, 0.25, 3.0])
    effective = effective_scales(scales, [weight])
    assert effective[:3].tolist() == [1.0, 4.0, 1.0] and effective[3] == pytest.approx(3.0, rel=1e-3)
    bias = torch.tensor([0.0, 0.0, 0.0, 6e4], dtype=torch.float16)
    assert effective_scales(torch.full((4,), 0.5), [torch.ones(4).half(), bias]).tolist() == [0.5, 0.5, 0.5, 1.0]
    linear = torch.tensor([[1e-6, 1.0], [6e4, 1.0]], dtype=torch.float16)
    assert effective_scales(torch.tensor([256.0, 0.5]), [linear]).tolist() == [256.0, 1.0]


def test_scales_are_read_as_they_were_written_and_in_the_same_bytes(base, tmp_path):
    scales = draw_scales(base, powers_of_two=False)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_scales(tmp_path / "a", scales)
    write_scales(tmp_path / "b", dict(reversed(scales.items())))
    assert (tmp_path / "a" / SCALES).read_bytes() == (tmp_path / "b" / SCALES).read_bytes()
    read = load_file(tmp_path / "a" / SCALES)
    assert read.keys() == scales.keys() and all(torch.equal(read[name], scales[name]) for name in scales)
    weight = load_file(base / "model.safetensors")[UP]
    config = read_config(base)
    again = Folding.read(tmp_path / "a", config, packed={UP})
    assert torch.equal(again.fold(UP, weight), Folding(scales, config, packed={UP}).fold(UP, weight))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.pop(GROUP), f"{GROUP}: is missing (1 groups in all)"),
        (lambda s: s.update({"x.norm": torch.ones(3)}), "x.norm: is no group of this model"),
        (lambda s: s.update({GROUP: torch.ones(5)}), f"{GROUP}: expected float32 [128], got float32 [5]"),
        (lambda s: s.update({GROUP: torch.ones(128).half()}), f"{GROUP}: expected float32 [128], got float16 [128]"),
        (lambda s: s[GROUP].fill_(0.0), f"{GROUP}: holds a scale that is not positive and finite"),
        (lambda s: s[GROUP].fill_(-1.0), f"{GROUP}: holds a scale that is not positive and finite"),
        (lambda s: s[GROUP][3:4].fill_(float("nan")), f"{GROUP}: holds a scale that is not positive and finite"),
        (lambda s: s[GROUP][3:4].fill_(float("inf")), f"{GROUP}: holds a scale that is not positive and finite"),
    ],
)
def test_scales_that_are_not_this_models_are_refused_by_their_group(base, tmp_path, edit, said):
    scales = draw_scales(base, powers_of_two=False)
    edit(scales)
    save_file(scales, tmp_path / SCALES)
    with pytest.raises(UserError) as caught:
        Folding.read(tmp_path, read_config(base), packed=())
    assert f"{tmp_path / SCALES}: {said}" in str(caught.value)


def test_a_file_that_is_cut_short_is_refused(base, tmp_path):
    write_scales(tmp_path, draw_scales(base, powers_of_two=False))
    path = tmp_path / SCALES
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="truncated"):
        Folding.read(tmp_path, read_config(base), packed=())


def test_a_kept_tensor_that_leaves_its_dtype_is_refused_by_name(base):
    scales = draw_scales(base, powers_of_two=True)
    folding = Folding(scales, read_config(base), packed=())
    with pytest.raises(UserError, match=f"{NORM}: its scales take it out of the range of torch.float16"):
        folding.fold(NORM, torch.full((128,), 6e4, dtype=torch.float16))
