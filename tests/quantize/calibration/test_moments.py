"""Moments of a tiny Llama against a computation by the definition."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from quantize.calibration.moment_files import read_importance, read_second_moment
from quantize.calibration.moments import (
    ObservedWeight,
    Run,
    collect_gradient_moments,
    collect_input_moments,
    mixed,
)
from quantize.calibration.shrinkage import shrunk_importance

VOCABULARY, CHANNELS = 40, 16


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=CHANNELS,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def observed(model):
    layer = model.model.layers[1]
    return [
        ObservedWeight(name="embed", module=model.model.embed_tokens, input_key="embed", kind="embedding"),
        ObservedWeight(name="q", module=layer.self_attn.q_proj, input_key="attention"),
        ObservedWeight(name="v", module=layer.self_attn.v_proj, input_key="attention"),
        ObservedWeight(name="down", module=layer.mlp.down_proj, input_key="down"),
        ObservedWeight(name="head", module=model.lm_head, input_key="head", kind="head"),
    ]


def run_of(model):
    def logits(batch):
        out = model(input_ids=batch["ids"], use_cache=False).logits
        return out[batch["mask"]]

    return Run(logits=logits, positions=lambda batch, weight, shape: batch["mask"])


def batches():
    generator = torch.Generator().manual_seed(3)
    found = []
    for length in (5, 9):
        mask = torch.ones(2, length, dtype=torch.bool)
        mask[1, 3:] = False
        found.append({"ids": torch.randint(VOCABULARY, (2, length), generator=generator), "mask": mask})
    return found


def test_inputs_have_the_moment_of_the_definition(llama, tmp_path):
    collect_input_moments(observed(llama), run_of(llama), batches(), tmp_path)
    seen = []
    handle = llama.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach())
    )
    for batch in batches():
        llama(input_ids=batch["ids"])
    handle.remove()
    rows = torch.cat([x[b["mask"]] for x, b in zip(seen, batches(), strict=True)]).double()
    expected = sum(torch.outer(row, row) for row in rows) / len(rows)
    assert torch.allclose(read_second_moment(tmp_path, "down").double(), expected, rtol=1e-4, atol=1e-8)
    assert read_second_moment(tmp_path, "attention").shape == (CHANNELS, CHANNELS)
    assert not list(tmp_path.glob("*.part"))


def test_the_head_weighs_rows_by_the_variance_of_their_probability(llama, tmp_path):
    collect_input_moments(observed(llama), run_of(llama), batches(), tmp_path)
    with torch.no_grad():
        p = torch.cat([run_of(llama).logits(batch) for batch in batches()]).double().softmax(-1)
    expected = (p * (1 - p)).mean(0)
    expected = 0.7 * expected + 0.3 * expected.mean()
    assert torch.allclose(read_importance(tmp_path, "head").double(), expected, rtol=1e-4)


def test_a_cap_on_logits_weighs_rows_by_what_it_leaves_of_their_gradients(llama, tmp_path):
    """Against the mean over all labels of the squared gradient at the head's outputs, by autograd."""
    cap, model = 1.5, deepcopy(llama)
    model.lm_head.weight.data.mul_(40)
    plain = run_of(model)
    capped = Run(
        logits=lambda batch: cap * torch.tanh(plain.logits(batch) / cap), positions=plain.positions, logit_cap=cap
    )
    collect_input_moments(observed(model), capped, batches(), tmp_path)
    with torch.no_grad():
        outputs = torch.cat([plain.logits(batch) for batch in batches()]).double()
    assert outputs.abs().max() > cap
    squares = torch.zeros(VOCABULARY, dtype=torch.float64)
    for row in outputs:
        row.requires_grad_()
        log_p = (cap * torch.tanh(row / cap)).log_softmax(-1)
        for label in range(VOCABULARY):
            (gradient,) = torch.autograd.grad(log_p[label], row, retain_graph=True)
            squares += log_p[label].detach().exp() * gradient.square()
    expected = mixed(squares / len(outputs))
    assert torch.allclose(read_importance(tmp_path, "head").double(), expected, rtol=1e-4)


def test_gradients_have_the_moment_of_the_definition(llama, tmp_path):
    weights = observed(llama)
    collect_gradient_moments(
        llama, weights, run_of(llama), batches(), tmp_path, generator=torch.Generator().manual_seed(7)
    )
    generator, squares, outer, targets = torch.Generator().manual_seed(7), 0.0, 0.0, 0
    for number, batch in enumerate(batches()):
        probe = torch.zeros(*batch["ids"].shape, CHANNELS, requires_grad=True)
        embedded = llama.model.embed_tokens(batch["ids"]).detach().requires_grad_()
        handle = llama.model.layers[1].self_attn.q_proj.register_forward_hook(lambda _, __, y, probe=probe: y + probe)
        log_p = llama(inputs_embeds=embedded).logits[batch["mask"]].log_softmax(-1)
        handle.remove()
        labels = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
        gradients = torch.autograd.grad(log_p.gather(1, labels).sum(), [probe, embedded])
        masked = gradients[0] * batch["mask"][..., None]
        squares = squares + masked.double().square().sum(1).roll(number, 0)  # two utterances, one of each half
        rows = gradients[1][batch["mask"]].double()
        outer = outer + rows.t() @ rows
        targets += len(labels)
    expected = shrunk_importance(squares / targets)
    assert torch.allclose(read_importance(tmp_path, "q").double(), expected, rtol=1e-3, atol=1e-12)
    assert torch.allclose(read_second_moment(tmp_path, "embed").double(), outer / targets, rtol=1e-3, atol=1e-10)


def test_the_embedding_weighs_rows_by_how_often_tokens_are_read(llama, tmp_path):
    generator = torch.Generator().manual_seed(0)
    collect_gradient_moments(llama, observed(llama), run_of(llama), batches(), tmp_path, generator=generator)
    tokens = torch.cat([batch["ids"][batch["mask"]] for batch in batches()])
    expected = mixed(torch.bincount(tokens, minlength=VOCABULARY).double() / len(tokens))
    assert torch.allclose(read_importance(tmp_path, "embed").double(), expected)
    assert float(read_importance(tmp_path, "embed").sum()) == pytest.approx(1, rel=1e-5)


def test_the_same_seed_gives_the_same_files(llama, tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        generator = torch.Generator().manual_seed(5)
        collect_gradient_moments(llama, observed(llama), run_of(llama), batches(), folder, generator=generator)
        collect_input_moments(observed(llama), run_of(llama), batches(), folder)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) == 9
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)


def test_the_model_is_left_as_it_was(llama, tmp_path):
    before = [p.requires_grad for p in llama.parameters()]
    generator = torch.Generator().manual_seed(5)
    collect_gradient_moments(llama, observed(llama), run_of(llama), batches(), tmp_path, generator=generator)
    assert [p.requires_grad for p in llama.parameters()] == before
    assert all(p.grad is None for p in llama.parameters())
    assert not llama.lm_head._forward_hooks and not llama.model.embed_tokens._forward_hooks


def test_inputs_that_are_not_finite_are_refused_by_their_name(llama, tmp_path):
    broken = deepcopy(llama)
    broken.model.embed_tokens.weight.data[:] = float("nan")
    with pytest.raises(ValueError, match="attention"):
        collect_input_moments(observed(broken), run_of(broken), batches(), tmp_path)
