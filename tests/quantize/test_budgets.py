"""Budgets: a target becomes the bytes of every weight, exactly, and the model packed with them weighs that."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from quantize import stages
from quantize.artifact_files import MOMENTS
from quantize.calibration.model_moments import MomentsFolder, check_memory
from quantize.calibration.moment_files import write_factor, write_importance
from quantize.solvers.feedback import factorize
from submission.bundle.description import derive_facts
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.budgets import (
    budgeted_shapes,
    equal_rate_shares,
    fit_budgets,
    least_budget,
    provisional_forecast,
    read_budgets,
)
from submission.model.checkpoint import packed_config, read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import read_config, tensors
from submission.model.forecast import CARD_BYTES, add_up, allotted, companion_bytes, forecast, resolve_codecs
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from tests.support.budgeted import Budgeted, register_budgeted
from tests.support.tiny_qwen import build_checkpoint

RULES = {"linears": Budgeted(), "embedding": Budgeted(), "audio": Affine(bits=8, group_size=64)}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps"], SMALL, 1)


@pytest.fixture
def registered(monkeypatch) -> None:
    register_budgeted(monkeypatch)


def target_of(base: Path, bits: float) -> int:
    """Return what the model weighs with so many bits for each weight with a budget."""
    config = read_config(base)
    codecs = resolve_codecs(config, RULES)
    budgets = {n: int(bits * math.prod(s) / 8) + 200 for n, s in budgeted_shapes(config, codecs).items()}
    return add_up(config, tensors(config), allotted(codecs, budgets), other_of(base)).total_bytes


def other_of(base: Path) -> int:
    return companion_bytes(base)


@pytest.mark.parametrize("bits", [15, 7.3, 6.11])
def test_shares_meet_a_target_to_a_few_bytes(base, bits):
    config, target = read_config(base), target_of(base, bits)
    codecs = resolve_codecs(config, RULES)
    shapes = budgeted_shapes(config, codecs)
    shares = equal_rate_shares(shapes, {n: least_budget(codecs[n], s) for n, s in shapes.items()})
    budgets = fit_budgets(config, codecs, target, shares, other_bytes=other_of(base))
    found = forecast(config, RULES, other_bytes=other_of(base), budgets=budgets)
    assert 0 <= target - found.total_bytes < 64 and found.total_bytes >= 0.999 * target
    assert budgets.keys() == shapes.keys() and not found.provisional


def test_the_least_budget_is_the_smallest_that_the_codec_accepts():
    assert least_budget(Budgeted(), (24, 40)) == 2 * 64 + 16


def test_a_target_below_the_rest_says_the_least(base):
    with pytest.raises(UserError, match="raise the target") as caught:
        provisional_forecast(read_config(base), RULES, (), 1000, other_bytes=0)
    smallest = int(str(caught.value).split("weigh ")[1].split(";")[0].replace(",", ""))
    assert provisional_forecast(read_config(base), RULES, (), smallest + 4000, other_bytes=0).provisional
    with pytest.raises(UserError):
        provisional_forecast(read_config(base), RULES, (), smallest - 1, other_bytes=0)


def test_a_target_above_the_unpacked_model_says_what_that_weighs(base):
    config = read_config(base)
    plain = forecast(config, (), other_bytes=0).total_bytes
    with pytest.raises(UserError, match="lower the target") as caught:
        provisional_forecast(config, RULES, (), 2 * plain, other_bytes=0)
    most = int(str(caught.value).split("weighs ")[1].split(";")[0].replace(",", ""))
    assert most <= plain and provisional_forecast(config, RULES, (), most, other_bytes=0).provisional


def write_moments(base: Path, folder: Path) -> None:
    """Fill a folder with moments of random inputs, as the stage calibrate does."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for spec in tensors(read_config(base)):
        if spec.packable:
            inputs[spec.name] = key = spec.name.removesuffix(".weight")
            samples = torch.randn(200, spec.shape[1], generator=generator)
            write_factor(folder, key, factorize(samples.t() @ samples / 200, spec.shape[1]), 200)
            write_importance(folder, spec.name, torch.rand(spec.shape[0], generator=generator) + 0.1, 10)
    (folder / MOMENTS).write_text(canonical_json({"inputs": inputs, "tied": {}, "fisher": True}), encoding="utf-8")


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_packed_model_weighs_what_was_allotted(base, registered, tmp_path, calibrated):
    options = {
        "solver": "feedback-zlib",
        "codecs": {role: codec.to_dict() for role, codec in RULES.items() if role != "audio"},
        "overrides": [],
    }
    inputs, target = {"merge": base}, target_of(base, 9.5)
    if calibrated:
        write_moments(base, tmp_path / "moments")
        inputs["calibrate"] = tmp_path / "moments"
    allocation, packed = tmp_path / "allocation", tmp_path / "packed"
    allocation.mkdir()
    packed.mkdir()
    stages.allocate({**options, "target_bytes": target}, inputs, allocation)
    report = json.loads((allocation / "budgets.json").read_text(encoding="utf-8"))
    assert 0.999 * target <= report["total_bytes"] <= target
    assert (report["predicted_divergence"] is None) == (not calibrated)
    stages.pack(options, inputs | {"allocate": allocation}, packed)
    assert sum(path.stat().st_size for path in (packed / "model").iterdir()) == report["total_bytes"] - CARD_BYTES
    codecs = read_checkpoint(packed / "model").codecs
    assert {name: codec.budget_bytes for name, codec in codecs.items()} == read_budgets(allocation)


