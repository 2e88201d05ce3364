"""The bench of a language model on a tiny Llama: rows are made, meet their bytes, and leave the model as it was."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantize.bench.language_model.paper_recipe import quantize_awq, quantize_paper, smoothing_groups
from quantize.bench.language_model.peer_gptq import stored_bits
from quantize.bench.language_model.quantized_weights import Problem
from quantize.bench.language_model.recovery import recover_weights, recovery_sequences
from quantize.bench.language_model.rows import (
    METHODS,
    Peer,
    entropy_weight,
    moments_of,
    parse_row,
    quantize_feedback,
    quantize_gptq,
)
from quantize.bench.language_model.smollm2 import (
    EMBEDDING,
    HEAD,
    Evaluation,
    calibrate,
    observed_weights,
    spread_sequences,
    weight_tensors,
)
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
    packed, header = entropy_weight(weight, budget := weight.numel() * 3 // 4, moments_of(problem, HEAD, "feedback"))
    decoded = packed.dequantize(torch.float32)
    assert decoded.shape == weight.shape and header.used_bytes <= budget - 2 * sum(weight.shape)
    finer = entropy_weight(weight, weight.numel(), moments_of(problem, HEAD, "feedback"))[0].dequantize(torch.float32)
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
    divergence = [scores.score(quantized.decoded()).summary()["kl"] for quantized in (paper, ours)]
    assert divergence[1] < 0.5 * divergence[0]
    assert len(paper.notes["three_bit_layers"]) == 4 and EMBEDDING in paper.weights


def test_awq_diverges_less_than_the_same_codecs_without_it_where_channels_differ(llama, problem):
    model = copy.deepcopy(llama)
    with torch.no_grad():
        for layer in model.model.layers:  # channels that a norm makes large, as in language models of any size
            layer.post_attention_layernorm.weight[:4] *= 30
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    sequences = torch.randint(VOCABULARY, (4, 40), generator=torch.Generator().manual_seed(4))
    found = [quantize_paper(problem.linears()), quantize_awq(problem.linears(), model, sequences)]
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    divergences = [evaluation(model).score(quantized.decoded()).summary()["kl"] for quantized in found]
    assert found[0].size_bytes == found[1].size_bytes and divergences[1] < divergences[0]


def test_awqs_scales_leave_the_function_as_it_is(llama, problem, monkeypatch):
    monkeypatch.setattr("quantize.bench.language_model.paper_recipe.encode", lambda weight, codec: weight)
    sequences = torch.randint(VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(4))
    folded = quantize_awq(problem.linears(), llama, sequences)
    assert any(not torch.equal(folded.weights[name], weight) for name, weight in problem.linears().weights.items())
    assert evaluation(llama).score(folded.decoded()).summary()["kl"] == pytest.approx(0, abs=1e-6)


def test_a_group_is_left_out_where_heads_share_a_value(llama):
    sources = [source.removeprefix("model.layers.0.") for source, _ in smoothing_groups(llama)[:3]]
    assert sources == ["input_layernorm.weight", "post_attention_layernorm.weight", "mlp.up_proj.weight"]


@pytest.mark.parametrize("method", ["paper", "trellis"])
def test_recovery_lowers_the_divergence_and_leaves_the_original_as_it_was(llama, problem, method):
    few = {name: weight for name, weight in problem.weights.items() if name in (EMBEDDING, HEAD) or ".mlp." in name}
    problem = dataclasses.replace(problem, weights=few)
    paper = quantize_paper(problem)
    quantized = paper if method == "paper" else quantize_feedback(problem, method, int(2.5 * problem.count() / 8))
    before = {name: weight.clone() for name, weight in llama.named_parameters()}
    sequences = torch.randint(VOCABULARY, (160, 32), generator=torch.Generator().manual_seed(3))
    weights, losses = recover_weights(llama, quantized.weights, sequences)
    norms = {name for name, weight in before.items() if weight.ndim == 1}
    assert weights.keys() == few.keys() | norms and len(losses) == 40
    after = dict(llama.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(before[name], weight) for name, weight in after.items())
    divergence = [evaluation(llama).score(each).summary()["kl"] for each in (quantized.decoded(), weights)]
    assert divergence[1] < 0.9 * divergence[0]


def test_recovery_reads_each_sequence_once():
    sequences = recovery_sequences(torch.arange(128 * 100))
    assert sequences.shape == (80, 128) and len(set(sequences[:, 0].tolist())) == 80
    with pytest.raises(UserError, match="has 7 sequences of 128 tokens, recovery takes 80"):
        recovery_sequences(torch.zeros(1000, dtype=torch.int64))


def test_the_peers_weights_are_read_with_their_bytes(problem, tmp_path):
    """The peer is a process: here a shell script that writes what is given to it, as the peer would."""
    weights = {name: weight + 1 for name, weight in problem.linears().weights.items()}
    save_file(weights, tmp_path / "made.safetensors")
    script = tmp_path / "peer"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/said\ncp {tmp_path}/made.safetensors {tmp_path}/gptq.safetensors\n'
    )
    script.chmod(0o755)
    quantized = quantize_gptq(problem.linears(), 4, Peer(python=script, work=tmp_path))
    assert quantized.size_bytes == problem.linears().count() * 4.25 / 8
    assert all(torch.equal(weights[name], weight) for name, weight in quantized.decoded().items())
    said = (tmp_path / "said").read_text()
    assert said.startswith("-m quantize.bench.language_model.peer_gptq")
    assert "--bits 4" in said and "--linears-only" in said


@pytest.mark.parametrize(
    "row",
    [
        "paper",
        "awq",
        "linears:awq",
        "feedback@3.86",
        "linears:one-step@2",
        "gptq@4.25",
        "linears:gptq@3.25",
        "recover:linears:paper",
    ],
)
def test_a_row_is_known(row):
    assert parse_row(row).text == row


@pytest.mark.parametrize(
    "row",
    [
        "papers",
        "paper@4",
        "feedback",
        "feedback@much",
        "linears:",
        "gptq@4",
        "awq@4",
        "recover:awq",
        "recover:gptq@4.25",
        "recover:",
    ],
)
def test_an_unknown_row_is_refused(row):
    with pytest.raises(UserError, match="not known"):
        parse_row(row)


def test_a_row_says_what_is_done():
    row = parse_row("recover:linears:trellis@2.0")
    assert (row.recovered, row.linears, row.method, row.bits) == (True, True, "trellis", 2.0)
    assert parse_row("linears:paper").recovered is False
    assert stored_bits(4) == 4.25


def test_too_short_a_text_is_refused():
    with pytest.raises(UserError, match="2 sequences, 3 are needed"):
        spread_sequences(torch.zeros(1024, dtype=torch.int64), 3)
