"""Gemma 4 Unified: raw frames of 40 ms through one linear into a decoder whose head is tied to a scaled embedding.

The decoder's layers have two shapes: those of full attention have heads of another width and fewer of keys and values,
and where `attention_k_eq_v` is set their keys serve as values, so they have no `v_proj`. Every layer has four norms,
norms of queries and keys, and one number that scales its output. Images go through linears of their own, which a system
for speech leaves out (`vision_config` is null then).

On the hub the parts of the vision embedder have other names than in the loaded model (`_PREFIXES`); all else has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from submission.errors import UserError
from submission.model.families.family import Family
from submission.model.families.gemma4_unified_files import CONFIG, FILES, SETTINGS, disagreements
from submission.model.families.smoothing import SmoothingGroup, Stack
from submission.model.families.tensors import TensorSpec

FULL = "full_attention"
SLIDING = "sliding_attention"
PATTERN = 6
"""Where a configuration names no layer types, every sixth layer has full attention."""

DEFAULTS: dict[str, dict[str, int]] = {
    "text_config": {
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
    "audio_config": {"audio_embed_dim": 640},
    "vision_config": {"patch_size": 16, "pooling_kernel_size": 3, "mm_embed_dim": 3840, "mm_posemb_size": 1120},
}
"""What transformers fills in where a configuration is silent (Gemma4UnifiedTextConfig and its neighbours)."""
GLOBAL_HEAD_DIM = 512
USEFUL_POSITIONS = 400
"""Of audio: users report that the published model misunderstands what lies beyond about 450 positions, of which the
prompt takes the first. 16 s at 40 ms each, where the processor itself takes 30 s."""
PROMPT_TOKENS = 33
"""18 words and marks of the campaign's prompt, each a token of so large a vocabulary, and 15 of the chat template: the
start, eight of two turns (marks, roles, line breaks), two about the audio, four of the empty channel of thoughts."""

# Tokens that stand for something else than text, and what transformers takes for them where none is given.
_SPECIAL_IDS = {
    "boi_token_id": 255_999,
    "boa_token_id": 256_000,
    "image_token_id": 258_880,
    "audio_token_id": 258_881,
}

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "enable_moe_block": (False, None),
    "hidden_size_per_layer_input": (0, None),
    "num_kv_shared_layers": (0,),
    "use_double_wide_mlp": (False,),
}
"""Key of the text section -> the values that the arithmetic here covers; they are the published model's."""

LAYERS = "model.language_model.layers"
EMBEDDING = "model.language_model.embed_tokens.weight"
TEXT = Stack(name="text", layers=LAYERS, positions=lambda frames, tokens: tokens)

_ATTENTION = "self_attn.{}_proj"
_LAYER = rf"{re.escape(LAYERS)}\.(\d+)\."
# Name on the hub -> role, tried in this order.
_PATTERNS = (
    (r"model\.language_model\.embed_tokens\.weight", "embedding"),
    (_LAYER + r"self_attn\.([qkvo])_proj\.weight", "attn.{}"),
    (_LAYER + r"mlp\.(gate|up|down)_proj\.weight", "mlp.{}"),
    (_LAYER + r"\w+_layernorm\.weight", "norm"),
    (_LAYER + r"self_attn\.[qk]_norm\.weight", "norm"),
    (_LAYER + r"layer_scalar", "scale"),
    (r"model\.language_model\.norm\.weight", "norm"),
    (r"model\.embed_audio\.embedding_projection\.weight", "projector"),
    (r"model\.vision_embedder\.pos_embedding", "vision.position"),
    (r"model\.vision_embedder\.(?:patch_ln[12]|pos_norm)\.(?:weight|bias)", "vision.norm"),
    (r"model\.vision_embedder\.patch_dense\.(?:weight|bias)", "vision.linear"),
    (r"model\.embed_vision\.embedding_projection\.weight", "vision.linear"),
)
VISION_ROLES = ("vision.linear", "vision.norm", "vision.position")
ROLES = (
    *("embedding", "attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"),
    *("norm", "scale", "projector", *VISION_ROLES),
)
_KEPT_ROLES = ("norm", "scale", "projector", *VISION_ROLES)
"""The audio's linear is kept because users report that quantizing it breaks audio; it has a thousandth of the bytes."""

