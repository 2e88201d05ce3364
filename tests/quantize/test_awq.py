from __future__ import annotations

import dataclasses
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantize.calibration import awq
from quantize.calibration.awq import (
    JOURNAL,
    ActivationStatistics,
    CalibrationSet,
    calibrate,
    draw_positions,
)
from quantize.calibration.folding import SCALES, Folding
from quantize.calibration.scale_search import SCALE_LIMIT, output_errors, scales_of, search
from quantize.packing.pack import pack_checkpoint
from quantize.solvers.bound import bind_solver
from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from submission.runtime.prompt import build_inputs, render_prompt
from submission.store.digests import tree_digest
from submission.system.recipe.quantize_options import AwqOptions
from submission.text.corpus import write_corpus
from tests.quantize.support import DEV_UTTERANCES
from tests.support.tiny_qwen import build_checkpoint

FOUR = Affine(bits=4, group_size=64)
HQQ = bind_solver("hqq")
OPTIONS = AwqOptions(pairs=("en-de", "en-zh"), targets=False, utterances=0, seed=42, exponents=4)
PROMPTS = {"en-de": render_prompt(PROMPT, "German"), "en-zh": render_prompt(PROMPT, "Chinese")}
PROJECTOR = "audio_tower.layer_norm"


# --- the search ---


