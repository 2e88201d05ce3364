"""Compute how large a system's model folder will be, to the byte, from shapes alone.

The recipe says codecs by role; this file resolves them to one codec per weight, lays the packed model's
tensors out as `quantize` will write them, and adds up. Packing uses the same layout, so forecast and
result cannot differ.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.model.checkpoint import config_text, packed_config
from submission.model.codecs import Codec, codec_parts
from submission.model.families import family_of, stored_dtype, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.safetensors_header import header_bytes, tensor_bytes
from submission.model.tokenizer_files import repeated_files
from submission.system.schema import nearest

if TYPE_CHECKING:
    from submission.system.recipe.quantize_options import Override

EVERY = "*"
LINEARS = "linears"
"""Stands for every role that can be packed but the embedding."""

COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files beside the weights that a model needs to run; they go into the packed model as they are."""

CARD_BYTES = 4096
"""Of the model card, README.md, which the bundle adds to the model folder: the same for every system, so that it is
known before there is anything to write into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBytes:
    """What the tensors of one role take."""

    role: str
    codecs: tuple[str, ...]
    """Names of the codecs in use, without their budgets, and the dtype of what is kept, `BF16`."""
    tensors: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The bytes of a packed model folder."""

    config: dict[str, Any]
    """The checkpoint's."""
    roles: tuple[RoleBytes, ...]
    codecs: dict[str, Codec]
    """Packed weights by name, `….up_proj.weight`."""
    header_bytes: int
    """Of model.safetensors, before the tensors."""
    config_bytes: int
    """Of config.json."""
    other_bytes: int
    """Of everything else in the folder."""
    provisional: bool = False
    """Whether the budgets of its codecs are not allotted yet: the total is the target's, the roles' bytes are not."""

    @property
    def parameters(self) -> int:
        """Parameters of all tensors."""
        return sum(role.parameters for role in self.roles)

    @property
    def weights_bytes(self) -> int:
        """Size of model.safetensors."""
        return self.header_bytes + sum(role.size_bytes for role in self.roles)

    @property
    def total_bytes(self) -> int:
        """Size of the model folder."""
        return self.weights_bytes + self.config_bytes + self.other_bytes


def companion_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that go into the packed model as they are, sorted by name.

    Of a tokenizer only what loads to the same one: not what tokenizer.json holds already.
    """
    repeated = repeated_files(folder)
    return [folder / name for name in COMPANIONS if name not in repeated and (folder / name).is_file()]


def companion_bytes(folder: Path) -> int:
    """Return the bytes of what an uploaded model folder holds beside configuration and weights.

    These are the companion files of the checkpoint in `folder`, and the model card.
    """
    return CARD_BYTES + sum(path.stat().st_size for path in companion_files(folder))


def uploaded_bytes(model: Path) -> int:
    """Return what a packed model's folder weighs in an upload: every file of it, and the model card."""
    return CARD_BYTES + sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


def forecast(
    config: dict[str, Any],
    rules: Mapping[str, Codec],
    overrides: Iterable[Override] = (),
    *,
    limit_bytes: int | None = None,
    other_bytes: int = 0,
    ranking: Sequence[int] | None = None,
    budgets: Mapping[str, int] | None = None,
) -> Forecast:
    """Return the bytes of the model folder that these choices make of a checkpoint of this configuration.

    config: the checkpoint's config.json; rules: role or prefix of roles -> codec; other_bytes: what the folder
    holds besides config.json and model.safetensors; ranking, budgets: as in `resolve_codecs`, which raises UserError.
    """
    codecs = resolve_codecs(
        config,
        rules,
        overrides,
        limit_bytes=limit_bytes,
        other_bytes=other_bytes,
        ranking=ranking,
        budgets=budgets,
    )
    return add_up(config, tensors(config), codecs, other_bytes)


