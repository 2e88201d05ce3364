"""Moments of a weight that is embedding and head: both uses are measured, and stand for both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedTextScaledWordEmbedding

from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.layerwise_moments import LayerwiseMoments
from quantize.calibration.model_moments import (
    MOMENTS,
    MomentsFolder,
    make_batches,
    observed_weights,
    positions_of,
    write_relative_importance,
)
from quantize.calibration.moment_files import read_factor, read_importance
from quantize.calibration.moments import GradientMoments, ObservedWeight, mixed
from quantize.calibration.tied_weights import combined_moments
from quantize.solvers.feedback import DAMPING, Moments, factorize
from submission.model.checkpoint import read_checkpoint
from submission.model.families import family_of, read_config, tensors
from submission.model.moments_size import input_keys, moments_size
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_weights
from submission.runtime.prompt import Example
from tests.support.tiny_gemma import write_gemma

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
TARGETS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_gemma(tmp_path_factory.mktemp("gemma"))


def examples_of(config) -> list[Example]:
    """Noise of about a second, a prompt and a translation of random words, three times."""
    generator, runtime, found = torch.Generator().manual_seed(1), runtime_of(config), []
    for seconds in (0.6, 0.8, 1.0):
        audio = runtime.noise(config, seconds, generator)
        text = torch.randint(20, 200, (8 + TARGETS,), generator=generator)
        ids = torch.cat([text[:8], torch.full((audio.positions,), runtime.audio_token(config)), text[8:]])
        found.append(Example(input_ids=ids, prompt_tokens=len(ids) - TARGETS, audio=audio))
    return found


def measure(checkpoint: Path, out: Path, *, fisher: bool) -> MomentsFolder:
    model = LayerwiseModel(checkpoint, dtype=torch.float32, device="cpu")
    config = model.checkpoint.config
    weights, batches = observed_weights(model), make_batches(model.checkpoint, examples_of(config), 0)
    counts = torch.arange(config["text_config"]["vocab_size"])
    passes = LayerwiseMoments(
        model,
        weights,
        positions_of(model.checkpoint),
        batches,
        gradient_batches=len(batches) if fisher else 0,
        out=out,
        scratch=out / "activations",
    )
    passes.forward()
    passes.head(torch.Generator().manual_seed(0))
    if fisher:
        passes.backward(counts)
    else:
        write_relative_importance(model.checkpoint, weights, counts, out)
    report = {"inputs": input_keys(config), "tied": family_of(config).tied_weights(config), "fisher": fisher}
    (out / MOMENTS).write_text(json.dumps(report), encoding="utf-8")
    return MomentsFolder(out)


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("moments")
    measure(checkpoint, out, fisher=True)
    return out


def second_moment(moments: Moments) -> torch.Tensor:
    factor = moments.read_factor(len(moments.stored_factor().diagonal))
    lower = factor.feedback.double() * factor.diagonal
    return lower @ lower.t()


def expected_squares(model, states: torch.Tensor) -> torch.Tensor:
    """Sum over targets of the squared gradient at the head's outputs, in the mean over all labels; by autograd."""
    total = torch.zeros(model.config.text_config.vocab_size, dtype=torch.float64)
    cap = model.config.text_config.final_logit_softcapping

    def log_likelihood(outputs: torch.Tensor) -> torch.Tensor:
        return (cap * torch.tanh(outputs / cap)).log_softmax(dim=-1)

    for outputs in model.lm_head(states).detach().double():
        gradients = torch.autograd.functional.jacobian(log_likelihood, outputs)  # [labels, outputs]
        total += log_likelihood(outputs).exp() @ gradients.square()
    return total


@pytest.mark.parametrize("cap", [30.0, 0.5])
def test_the_heads_use_is_that_of_the_librarys_model_with_its_cap(tmp_path, cap):
    """At a cap of .5 most of the gradient at the head's outputs is lost, at 30 nothing of it."""
    checkpoint = write_gemma(tmp_path / "base", final_logit_softcapping=cap)
    out = tmp_path / "moments"
    out.mkdir()
    measure(checkpoint, out, fisher=True)
    model = load_weights(checkpoint, torch.float32, "cpu")
    states = []
    with torch.no_grad():
        for batch in make_batches(read_checkpoint(checkpoint), examples_of(read_config(checkpoint)), 0):
            last = model.base_model(**batch.targets.inputs, use_cache=False).last_hidden_state
            states.append(batch.targets.pick(last))
    inputs = torch.cat(states)
    assert len(inputs) == 3 * TARGETS
    squares = expected_squares(model, inputs)
    assert torch.allclose(read_importance(out, HEAD).double(), mixed(squares / len(inputs)), rtol=1e-4)
    uncapped = runtime_of(read_config(checkpoint)).logits(model, inputs).detach().double().softmax(dim=-1)
    lost = 1 - float(squares.sum() / (uncapped * (1 - uncapped)).sum())
    assert lost > 0.4 if cap < 1 else lost < 0.01
    inputs = inputs.double()
    expected = inputs.t() @ inputs / len(inputs)
    expected += DAMPING * expected.diagonal().mean() * torch.eye(len(expected))
    factor = read_factor(out, "lm_head")
    lower = factor.feedback.double() * factor.diagonal
    assert torch.allclose(lower @ lower.t(), expected, rtol=1e-4, atol=1e-6)