def layer_with_outliers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean magnitudes, sample, weight): four of 128 channels take in thirty times as much as the others."""
    draw = torch.Generator().manual_seed(seed)
    sample = torch.randn(200, 128, generator=draw)
    sample[:, :4] *= 30
    return sample.abs().mean(dim=0, dtype=torch.float64), sample, torch.randn(96, 128, generator=draw) * 0.02


def choose(mean, sample, weights, exponents=10, codec=FOUR):
    sources = [torch.ones(len(mean), dtype=torch.bfloat16)]
    return search(mean, sample, sources, [(name, w, codec) for name, w in weights.items()], HQQ, exponents)


def test_scales_lower_the_error_where_channels_stand_out():
    mean, sample, weight = layer_with_outliers()
    choice = choose(mean, sample, {"w": weight})
    assert choice.exponent > 0 and choice.after["w"] < 0.5 * choice.before["w"]
    assert min(choice.scales[:4]) > max(choice.scales[4:])


@pytest.mark.parametrize("seed", range(4))
def test_scales_never_raise_the_error_on_the_sample(seed):
    draw = torch.Generator().manual_seed(seed)
    sample = torch.randn(100, 128, generator=draw) * torch.rand(128, generator=draw).pow(seed)
    weights = {name: torch.randn(48, 128, generator=draw) * 0.02 for name in ("gate", "up")}
    choice = choose(sample.abs().mean(dim=0, dtype=torch.float64), sample, weights)
    assert sum(choice.after.values()) <= sum(choice.before.values())
    assert choice.exponent > 0 or (choice.after == choice.before and set(choice.scales) == {1.0})


def test_errors_are_those_of_the_weight_that_comes_back():
    _, sample, weight = layer_with_outliers()
    scales = torch.linspace(0.5, 2.0, 128)
    stored = FOUR.encode(weight * scales, HQQ("w", FOUR))
    restored = FOUR.decode(stored, tuple(weight.shape), torch.float32).double() / scales.double()
    wanted, got = sample.double() @ weight.double().T, sample.double() @ restored.T
    expected = float((got - wanted).square().sum() / wanted.square().sum())
    assert output_errors("w", weight, FOUR, [scales], sample, HQQ) == [pytest.approx(expected, rel=1e-4)]


def test_scales_are_searched_as_they_survive_the_norms_rounding():
    mean, sample, weight = layer_with_outliers()
    norm = torch.linspace(0.3, 1.7, 128).bfloat16()
    scales = torch.tensor(search(mean, sample, [norm], [("w", weight, FOUR)], HQQ, 10).scales)
    divided = norm.float() / scales
    assert torch.allclose(divided, divided.bfloat16().float(), rtol=1e-6)


def test_a_dead_channel_keeps_its_scale_and_a_dead_input_its_exponent():
    mean, sample, weight = layer_with_outliers()
    mean[7] = 0
    sample[:, 7] = 0
    assert choose(mean, sample, {"w": weight}).scales[7] == 1.0
    dead = choose(torch.zeros(128, dtype=torch.float64), torch.zeros(5, 128), {"w": weight})
    assert dead.exponent == 0 and set(dead.scales) == {1.0} and dead.after == {"w": 0.0}


@given(seed=st.integers(0, 2**31), decades=st.floats(0, 30), exponent=st.floats(0, 1))
def test_scales_are_positive_and_within_their_limits(seed, decades, exponent):
    draw = torch.Generator().manual_seed(seed)
    mean = 10 ** ((torch.rand(16, generator=draw, dtype=torch.float64) - 0.5) * decades)
    scales = scales_of(mean, exponent)
    assert scales.dtype == torch.float32 and float(scales.min()) >= 1 / SCALE_LIMIT
    assert float(scales.max()) <= SCALE_LIMIT
    assert float(scales.max() * scales.min()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(scales_of(mean, 0.0), torch.ones(16))


def test_a_weight_that_its_codec_cannot_store_is_refused_by_name():
    mean, sample, weight = layer_with_outliers()
    with pytest.raises(UserError, match="mlp.up: a scale of affine4g64 is beyond float16"):
        choose(mean, sample, {"mlp.up": weight * 1e8})
    # A candidate that scales a weight out of what can be stored is merely no choice.
    scales = torch.ones(128)
    scales[0] = 1e9
    errors = output_errors("w", weight, FOUR, [torch.ones(128), scales], sample, HQQ)
    assert errors[0] < 0.1 and errors[1] == float("inf")


# --- what is observed ---


def test_padding_is_not_observed():
    calibration_set = CalibrationSet(batches=[{}, {}], positions={"text": [[3, 1], [2]]})
    observer = ActivationStatistics({"w": "text"}, calibration_set, seed=0)
    assert observer.take("w") is None
    first = torch.full((2, 4, 5), torch.nan)
    first[0, :3], first[1, :1] = 2.0, -4.0
    second = torch.full((1, 2, 5), 1.0)
    observer("w", 0, first)
    observer("w", 1, second)
    mean, sample = observer.take("w")
    assert mean.tolist() == [pytest.approx((3 * 2 + 4 + 2 * 1) / 6)] * 5
    assert sample[:, 0].tolist() == [2, 2, 2, -4, 1, 1]
    assert observer.take("w") is None


def test_a_model_that_computes_nothing_finite_is_refused_by_the_weight():
    observer = ActivationStatistics({"mlp.up": "text"}, CalibrationSet(batches=[{}], positions={"text": [[2]]}), seed=0)
    observer("mlp.up", 0, torch.tensor([[[1.0], [torch.inf]]]))
    with pytest.raises(UserError, match="mlp.up: its inputs are not finite"):
        observer.take("mlp.up")


def test_the_sample_is_drawn_over_all_batches_and_by_the_seed_alone(monkeypatch):
    monkeypatch.setattr(awq, "SAMPLED_POSITIONS", 40)
    lengths = [[30, 20], [50], [100]]
    drawn = draw_positions(lengths, "1")
    assert sum(map(len, drawn)) == 40 and all(len(batch) for batch in drawn)
    assert all(int(b.min()) >= 0 and int(b.max()) < sum(rows) for b, rows in zip(drawn, lengths, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(drawn, draw_positions(lengths, "1"), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(drawn, draw_positions(lengths, "2"), strict=True))
    assert [len(batch) for batch in draw_positions([[3], [4]], "1")] == [3, 4]


# --- the whole calibration ---


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """dev.jsonl and, below the same folder, the recording of its utterances."""
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "dev.jsonl", DEV_UTTERANCES)
    (folder / "dev").mkdir()
    samples = np.random.default_rng(5).normal(0, 2000, 10 * 16_000).astype("<i2")
    with wave.open(str(folder / "dev" / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return folder


def codecs_of(base: Path, *roles: str):
    return resolve_codecs(read_config(base), dict.fromkeys(roles or ("linears",), FOUR))


def run(
    base: Path,
    data: Path,
    out: Path,
    options: AwqOptions = OPTIONS,
    *,
    roles: tuple[str, ...] = (),
    device: str = "cpu",
) -> dict:
    out.mkdir(exist_ok=True)
    calibrate(
        base,
        codecs_of(base, *roles),
        data,
        data,
        out,
        solver="hqq",
        options=options,
        prompts=PROMPTS,
        end_token="<|im_end|>",
        device=device,
    )
    return json.loads((out / "awq_report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(base, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made")
    run(base, data, out)
    return out


def test_every_group_is_searched_and_none_gets_worse(base, made):
    report = json.loads((made / "awq_report.json").read_text(encoding="utf-8"))
    config = read_config(base)
    groups = family_of(config).smoothing_groups(config)
    assert set(report["groups"]) == {group.name for group in groups} and report["unscaled"] == []
    for group in groups:
        entry = report["groups"][group.name]
        assert set(entry["targets"]) == set(group.targets)
        assert 0 < entry["relative_error"]["after"] <= entry["relative_error"]["before"] < 0.05
        assert entry["exponent"] in (0, 0.25, 0.5, 0.75)
    assert any(entry["exponent"] > 0 for entry in report["groups"].values())


def test_the_report_says_what_was_read(made):
    read = json.loads((made / "awq_report.json").read_text(encoding="utf-8"))["calibration"]
    assert (read["pairs"], read["targets"], read["utterances"]) == (["en-de", "en-zh"], False, 10)
    # One second is 50 frames, 25 positions of the encoder, 12 of the projector; the prompt's text is besides.
    assert read["positions"]["audio"] == 250 and read["positions"]["projector"] == 120
    assert read["positions"]["text"] > 120 + 10 * 3
    assert read["sampled_positions"] == {name: min(512, n) for name, n in read["positions"].items()}


def test_targets_are_read_where_the_recipe_says_so(base, data, made, tmp_path):
    options = AwqOptions(pairs=("en-de",), targets=True, utterances=4, seed=42, exponents=2)
    read = run(base, data, tmp_path / "out", options, roles=("mlp.down",))["calibration"]
    short = run(base, data, tmp_path / "short", dataclasses.replace(options, targets=False), roles=("mlp.down",))
    assert read["utterances"] == 4 and read["positions"]["text"] > short["calibration"]["positions"]["text"]


def test_calibrating_twice_gives_the_same_bytes(base, data, made, tmp_path):
    run(base, data, tmp_path / "again")
    assert tree_digest(tmp_path / "again") == tree_digest(made)
    assert sorted(path.name for path in made.iterdir()) == ["awq_report.json", SCALES]


@pytest.mark.gpu
def test_a_gpu_finds_the_errors_that_the_cpu_finds(base, data, made, tmp_path):
    ours = json.loads((made / "awq_report.json").read_text(encoding="utf-8"))["groups"]
    theirs = run(base, data, tmp_path / "once", device="cuda")["groups"]
    for name, group in ours.items():
        # Of exponents that do equally well either may win; the errors are the same.
        assert theirs[name]["relative_error"] == pytest.approx(group["relative_error"], rel=0.01), name
    run(base, data, tmp_path / "twice", device="cuda")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")


def test_a_killed_calibration_resumes_to_the_same_bytes(base, data, made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        searched = []
        patch.setattr(awq, "_search_group", dying_after(4, awq._search_group, searched))
        with pytest.raises(KeyboardInterrupt):
            run(base, data, out)
    with (out / JOURNAL).open("ab") as file:
        file.write(b'["audio_tower.layers.1.self_attn.v_proj", {"expo')
    with monkeypatch.context() as patch:
        patch.setattr(awq, "_search_group", dying_after(99, awq._search_group, searched))
        run(base, data, out)
    assert len(searched) == len(set(searched)) == len(load_file(made / SCALES))
    assert tree_digest(out) == tree_digest(made)


def dying_after(groups: int, search_group, searched: list[str]):
    """The search itself, until the process is killed in front of the group after so many."""

    def search_or_die(model, group, *rest):
        if len(searched) == groups:
            raise KeyboardInterrupt
        searched.append(group.name)
        return search_group(model, group, *rest)

    return search_or_die


def test_groups_that_nothing_packs_move_nothing(base, data, tmp_path):
    report = run(base, data, tmp_path / "out", roles=("projector", "embedding"))
    assert (
        set(report["groups"]) == {PROJECTOR}
        and len(report["unscaled"]) == len(load_file(tmp_path / "out" / SCALES)) - 1
    )
    scales = load_file(tmp_path / "out" / SCALES)
    assert all(torch.equal(s, torch.ones_like(s)) for name, s in scales.items() if name != PROJECTOR)


def test_what_is_found_can_be_folded(base, made):
    codecs = codecs_of(base)
    folding = Folding.read(made, read_config(base), codecs)
    weights = load_file(base / "model.safetensors")
    scales = load_file(made / SCALES)[PROJECTOR]
    name = "multi_modal_projector.linear.weight"
    assert torch.equal(folding.fold(name, weights[name]), weights[name].float() * scales)


def test_a_packed_model_whose_channels_stand_out_comes_nearer_to_the_original(base, data, tmp_path):
    loud = Path(shutil.copytree(base, tmp_path / "loud"))
    weights = {name: t.clone() for name, t in load_file(loud / "model.safetensors").items()}
    for name, tensor in weights.items():
        if tensor.dim() == 1 and "norm" in name and name.endswith("weight"):
            tensor[:4] *= 30
    save_file(weights, loud / "model.safetensors", metadata={"format": "pt"})
    run(loud, data, tmp_path / "awq")
    codecs, config = codecs_of(loud), read_config(loud)
    foldings = {"plain": None, "folded": Folding.read(tmp_path / "awq", config, codecs)}
    for name, folding in foldings.items():
        (tmp_path / name).mkdir()
        pack_checkpoint(loud, tmp_path / name, codecs, solver="hqq", folding=folding)
    wanted, plain, folded = (states(tmp_path / name) for name in ("loud", *foldings))
    assert (folded - wanted).norm() < 0.7 * (plain - wanted).norm()


def states(folder: Path) -> torch.Tensor:
    """What a model's last layer makes of an utterance that it was not calibrated on."""
    model, processor = load_model(folder, "float32")
    waveform = np.random.default_rng(6).normal(0, 0.1, 40_000).astype(np.float32)
    inputs = build_inputs(processor, [waveform], [PROMPTS["en-de"]])
    with torch.no_grad():
        return model.base_model(**inputs, use_cache=False).last_hidden_state


def test_too_many_utterances_are_refused_before_any_audio_is_read(base, data, tmp_path):
    (tmp_path / "dev.jsonl").write_bytes((data / "dev.jsonl").read_bytes())
    with pytest.raises(UserError, match="requests 11 utterances"):
        calibrate(
            base,
            codecs_of(base),
            tmp_path,
            tmp_path / "no audio here",
            tmp_path,
            solver="hqq",
            options=dataclasses.replace(OPTIONS, utterances=11),
            prompts=PROMPTS,
            end_token="<|im_end|>",
        )
