"""The paper's recipe on a language model: hqq's codes of 4, 3 and 2 bits, alone and after AWQ.

AWQ takes the same codecs, and scales for the groups that the project has for its own models: a norm and the linears
that read it, and the linear before `down_proj`. The output of attention has none where several heads share a value, as
in the original method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from quantize.bench.language_model.quantized_weights import Problem, Quantized, packed_bytes, packed_tensor
from quantize.bench.language_model.smollm2 import EMBEDDING
from quantize.calibration.folding import divide_channels
from quantize.calibration.scale_search import search
from quantize.solvers.bound import bind_solver
from quantize.solvers.feedback import predicted_loss
from quantize.solvers.hqq import solve_hqq
from submission.model.codecs.affine import Affine
from submission.progress import progress
from submission.runtime.packed import PackedTensor

GROUP_SIZE = 128
THREE_BIT_LAYERS = 4
"""Layers whose MLPs are stored with 3 bits."""
EXPONENTS = 20
"""Candidates for the scales of a group, as in the recipes."""
SAMPLED_POSITIONS = 512
"""Of the text for calibration, on which the error of a candidate is taken."""
SEED = 0
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.v_proj", ("self_attn.o_proj",)),
    ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ("mlp.up_proj", ("mlp.down_proj",)),
)
"""Within a layer: what is divided by a scale per channel -> linears whose columns are multiplied by it."""


def quantize_paper(problem: Problem) -> Quantized:
    """Return the paper's recipe: hqq with 4 bits, the embedding 2, the four MLPs that lose the least 3."""
    codecs = choose_codecs(problem)
    return _quantized({name: encode(weight, codecs[name]) for name, weight in problem.weights.items()}, codecs)


def quantize_awq(problem: Problem, model: Any, sequences: torch.Tensor) -> Quantized:
    """Return the same after AWQ: the weights, and the norms that its scales are folded into.

    model: the original, float32, which is left as it was; sequences: what it is calibrated on, int64 [n, tokens].
    """
    codecs = choose_codecs(problem)
    scales = choose_scales(model, codecs, sequences)
    names = problem.weights.keys() | {source for source, _ in scales}
    folded = {name: model.get_parameter(name).detach() for name in sorted(names)}
    for (source, targets), scale in scales.items():
        for name in targets:
            folded[name] = folded[name] * scale
        folded[source] = divide_channels(folded[source], scale)
    packed = {name: encode(folded[name], codecs[name]) for name in problem.weights}
    norms = {name: weight for name, weight in folded.items() if name not in packed}
    return _quantized({**packed, **norms}, codecs)


def choose_codecs(problem: Problem) -> dict[str, Affine]:
    """Return the codec of every weight; without an embedding, the linears alone have 4 bits each."""
    bits = {name: 2 if name == EMBEDDING else 4 for name in problem.weights}
    if EMBEDDING in bits:
        added: dict[str, float] = {}
        for name in (name for name in bits if ".mlp." in name):
            weight, moments = problem.weights[name], (problem.second_moment(name), problem.importance(name))
            losses = [
                predicted_loss(weight, encode(weight, _codec(each)).dequantize(torch.float32), *moments)
                for each in (3, 4)
            ]
            layer = _layer(name)
            added[layer] = added.get(layer, 0) + losses[0] - losses[1]
        chosen = sorted(added, key=lambda layer: added[layer])[:THREE_BIT_LAYERS]
        bits |= {name: 3 for name in bits if ".mlp." in name and _layer(name) in chosen}
    return {name: _codec(each) for name, each in bits.items()}


def encode(weight: torch.Tensor, codec: Affine) -> PackedTensor:
    """Return a weight as hqq's codes."""
    return packed_tensor(codec, codec.encode(weight, solve_hqq), weight)


def choose_scales(
    model: Any, codecs: Mapping[str, Affine], sequences: torch.Tensor
) -> dict[tuple[str, tuple[str, ...]], torch.Tensor]:
    """Return the scales of every group, float32 [channels], by its source and its targets."""
    groups = smoothing_groups(model)
    statistics = input_statistics(model, [targets[0] for _, targets in groups], sequences)
    solve_for = bind_solver("hqq")
    found = {}
    with progress("awq", len(groups), "groups") as tick:
        for source, targets in groups:
            weights = ((name, model.get_parameter(name).detach(), codecs[name]) for name in targets)
            sources = [model.get_parameter(source).detach()]
            choice = search(*statistics.pop(targets[0]), sources, weights, solve_for, EXPONENTS)
            found[source, targets] = torch.tensor(choice.scales)
            tick(1)
    return found


def smoothing_groups(model: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Return the source and the targets of every group of a model, by the names of their weights."""
    found = []
    for number in range(len(model.model.layers)):
        for source, targets in GROUPS:
            names = [f"model.layers.{number}.{path}.weight" for path in (source, *targets)]
            if len(model.get_parameter(names[0])) == model.get_parameter(names[1]).shape[1]:
                found.append((names[0], tuple(names[1:])))
    return found


@torch.no_grad()
def input_statistics(
    model: Any, names: list[str], sequences: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return for the linears of these weights what they read: mean magnitudes, float64 [channels], and a sample.

    sequences: int64 [n, tokens]; the sample, float32 [positions, channels], is of the same positions for all.
    """
    drawn = torch.randperm(sequences.numel(), generator=torch.Generator().manual_seed(SEED))[:SAMPLED_POSITIONS]
    sums: dict[str, torch.Tensor] = {}
    samples: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    here = torch.empty(0, dtype=torch.int64)

    def hook(name: str) -> Any:
        def observe(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            states = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + states.abs().sum(0, dtype=torch.float64)
            samples[name].append(states[here])

        return observe

    handles = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(hook(name)) for name in names
    ]
    try:
        with progress("awq: original model", len(sequences), "sequences") as tick:
            for number, ids in enumerate(sequences):
                places = drawn - number * len(ids)
                here = places[(places >= 0) & (places < len(ids))].sort().values
                model.model(input_ids=ids[None], use_cache=False)
                tick(1)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (sums[name] / sequences.numel(), torch.cat(samples[name])) for name in names}


def _codec(bits: int) -> Affine:
    return Affine(bits=bits, group_size=GROUP_SIZE)


def _layer(name: str) -> str:
    return name.partition(".mlp.")[0]


def _quantized(found: Mapping[str, torch.Tensor | PackedTensor], codecs: Mapping[str, Affine]) -> Quantized:
    return Quantized(
        weights=found,
        size_bytes=sum(packed_bytes(weight) for weight in found.values() if isinstance(weight, PackedTensor)),
        notes={"three_bit_layers": sorted({_layer(name) for name, codec in codecs.items() if codec.bits == 3})},
    )