def test_the_weight_has_the_cost_of_both_uses(made):
    """By row, for errors alike in all directions; by direction, for errors alike in all rows."""
    combined = MomentsFolder(made).read(EMBEDDING)
    row_costs, moment = torch.zeros(()), torch.zeros(())
    for name, key in ((EMBEDDING, EMBEDDING.removesuffix(".weight")), (HEAD, "lm_head")):
        factor, importance = read_factor(made, key), read_importance(made, name).double()
        lower = factor.feedback.double() * factor.diagonal
        row_costs = row_costs + importance * (lower @ lower.t()).trace()
        moment = moment + importance.sum() * (lower @ lower.t())
    found = second_moment(combined)
    assert torch.allclose(combined.importance * found.trace(), row_costs)
    assert torch.allclose(combined.importance.sum() * found, moment, rtol=1e-4, atol=1e-6 * float(moment.max()))


def test_a_use_that_costs_nothing_leaves_the_other_as_it_is():
    samples = torch.randn(100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor, importance = factorize(samples.t() @ samples / 100, 8), torch.rand(20) + 0.1
    nothing = Moments(stored_factor=lambda: factorize(None, 8), importance=torch.zeros(20))
    alone = Moments(stored_factor=lambda: factor, importance=importance)
    both = combined_moments([alone, nothing])
    ratio = both.importance / importance.double()  # what the importance loses, the second moment gains
    assert torch.allclose(ratio, ratio.mean().expand(20))
    assert torch.allclose(second_moment(both) * ratio.mean(), second_moment(alone), rtol=1e-5, atol=1e-9)


def test_a_scaled_embedding_is_measured_by_the_gradient_at_its_rows():
    """Where each row is read once, that is the gradient of the weight itself."""
    layer = Gemma4UnifiedTextScaledWordEmbedding(10, 4, padding_idx=0, embed_scale=7.0)
    scale = float(layer.scalar_embed_scale)
    weight = ObservedWeight(name="w", module=layer, input_key="w", kind="embedding", lookup_scale=scale)
    sums = GradientMoments(lambda batch, weight, shape: None)
    handle = layer.register_forward_hook(sums.hook(weight))
    direction = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    (layer(torch.tensor([2, 5, 7])) * direction).sum().backward()
    handle.remove()
    ((_, moment, _),) = sums.outer.take(count=1)
    assert torch.allclose(moment, layer.weight.grad.t() @ layer.weight.grad)


def test_a_tied_head_is_observed_beside_the_embedding(checkpoint):
    weights = {w.name: w for w in observed_weights(LayerwiseModel(checkpoint, dtype=torch.float32, device="cpu"))}
    assert weights[EMBEDDING].lookup_scale == pytest.approx(64**0.5, rel=0.01)
    assert (weights[EMBEDDING].kind, weights[HEAD].kind) == ("embedding", "head")
    assert weights[HEAD].input_key != weights[EMBEDDING].input_key


def test_without_gradients_both_uses_count_too(checkpoint, tmp_path):
    moments = measure(checkpoint, tmp_path, fisher=False).read(EMBEDDING)
    frequencies = read_importance(tmp_path, EMBEDDING)
    assert frequencies.argmax() == len(frequencies) - 1  # the token that is read most often
    assert moments.importance.shape == frequencies.shape and moments.importance.min() > 0
    assert not torch.equal(
        second_moment(moments), second_moment(moments).diagonal().diag()
    )  # the head's, of its inputs


def test_files_of_both_uses_are_in_the_forecast_of_the_disk(checkpoint, made):
    config = read_config(checkpoint)
    files = sum(path.stat().st_size for path in made.glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in made.glob("*.safetensors"))
    numbers = 8 * len(list(made.glob("*.safetensors")))  # of positions or targets, one a file
    assert files - headers - numbers == moments_size(config).disk_bytes


def test_the_memory_of_a_tied_head_is_that_of_a_head_of_its_own(checkpoint):
    config = read_config(checkpoint)
    large = config | {"text_config": config["text_config"] | {"vocab_size": 1 << 22}}
    (rows,) = (spec.shape for spec in tensors(large) if spec.role == "embedding")
    assert moments_size(large).memory_bytes >= 4 * rows[0] * rows[1] + (1 << 30)
