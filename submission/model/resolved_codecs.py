"""Whether the codecs of a packed model are among those that rules and overrides can give, by role and layer.

How many layers `count = "fit"` takes follows from bytes, which ones `layers = "sensitivity"` takes from a ranking; a
packed model shows neither. So every such override is resolved twice, in all of its layers and in none of them: each
layer of the model must be the one or the other as a whole, and the number of layers must be possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.model.codecs import Codec
from submission.model.families import tensors
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import choose_layers, resolve_codecs, role_matches

if TYPE_CHECKING:
    from submission.system.recipe.quantize_options import Override

Codecs = dict[str, Codec]
"""Weight -> codec, without its budget."""


def contradictions(
    config: dict[str, Any], held: Mapping[str, Codec], rules: Mapping[str, Codec], overrides: Sequence[Override]
) -> Iterator[str]:
    """Yield how the codecs of a packed model differ from all that rules and overrides can give; nothing for none.

    config: the packed model's; held: weight -> its codec. Raises UserError for roles or layers that the model lacks,
    and for more than one override whose number follows from the limit.
    """
    specs = [spec for spec in tensors(config) if spec.packable]
    found = {name: codec.allotted(None) for name, codec in held.items()}
    open_ones = [n for n, override in enumerate(overrides) if override.count == "fit" or _is_ranked(override)]
    if sum(overrides[n].count == "fit" for n in open_ones) > 1:
        raise UserError("quantize.overrides", 'more than one has count = "fit"', "leave one of them to the limit")
    given = {
        applied: _resolved(config, specs, rules, overrides, dict(zip(open_ones, applied, strict=True)))
        for applied in itertools.product((False, True), repeat=len(open_ones))
    }
    matching: dict[int | None, list[tuple[bool, ...]]] = {}
    for layer, members in _by_layer(specs).items():
        names = [spec.name for spec in members]
        matching[layer] = [a for a, codecs in given.items() if all(found.get(n) == codecs.get(n) for n in names)]
        if not matching[layer]:
            yield _difference(layer, members, found, list(given.values()))
    if all(matching.values()):
        for place, number in enumerate(open_ones):
            layers = _layers(specs, overrides[number].role)
            certain = {layer for layer in layers if all(applied[place] for applied in matching[layer])}
            possible = {layer for layer in layers if any(applied[place] for applied in matching[layer])}
            yield from _wrong_layers(overrides[number], layers, certain, possible)


def _is_ranked(override: Override) -> bool:
    return override.layers == "sensitivity"


def _resolved(
    config: dict[str, Any],
    specs: list[TensorSpec],
    rules: Mapping[str, Codec],
    overrides: Sequence[Override],
    applied: Mapping[int, bool],
) -> Codecs:
    """Return the codecs where some overrides hold in all of their layers (True) or in none (False)."""
    fixed = []
    for number, override in enumerate(overrides):
        if number not in applied:
            fixed.append(override)
        elif applied[number]:
            layers = tuple(_layers(specs, override.role))
            fixed.append(replace(override, layers=layers, count="all", seed=None) if layers else override)
    return {name: codec.allotted(None) for name, codec in resolve_codecs(config, rules, fixed).items()}


def _by_layer(specs: list[TensorSpec]) -> dict[int | None, list[TensorSpec]]:
    layers: dict[int | None, list[TensorSpec]] = {}
    for spec in specs:
        layers.setdefault(spec.layer, []).append(spec)
    return layers


def _layers(specs: list[TensorSpec], role: str) -> list[int]:
    return sorted({spec.layer for spec in specs if spec.layer is not None and role_matches(spec.role, role)})


def _difference(
    layer: int | None, members: list[TensorSpec], found: Mapping[str, Codec], given: Sequence[Mapping[str, Codec]]
) -> str:
    """Return what the first weight is that no alternative gives, or that the layer mixes alternatives."""
    where = "" if layer is None else f" of layer {layer}"
    for spec in members:
        names = {_name(codecs.get(spec.name)) for codecs in given}
        if (got := _name(found.get(spec.name))) not in names:
            return f"{spec.role}{where} is {got}, and the recipe gives {' or '.join(sorted(names))}"
    return f"layer {layer} mixes codecs that the recipe gives to whole layers only"


def _name(codec: Codec | None) -> str:
    return "kept" if codec is None else codec.name


def _wrong_layers(override: Override, layers: list[int], certain: set[int], possible: set[int]) -> Iterator[str]:
    """Yield how many, or which, layers an override has that it cannot have.

    certain: the layers in which it holds; possible: those and the ones where it makes no difference.
    """
    counts = range(len(layers) + 1) if override.count == "fit" else (int(override.count),)
    what = f"{override.role} in {override.codec.name}"
    if not any(len(certain) <= count <= len(possible) for count in counts):
        yield f"{what}: found in {len(certain)} layers, and the recipe gives it to {override.count}"
    elif not _is_ranked(override) and not any(
        certain <= choose_layers(layers, override, count) <= possible for count in counts
    ):
        numbers = ", ".join(str(layer) for layer in layers if layer in certain)
        yield f"{what}: found in layers {numbers}, and the recipe gives it to the {override.layers} ones"