def add_up(config: dict[str, Any], specs: list[TensorSpec], codecs: dict[str, Codec], other_bytes: int) -> Forecast:
    """Return the forecast for codecs already resolved; specs: the tensors of this configuration."""
    dtype = stored_dtype(config)
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    rows: dict[str, RoleBytes] = {}
    for spec in specs:
        parts = stored_parts(spec, codecs.get(spec.name), dtype)
        layout |= parts
        row = rows.get(spec.role) or RoleBytes(role=spec.role, codecs=(), tensors=0, parameters=0, size_bytes=0)
        name = codecs[spec.name].allotted(None).name if spec.name in codecs else dtype
        rows[spec.role] = RoleBytes(
            role=spec.role,
            codecs=tuple(sorted({*row.codecs, name})),
            tensors=row.tensors + 1,
            parameters=row.parameters + math.prod(spec.shape),
            size_bytes=row.size_bytes + sum(tensor_bytes(*part) for part in parts.values()),
        )
    return Forecast(
        config=config,
        roles=tuple(rows[role] for role in family_of(config).roles if role in rows),
        codecs=codecs,
        header_bytes=len(header_bytes(layout)),
        config_bytes=len(config_text(packed_config(config, codecs)).encode("utf-8")),
        other_bytes=other_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change more to a system, and what it would save."""

    role: str
    """Role or family of roles: `embedding`, `mlp`."""
    layers: str
    """`all`, or `one`: in one layer only."""
    codec: str
    """Name of the codec in use."""
    change: str
    """`3 bits`, `groups of 256`."""
    saved_bytes: int


def further_steps(current: Forecast) -> list[Step]:
    """Return what each further step from a system would save, exactly, the largest first.

    A step gives every weight of a family of roles that has one codec the next smaller one; of families that occur in
    layers, also those of one layer alone.
    """
    specs, steps = tensors(current.config), []
    families: dict[tuple[str, Codec], list[TensorSpec]] = {}
    for spec in specs:
        if spec.name in current.codecs:
            families.setdefault((spec.role.rpartition(".")[0] or spec.role, current.codecs[spec.name]), []).append(spec)
    for (family, codec), members in families.items():
        layers = {"all": members}
        if members[0].layer is not None and len({spec.layer for spec in members}) > 1:
            layers["one"] = [spec for spec in members if spec.layer == members[0].layer]
        for change, smaller in codec.steps().items():
            for which, chosen in layers.items():
                codecs = current.codecs | {spec.name: smaller for spec in chosen}
                saved = current.total_bytes - add_up(current.config, specs, codecs, current.other_bytes).total_bytes
                if saved > 0:
                    steps.append(Step(role=family, layers=which, codec=codec.name, change=change, saved_bytes=saved))
    return sorted(steps, key=lambda step: -step.saved_bytes)


def stored_parts(spec: TensorSpec, codec: Codec | None, dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return stored name -> (dtype, shape) of one tensor: a codec's parts, or the tensor as it is.

    Raises UserError, naming the tensor, for a codec whose size is not known yet.
    """
    if codec is None:
        return {spec.name: (dtype, spec.shape)}
    return {f"{spec.name}.{suffix}": part for suffix, part in codec_parts(spec.name, codec, spec.shape).items()}


def resolve_codecs(
    config: dict[str, Any],
    rules: Mapping[str, Codec],
    overrides: Iterable[Override] = (),
    *,
    limit_bytes: int | None = None,
    other_bytes: int = 0,
    ranking: Sequence[int] | None = None,
    budgets: Mapping[str, int] | None = None,
) -> dict[str, Codec]:
    """Return the codec of every weight that is packed, by name; weights that no rule reaches are kept.

    Of the rules, the longest dotted prefix wins. The overrides follow in order; the `count = "fit"` of one of
    them becomes the smallest number of layers with which the whole folder weighs at most limit_bytes.
    ranking: every layer, the least sensitive first, for an override that chooses by sensitivity. Before the
    analysis the layers' own order serves for a forecast: alike layers weigh the same, and only the digits of offsets in
    the file's header can differ.
    budgets: weight name -> bytes, for codecs that take a budget; without, those have none yet.
    Raises UserError for roles that the model lacks or never packs, layers that it lacks, and a limit out of
    reach.
    """
    specs, overrides = tensors(config), tuple(overrides)
    base = _by_rules(specs, rules)
    fits = [override for override in overrides if override.count == "fit"]
    if not fits:
        return allotted(_overridden(base, specs, overrides, 0, ranking), budgets or {})
    if len(fits) > 1:
        raise UserError("quantize.overrides", 'more than one has count = "fit"', "leave one of them to the limit")
    if limit_bytes is None:
        raise UserError("quantize.overrides: count", '"fit" needs a size limit', "name the campaign or a number")
    for count in range(len(_layers(specs, fits[0].role)) + 1):
        codecs = _overridden(base, specs, overrides, count, ranking)
        total = add_up(config, specs, codecs, other_bytes).total_bytes
        if total <= limit_bytes:
            return codecs
    smallest = f"{fits[0].codec.name} in all {count} layers"
    what = f"with {smallest} the model weighs {total:,} bytes, the limit is {limit_bytes:,}"
    raise UserError(f"quantize.overrides: {fits[0].role}", what, "choose smaller codecs elsewhere")


def allotted(codecs: Mapping[str, Codec], budgets: Mapping[str, int]) -> dict[str, Codec]:
    """Return codecs with their budgets, by the name of the weight; those without one stay as they are."""
    return {name: codec.allotted(budgets[name]) if name in budgets else codec for name, codec in codecs.items()}


def role_matches(role: str, prefix: str) -> bool:
    """Return whether a role is the one, or among those, that a recipe names: `mlp.up` is among `mlp` and `linears`."""
    if prefix in (EVERY, LINEARS):
        return prefix == EVERY or role != "embedding"
    return role == prefix or role.startswith(f"{prefix}.")


def _packable(specs: list[TensorSpec], prefix: str, where: str) -> list[TensorSpec]:
    """Return the packable tensors of a role or prefix of roles; UserError where there are none."""
    known = {spec.role.rsplit(".", cut)[0] for spec in specs if spec.packable for cut in range(3)}
    chosen = [spec for spec in specs if spec.packable and role_matches(spec.role, prefix)]
    if chosen:
        return chosen
    if any(role_matches(spec.role, prefix) for spec in specs):
        raise UserError(where, f"{prefix!r} is never packed", f"choose among: {', '.join(sorted(known))}")
    raise UserError(where, f"the model has no role {prefix!r}", nearest(prefix, {EVERY, LINEARS, *known}))


def _by_rules(specs: list[TensorSpec], rules: Mapping[str, Codec]) -> dict[str, Codec]:
    codecs: dict[str, Codec] = {}
    for prefix in sorted(rules, key=lambda p: (EVERY, LINEARS).index(p) if p in (EVERY, LINEARS) else 2 + p.count(".")):
        for spec in _packable(specs, prefix, f"quantize.codecs.{prefix}"):
            codecs[spec.name] = rules[prefix]
    return {spec.name: codecs[spec.name] for spec in specs if spec.name in codecs}


def _layers(specs: list[TensorSpec], role: str) -> list[int]:
    """Return the numbers of the layers in which a role occurs, ascending."""
    chosen = _packable(specs, role, "quantize.overrides: role")
    layers = sorted({spec.layer for spec in chosen if spec.layer is not None})
    if not layers:
        raise UserError("quantize.overrides: role", f"{role!r} is in no layer", "write its codec under quantize.codecs")
    return layers


def choose_layers(layers: list[int], override: Override, count: int, ranking: Sequence[int] | None = None) -> set[int]:
    """Return which of the layers an override means; `count` stands where the override says "fit"."""
    where = f"quantize.overrides: {override.role}"
    if isinstance(override.layers, tuple):
        if missing := sorted(set(override.layers) - set(layers)):
            raise UserError(where, f"the model has no layer {missing[0]}", f"number them {layers[0]} to {layers[-1]}")
        return set(override.layers)
    number = count if override.count == "fit" else int(override.count)
    if number > len(layers):
        raise UserError(where, f"{number} layers requested of {len(layers)}", f"write at most {len(layers)}")
    if override.layers == "sensitivity":
        if ranking is not None and sorted(ranking) != layers:
            raise UserError(where, f"the ranking is of other layers, {sorted(ranking)}", "rank this model's layers")
        return set((ranking or layers)[:number])
    if override.layers == "random":
        return set(random.Random(f"{override.seed}").sample(layers, number))
    start = {"first": 0, "middle": (len(layers) - number) // 2, "last": len(layers) - number}[override.layers]
    return set(layers[start:][:number])


def _overridden(
    base: dict[str, Codec],
    specs: list[TensorSpec],
    overrides: tuple[Override, ...],
    count: int,
    ranking: Sequence[int] | None,
) -> dict[str, Codec]:
    codecs = dict(base)
    for override in overrides:
        chosen = choose_layers(_layers(specs, override.role), override, count, ranking)
        for spec in _packable(specs, override.role, "quantize.overrides: role"):
            if spec.layer in chosen:
                codecs[spec.name] = override.codec
    return {spec.name: codecs[spec.name] for spec in specs if spec.name in codecs}
