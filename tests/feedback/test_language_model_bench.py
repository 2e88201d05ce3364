"""The bench of a language model on a tiny Llama: rows are made, meet their bytes, and leave the model as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from quantize.bench.language_model import (
    METHODS,
    Problem,
    _check_row,
    calibrate,
    entropy_weight,
    moments_of,
    quantize_feedback,
    quantize_paper,
)
from quantize.bench.smollm2 import EMBEDDING, HEAD, Evaluation, observed_weights, spread_sequences, weight_tensors
from submission.errors import UserError

VOCABULARY = 96


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def problem(llama, tmp_path_factory) -> Problem:
    folder = tmp_path_factory.mktemp("work") / "moments"
    tokens = torch.randint(VOCABULARY, (2048,), generator=torch.Generator().manual_seed(1))
    weights = observed_weights(llama)
    calibrate(llama, weights, tokens, folder, (4, 2))
    keys = {weight.name: weight.input_key for weight in weights}
    return Problem(weights=weight_tensors(weights), input_keys=keys, moments=folder)


def evaluation(llama) -> Evaluation:
    return Evaluation(llama, torch.randint(VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(2)))


def test_every_weight_is_observed_once(problem):
    assert len(problem.weights) == 5 * 7 + 2
    assert len(problem.linears().weights) == 5 * 7
    assert len(list(Path(problem.moments).glob("input.*"))) == 5 * 4 + 2


@pytest.mark.parametrize("method", METHODS)
def test_a_row_meets_its_bytes(problem, method):
    few = {name: weight for name, weight in problem.weights.items() if name == EMBEDDING or ".layers.4." in name}
    problem = dataclasses.replace(problem, weights=few)
    target = int(4.5 * problem.count() / 8)
    quantized = quantize_feedback(problem, method, target)
    assert quantized.size_bytes == target
    assert quantized.notes["used"] >= 0.995, "small streams end in steps of two bytes"
    assert quantized.weights.keys() == few.keys()


def test_a_weight_is_what_its_stored_parts_stand_for(problem):
    weight = problem.weights[HEAD]
    decoded, header = entropy_weight(weight, budget := weight.numel() * 3 // 4, moments_of(problem, HEAD, "feedback"))
    assert decoded.shape == weight.shape and header.used_bytes <= budget - 2 * sum(weight.shape)
    finer, _ = entropy_weight(weight, weight.numel(), moments_of(problem, HEAD, "feedback"))
    assert (finer - weight).square().mean() < 0.5 * (decoded - weight).square().mean()


def test_methods_know_as_much_as_their_names_say(problem):
    full, trellis, diagonal, equal, nothing = (moments_of(problem, HEAD, method) for method in METHODS)
    assert torch.equal(trellis.read_second_moment(), full.read_second_moment())
    assert full.importance is not None and diagonal.importance is not None
    assert torch.equal(diagonal.read_second_moment(), full.read_second_moment().diagonal().diag())
    assert equal.importance is None and torch.equal(equal.read_second_moment(), full.read_second_moment())
    assert nothing.importance is None and nothing.second_moment is None


def test_the_original_scores_nothing_and_is_left_as_it_was(llama, problem):
    before = {name: weight.clone() for name, weight in llama.named_parameters()}
    scores = evaluation(llama)
    nothing = scores.score(problem.weights).summary()
    assert nothing["increase"] == pytest.approx(0, abs=1e-6) and nothing["kl"] == pytest.approx(0, abs=1e-6)
    broken = scores.score({HEAD: torch.zeros_like(problem.weights[HEAD])}).summary()
    assert broken["kl"] > 0.01
    assert all(torch.equal(before[name], weight) for name, weight in llama.named_parameters())


def test_feedback_diverges_less_than_the_papers_recipe(llama, problem):
    scores = evaluation(llama)
    paper = quantize_paper(problem)
    ours = quantize_feedback(problem, "feedback", paper.size_bytes)
    divergence = [scores.score(quantized.weights).summary()["kl"] for quantized in (paper, ours)]
    assert divergence[1] < 0.5 * divergence[0]
    assert len(paper.notes["three_bit_layers"]) == 4 and EMBEDDING in paper.weights


@pytest.mark.parametrize("row", ["paper", "feedback@3.86", "linears:one-step@2"])
def test_a_row_is_known(row):
    _check_row(row)


@pytest.mark.parametrize("row", ["papers", "paper@4", "feedback", "feedback@much", "linears:"])
def test_an_unknown_row_is_refused(row):
    with pytest.raises(UserError, match="not known"):
        _check_row(row)


def test_too_short_a_text_is_refused():
    with pytest.raises(UserError, match="2 sequences, 3 are needed"):
        spread_sequences(torch.zeros(1024, dtype=torch.int64), 3)