# Prefixes: loaded model in transformers 5 -> hub, the longer ones first.
_PREFIXES = (
    ("model.embed_vision.multimodal_embedder.", "model.embed_vision."),
    *((f"model.embed_vision.{p}", f"model.vision_embedder.{p}") for p in ("patch_", "pos_")),
)

# Source -> targets within a layer. The norm of values stands between v and o, and a norm behind o and down.
_GROUPS = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("pre_feedforward_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ("mlp.up_proj", ("mlp.down_proj",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """Widths of one layer's attention."""

    head_dim: int
    keys: int
    """Heads of keys, and of values."""
    values: bool
    """Whether values have a linear of their own."""


def hub_name(name: str) -> str:
    """Return the hub's name of a tensor, given that name or the loaded model's."""
    for loaded, hub in _PREFIXES:
        if name.startswith(loaded):
            return hub + name[len(loaded) :]
    return name


def module_name(name: str) -> str:
    """Return where a tensor or module that the hub calls `name` is in the loaded transformers model."""
    for loaded, hub in _PREFIXES:
        if name.startswith(hub) and not name.startswith(loaded):
            return loaded + name[len(hub) :]
    return name


def role_of(name: str) -> str:
    """Return the role of a tensor by its name on the hub; KeyError for any other name."""
    return _role_and_layer(name)[0]


@lru_cache(maxsize=4_096)
def _role_and_layer(name: str) -> tuple[str, int | None]:
    for pattern, role in _PATTERNS:
        if match := re.fullmatch(pattern, name):
            layer, *rest = match.groups() or (None,)
            return role.format(*rest), None if layer is None else int(layer)
    raise KeyError(name)


def tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Return every tensor of a checkpoint with this configuration, named as on the hub, in the model's order.

    Raises UserError for a configuration that does not add up, and for a variant of the architecture that the arithmetic
    here does not cover.
    """
    text = _section(config, "text_config")
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (text["vocab_size"], text["hidden_size"])}
    for number, layer in enumerate(_layers(config)):
        shapes |= _layer_shapes(f"{LAYERS}.{number}", text, layer)
    shapes["model.language_model.norm.weight"] = (text["hidden_size"],)
    if config.get("vision_config") is not None:
        shapes |= _vision_shapes(_section(config, "vision_config"), text["hidden_size"])
    audio = _section(config, "audio_config")
    shapes["model.embed_audio.embedding_projection.weight"] = (text["hidden_size"], audio["audio_embed_dim"])
    return [_spec(name, shape) for name, shape in shapes.items()]


def _spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    role, layer = _role_and_layer(name)
    return TensorSpec(name=name, shape=shape, role=role, layer=layer, packable=role not in _KEPT_ROLES)


def _layer_shapes(prefix: str, text: dict[str, Any], layer: LayerShape) -> dict[str, tuple[int, ...]]:
    width, inner = text["hidden_size"], text["intermediate_size"]
    queries, keys = text["num_attention_heads"] * layer.head_dim, layer.keys * layer.head_dim
    attention = {"q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries)}
    if not layer.values:
        del attention["v"]
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    return {
        **{f"{prefix}.{_ATTENTION.format(part)}.weight": shape for part, shape in attention.items()},
        **{f"{prefix}.self_attn.{part}_norm.weight": (layer.head_dim,) for part in "qk"},
        **{f"{prefix}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")},
        f"{prefix}.mlp.down_proj.weight": (width, inner),
        **{f"{prefix}.{norm}_layernorm.weight": (width,) for norm in norms},
        f"{prefix}.layer_scalar": (1,),
    }


def _vision_shapes(vision: dict[str, Any], hidden: int) -> dict[str, tuple[int, ...]]:
    width = vision["mm_embed_dim"]
    patch = 3 * (vision["patch_size"] * vision["pooling_kernel_size"]) ** 2  # colours of the pixels of one
    prefix = "model.vision_embedder"
    projected: int = vision.get("output_proj_dims") or 3840
    return {
        f"{prefix}.pos_embedding": (vision["mm_posemb_size"], 2, width),
        **{f"{prefix}.patch_ln1.{part}": (patch,) for part in ("weight", "bias")},
        f"{prefix}.patch_dense.weight": (width, patch),
        f"{prefix}.patch_dense.bias": (width,),
        **{f"{prefix}.{norm}.{part}": (width,) for norm in ("patch_ln2", "pos_norm") for part in ("weight", "bias")},
        "model.embed_vision.embedding_projection.weight": (hidden, projected),
    }


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """Return "section.key" -> size of all that shapes a tensor, with what transformers fills in.

    A model without a vision embedder has none of its sizes. Raises UserError for a configuration that does not add up.
    """
    names = [name for name in DEFAULTS if name != "vision_config" or config.get(name) is not None]
    sections = {name: _section(config, name) for name in names}
    values = {f"{name}.{key}": section[key] for name, section in sections.items() for key in DEFAULTS[name]}
    layers = _layers(config)
    full = max(layers, key=lambda layer: layer.head_dim)
    values |= {"text_config.global_head_dim": full.head_dim}
    return values | {"text_config.num_global_key_value_heads": min(layer.keys for layer in layers)}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return "section.key" -> value of what besides its sizes decides what a model of this configuration computes."""
    values: dict[str, Any] = {}
    for path, default in SETTINGS.items():
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        values[path] = default if value is None else value
    kinds = _layer_types(_section(config, "text_config"))
    # A text, one letter a layer: what differs is shown to the user.
    return values | {"text_config.layer_types": "".join("f" if kind == FULL else "s" for kind in kinds)}


def smoothing_groups(config: dict[str, Any]) -> list[SmoothingGroup]:
    """Return every smoothing group of a model with this configuration, in the order in which activations reach them.

    Keys that serve as values read the input of queries and keys, so a group has one target less there.
    """
    return list(_groups(config))


def _groups(config: dict[str, Any]) -> Iterator[SmoothingGroup]:
    for number, layer in enumerate(_layers(config)):
        prefix = f"{LAYERS}.{number}"
        for source, targets in _GROUPS:
            present = [target for target in targets if layer.values or target != _ATTENTION.format("v")]
            yield SmoothingGroup(
                sources=(f"{prefix}.{source}.weight",),
                targets=tuple(f"{prefix}.{target}.weight" for target in present),
                stack=TEXT.name,
                layer=number,
            )


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return a configuration with at most so many layers, of the kinds of the last ones.

    These end with full attention, which transformers demands of the last layer of any model.
    """
    text = _section(config, "text_config")
    kinds = _layer_types(text)[-layers:]
    shapes = _layers(config)[-layers:]
    own = {key: value for key, value in config["text_config"].items() if key != "per_layer_config"}
    full = next(shape for shape, kind in zip(shapes, kinds, strict=True) if kind == FULL)
    of_full = {"global_head_dim": full.head_dim, "num_global_key_value_heads": full.keys}
    return config | {"text_config": own | of_full | {"num_hidden_layers": len(kinds), "layer_types": kinds}}


def ordinary_tokens(config: dict[str, Any]) -> int:
    """Return the number of token ids before the first that stands for audio or an image."""
    vocabulary: int = _section(config, "text_config")["vocab_size"]
    special: list[int | None] = [config.get(key, default) for key, default in _SPECIAL_IDS.items()]
    return min(vocabulary, *(number for number in special if number))


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section with its defaults; UserError where it has no positive sizes or is of an uncovered variant."""
    given = config.get(name)
    if not isinstance(given, dict):
        raise UserError(f"config.json: {name}", f"expected an object, got {given!r}", "correct the configuration")
    section: dict[str, Any] = DEFAULTS[name] | {key: value for key, value in given.items() if value is not None}
    for key in DEFAULTS[name]:
        if type(section[key]) is not int or section[key] < 1:
            raise UserError(f"config.json: {name}.{key}", f"expected a size, got {section[key]!r}", "correct the value")
    for key, covered in _UNSUPPORTED.items():
        if name == "text_config" and key in given and given[key] not in covered:
            what = f"expected {covered[0]!r}, got {given[key]!r}: such a variant has other tensors"
            raise UserError(f"config.json: {name}.{key}", what, "use a checkpoint shaped like google/gemma-4-12B-it")
    if name == "text_config" and (
        given.get("tie_word_embeddings") is False or config.get("tie_word_embeddings") is False
    ):
        what = "the head has a weight of its own; this family's is tied to the embedding"
        raise UserError("config.json: tie_word_embeddings", what, "use a checkpoint whose head is tied")
    return section


def _layer_types(text: dict[str, Any]) -> list[str]:
    """Return the kind of attention of each layer; UserError where the configuration's list does not fit."""
    count = text["num_hidden_layers"]
    kinds = text.get("layer_types")
    if kinds is None:
        kinds = [SLIDING if (number + 1) % PATTERN else FULL for number in range(count)]
        kinds[-1] = FULL  # as transformers does
    where, fix = "config.json: text_config.layer_types", "correct the configuration"
    if not isinstance(kinds, list) or len(kinds) != count or any(kind not in (FULL, SLIDING) for kind in kinds):
        raise UserError(where, f"expected {count} times {SLIDING!r} or {FULL!r}", fix)
    if kinds[-1] != FULL:
        raise UserError(where, f"the last layer's is {kinds[-1]!r}, expected {FULL!r}", fix)
    return kinds


def _layers(config: dict[str, Any]) -> list[LayerShape]:
    """Return the shape of every layer's attention.

    The hub's configuration gives the shape of full attention by `global_head_dim` and `num_global_key_value_heads`;
    one that transformers saved, by `per_layer_config`: a number of a layer -> what is different there.
    """
    text = _section(config, "text_config")
    shared = text.get("attention_k_eq_v") is True
    head_dim, keys = text.get("global_head_dim", GLOBAL_HEAD_DIM), text["num_key_value_heads"]
    if shared:
        keys = text.get("num_global_key_value_heads", keys)
    kinds = _layer_types(text)
    if "per_layer_config" in text:
        head_dim, keys = _saved_shape(text, [number for number, kind in enumerate(kinds) if kind == FULL])
    for key, value in (("global_head_dim", head_dim), ("num_global_key_value_heads", keys)):
        if type(value) is not int or value < 1:
            raise UserError(f"config.json: text_config.{key}", f"expected a size, got {value!r}", "correct the value")
    if text["num_attention_heads"] % text["num_key_value_heads"] or text["num_attention_heads"] % keys:
        what = f"{text['num_attention_heads']} heads are not shared out evenly over those of keys and values"
        raise UserError("config.json: text_config.num_attention_heads", what, "correct the configuration")
    full = LayerShape(head_dim=head_dim, keys=keys, values=not shared)
    sliding = LayerShape(head_dim=text["head_dim"], keys=text["num_key_value_heads"], values=True)
    return [full if kind == FULL else sliding for kind in kinds]


def _saved_shape(text: dict[str, Any], full: list[int]) -> tuple[Any, Any]:
    """Return head width and heads of keys of full attention, as `per_layer_config` has them."""
    where, fix = "config.json: text_config.per_layer_config", "take the configuration of the base model"
    saved = text["per_layer_config"]
    if not isinstance(saved, dict) or not all(re.fullmatch(r"\d{1,4}", str(key)) for key in saved):
        raise UserError(where, "expected an object by numbers of layers", fix)
    if sorted(int(key) for key in saved) != full or not all(isinstance(value, dict) for value in saved.values()):
        raise UserError(where, f"expected one entry for each layer of full attention, {full}", fix)
    shapes = {(v.get("head_dim", text["head_dim"]), v.get("num_key_value_heads")) for v in saved.values()}
    if len(shapes) != 1:
        raise UserError(where, "layers of full attention have different shapes", fix)
    head_dim, keys = shapes.pop()
    return head_dim, text["num_key_value_heads"] if keys is None else keys


FAMILY = Family(
    name="gemma4_unified",
    roles=ROLES,
    tensors=tensors,
    sizes=sizes,
    settings=settings,
    config_shape=CONFIG,
    files=FILES,
    disagreements=disagreements,
    role_of=role_of,
    hub_name=hub_name,
    module_name=module_name,
    stacks=(TEXT,),
    frames_per_second=25,
    window_frames=lambda config: USEFUL_POSITIONS,
    prompt_tokens=PROMPT_TOKENS,
    smoothing_groups=smoothing_groups,
    with_layers=with_layers,
    ordinary_tokens=ordinary_tokens,
    tied_weights=lambda config: {"lm_head.weight": EMBEDDING},
    droppable_roles=VISION_ROLES,
    logit_cap=lambda config: config["text_config"].get("final_logit_softcapping"),
    without=lambda config, part: config | {"vision_config": None},
)