def test_a_weight_that_matters_more_gets_more_bytes(base, registered, tmp_path):
    write_moments(base, tmp_path / "moments")
    options = {"solver": "feedback-zlib", "codecs": {"*": {"kind": "budgeted"}}, "overrides": []}
    names = [spec.name for spec in tensors(read_config(base)) if spec.role == "mlp.up"]
    found = []
    for factor in (1.0, 64.0):
        importance = factor * torch.ones(dict(_shapes(base))[names[0]][0])
        write_importance(tmp_path / "moments", names[0], importance, 10)
        out = tmp_path / f"out{factor}"
        out.mkdir()
        inputs = {"merge": base, "calibrate": tmp_path / "moments"}
        stages.allocate({**options, "target_bytes": target_of(base, 9.5)}, inputs, out)
        found.append(read_budgets(out)[names[0]])
    assert found[1] > 1.2 * found[0]


def _shapes(base: Path):
    return ((spec.name, spec.shape) for spec in tensors(read_config(base)))


def test_a_model_that_does_not_fit_in_memory_is_refused_before_any_work(base, monkeypatch):
    monkeypatch.setattr("quantize.calibration.model_moments.free_bytes", lambda device: 1 << 10)
    with pytest.raises(UserError, match="machine or GPU with more memory"):
        check_memory(read_checkpoint(base), "cpu")


def test_a_weight_without_moments_is_named(base, tmp_path):
    write_moments(base, tmp_path / "moments")
    with pytest.raises(UserError, match=r"has no moments of nothing\.weight; calibrate again"):
        MomentsFolder(tmp_path / "moments").read("nothing.weight")


def test_the_description_names_what_moments_were_calibrated_on_and_what_was_tuned(base):
    campaign, recipe = read_campaign("miniature"), read_recipe("frontier", "miniature")
    config = read_config(base)
    codecs = resolve_codecs(config, recipe.quantize.codecs)
    budgets = dict.fromkeys(budgeted_shapes(config, codecs), 100_000)
    facts = derive_facts(packed_config(config, allotted(codecs, budgets)), 1, campaign, recipe)
    (line,) = [line for line in facts.techniques if "second moments" in line]
    assert line == (
        "quantization errors weighed by second moments, calibrated on training data: 256 utterances, source and target "
        "(en-de, en-zh), gradients on all of them"
    )
    moments = dataclasses.replace(recipe.quantize.moments, gradient_utterances=32)
    fewer = dataclasses.replace(recipe, quantize=dataclasses.replace(recipe.quantize, moments=moments))
    facts = derive_facts(packed_config(config, allotted(codecs, budgets)), 1, campaign, fewer)
    assert any(line.endswith("gradients on 32 of them") for line in facts.techniques)
    recovered = read_recipe("ablation:entropy-2gb-recovered", "miniature")
    facts = derive_facts(packed_config(config, allotted(codecs, budgets)), 1, campaign, recovered)
    assert facts.data_sets and all("second moments, recovery" in line for line in facts.data_sets)
    assert [line for line in facts.techniques if "tuned after" in line] == [
        "scales, zero-points, norms and biases tuned after quantization, codes fixed, by Kullback-Leibler divergence "
        "to the fine-tuned model: 150 steps of 16 utterances, learning rate 0.005 times the root of the divergence at "
        "the start; training data, 1024 utterances, an eighth held out, source and every target (en-de, en-zh)"
    ]
    moments = dataclasses.replace(recipe.quantize.moments, source="dev", utterances=0, fisher=False)
    recipe = dataclasses.replace(recipe, quantize=dataclasses.replace(recipe.quantize, moments=moments))
    facts = derive_facts(packed_config(config, allotted(codecs, budgets)), 1, campaign, recipe)
    assert any(
        "on ACL 60/60 dev: all utterances, source and target (en-de, en-zh)" in line for line in facts.techniques
    )
