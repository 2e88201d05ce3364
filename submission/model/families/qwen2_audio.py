"""Qwen2-Audio: a Whisper-shaped audio encoder, one projecting linear, a Qwen2 decoder with an untied head.

Three names for one tensor: the hub's (`language_model.model.layers.0.…`, which `save_pretrained` still
writes), the loaded model's in transformers 5 (`model.language_model.layers.0.…`), and the role (`mlp.up`).
Files use the hub's names, recipes use roles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from submission.errors import UserError
from submission.model.families.family import Family
from submission.model.families.qwen2_audio_files import CONFIG, FILES, disagreements, settings
from submission.model.families.smoothing import SmoothingGroup, Stack
from submission.model.families.tensors import TensorSpec

DEFAULTS = {
    "audio_config": {
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "max_source_positions": 1500,
    },
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
"""What transformers fills in where a configuration is silent (Qwen2AudioEncoderConfig, Qwen2Config); the
hub's Qwen2-Audio-7B leaves out its hidden size, layers and heads."""

CONV_KERNEL = 3
PROMPT_TOKENS = 8
"""Two about the audio, and "Translate this speech to German", a colon and a line break: six of Qwen's vocabulary."""

# Name on the hub -> role, tried in this order.
_PATTERNS = (
    (r"language_model\.model\.embed_tokens", "embedding"),
    (r"language_model\.lm_head", "lm_head"),
    (r"language_model\.model\.layers\.(\d+)\.self_attn\.([qkvo])_proj", "attn.{}"),
    (r"language_model\.model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj", "mlp.{}"),
    (r"language_model\.model\.layers\.(\d+)\.(?:input|post_attention)_layernorm", "norm"),
    (r"language_model\.model\.norm", "norm"),
    (r"multi_modal_projector\.linear", "projector"),
    (r"audio_tower\.conv[12]", "audio.conv"),
    (r"audio_tower\.embed_positions", "audio.position"),
    (r"audio_tower\.layers\.(\d+)\.self_attn\.([qkv])_proj", "audio.attn.{}"),
    (r"audio_tower\.layers\.(\d+)\.self_attn\.out_proj", "audio.attn.o"),
    (r"audio_tower\.layers\.(\d+)\.fc1", "audio.mlp.up"),
    (r"audio_tower\.layers\.(\d+)\.fc2", "audio.mlp.down"),
    (r"audio_tower\.layers\.(\d+)\.(?:self_attn|final)_layer_norm", "audio.norm"),
    (r"audio_tower\.layer_norm", "audio.norm"),
)

ROLES = (
    "embedding",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.o",
    "mlp.gate",
    "mlp.up",
    "mlp.down",
    "norm",
    "lm_head",
    "projector",
    "audio.conv",
    "audio.position",
    "audio.attn.q",
    "audio.attn.k",
    "audio.attn.v",
    "audio.attn.o",
    "audio.mlp.up",
    "audio.mlp.down",
    "audio.norm",
)

_KEPT_ROLES = ("norm", "audio.norm", "audio.conv", "audio.position")

_V = "self_attn.v_proj"

# Prefixes: loaded model in transformers 5 -> hub.
_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head", "language_model.lm_head"),
    ("model.audio_tower.", "audio_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)

STACKS = (
    # Lengths after the second convolution's stride, and after the pooling behind the encoder's layers.
    Stack(name="audio", layers="audio_tower.layers", positions=lambda frames, tokens: _encoded(frames)),
    Stack(name="projector", layers=None, positions=lambda frames, tokens: (_encoded(frames) - 2) // 2 + 1),
    Stack(name="text", layers="language_model.model.layers", positions=lambda frames, tokens: tokens),
)

# Source -> targets within a layer. Behind an activation (fc1 -> fc2) or rotary positions (q -> k) no factor can move.
_AUDIO_GROUPS = (
    (("self_attn_layer_norm.weight", "self_attn_layer_norm.bias"), ("self_attn.q_proj", "self_attn.k_proj", _V)),
    ((f"{_V}.weight", f"{_V}.bias"), ("self_attn.out_proj",)),
    (("final_layer_norm.weight", "final_layer_norm.bias"), ("fc1",)),
)
_TEXT_GROUPS = (
    (("input_layernorm.weight",), ("self_attn.q_proj", "self_attn.k_proj", _V)),
    ((f"{_V}.weight", f"{_V}.bias"), ("self_attn.o_proj",)),
    (("post_attention_layernorm.weight",), ("mlp.gate_proj", "mlp.up_proj")),
    (("mlp.up_proj.weight",), ("mlp.down_proj",)),
)


def hub_name(name: str) -> str:
    """Return the hub's name of a tensor, given that name or the loaded model's."""
    for loaded, hub in _PREFIXES:
        if name.startswith(loaded):
            return hub + name[len(loaded) :]
    return name


def module_name(name: str) -> str:
    """Return where a tensor or module that the hub calls `name` is in the loaded transformers model."""
    for loaded, hub in _PREFIXES:
        if name.startswith(hub):
            return loaded + name[len(hub) :]
    return name


def role_of(name: str) -> str:
    """Return the role of a tensor (weight or bias) by its name on the hub; KeyError for any other name."""
    return _role_and_layer(name)[0]


@lru_cache(maxsize=4_096)
def _role_and_layer(name: str) -> tuple[str, int | None]:
    for pattern, role in _PATTERNS:
        match = re.fullmatch(pattern + r"\.(?:weight|bias)", name)
        if match:
            groups = match.groups()
            return role.format(*groups[1:]), int(groups[0]) if groups else None
    raise KeyError(name)


def tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Return every tensor of a checkpoint with this configuration, named as on the hub, in the model's order.

    Raises UserError for a configuration that does not add up or whose head is tied to the embedding.
    """
    audio, text = (_section(config, name) for name in ("audio_config", "text_config"))
    if text.get("tie_word_embeddings") or config.get("tie_word_embeddings"):
        what = "the LM head shares the embedding's weight"
        raise UserError("config.json: tie_word_embeddings", what, "use a checkpoint with its own LM head")
    _refuse_undivided(audio, text)
    shapes = _audio_shapes(audio) | _projector_shapes(audio, text) | _text_shapes(text)
    return [_spec(name, shape) for name, shape in shapes.items()]


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """Return "section.key" -> size of all that shapes a tensor, with what transformers fills in.

    Raises UserError for a configuration that does not add up.
    """
    sections = {name: _section(config, name) for name in DEFAULTS}
    values = {f"{name}.{key}": section[key] for name, section in sections.items() for key in DEFAULTS[name]}
    return values | {"text_config.head_dim": _head_width(sections["text_config"])}


def smoothing_groups(config: dict[str, Any]) -> list[SmoothingGroup]:
    """Return every smoothing group of a model with this configuration, in the order in which activations reach them.

    The values' rows are divided for the columns of attention's output only where every query head has its own keys
    and values; heads that share them would need the same factors.
    """
    audio, text = (_section(config, name) for name in ("audio_config", "text_config"))
    shared = text["num_key_value_heads"] != text["num_attention_heads"]
    inner = [group for group in _TEXT_GROUPS if not (shared and group[0][0].startswith(_V))]
    groups = [g for layer in range(audio["encoder_layers"]) for g in _layer_groups(STACKS[0], layer, _AUDIO_GROUPS)]
    norm, projector = "audio_tower.layer_norm", "multi_modal_projector.linear.weight"
    groups.append(
        SmoothingGroup(
            sources=(f"{norm}.weight", f"{norm}.bias"), targets=(projector,), stack=STACKS[1].name, layer=None
        )
    )
    return groups + [g for layer in range(text["num_hidden_layers"]) for g in _layer_groups(STACKS[2], layer, inner)]


def _layer_groups(
    stack: Stack, layer: int, groups: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]
) -> list[SmoothingGroup]:
    prefix = f"{stack.layers}.{layer}"
    return [
        SmoothingGroup(
            sources=tuple(f"{prefix}.{source}" for source in sources),
            targets=tuple(f"{prefix}.{target}.weight" for target in targets),
            stack=stack.name,
            layer=layer,
        )
        for sources, targets in groups
    ]


def _encoded(frames: int) -> int:
    return (frames - 1) // 2 + 1


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    given = config.get(name) or {}
    if not isinstance(given, dict):
        raise UserError(f"config.json: {name}", f"expected an object, got {given!r}", "correct the configuration")
    section = DEFAULTS[name] | {key: value for key, value in given.items() if value is not None}
    if given.get("num_key_value_heads", 0) is None:
        section["num_key_value_heads"] = section["num_attention_heads"]
    for key in DEFAULTS[name]:
        if type(section[key]) is not int or section[key] < 1:
            raise UserError(f"config.json: {name}.{key}", f"expected a size, got {section[key]!r}", "correct the value")
    return section


def _spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    role, layer = _role_and_layer(name)
    packable = role not in _KEPT_ROLES and name.endswith(".weight")
    return TensorSpec(name=name, shape=shape, role=role, layer=layer, packable=packable)


def _linear(name: str, out: int, inputs: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inputs)} | ({f"{name}.bias": (out,)} if bias else {})


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _refuse_undivided(audio: dict[str, Any], text: dict[str, Any]) -> None:
    """Raise UserError where attention's heads do not share out its width."""
    pairs = [("audio_config", audio, "d_model", "encoder_attention_heads")]
    pairs.append(("text_config", text, "num_attention_heads", "num_key_value_heads"))
    if not text.get("head_dim"):
        pairs.append(("text_config", text, "hidden_size", "num_attention_heads"))
    for name, section, whole, part in pairs:
        if section[whole] % section[part]:
            what = f"{section[part]} does not divide {whole} {section[whole]}"
            raise UserError(f"config.json: {name}.{part}", what, "correct the configuration")


def _audio_shapes(audio: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, mels = audio["d_model"], audio["encoder_ffn_dim"], audio["num_mel_bins"]
    shapes: dict[str, tuple[int, ...]] = {
        "audio_tower.conv1.weight": (width, mels, CONV_KERNEL),
        "audio_tower.conv1.bias": (width,),
        "audio_tower.conv2.weight": (width, width, CONV_KERNEL),
        "audio_tower.conv2.bias": (width,),
        "audio_tower.embed_positions.weight": (audio["max_source_positions"], width),
    }
    for layer in range(audio["encoder_layers"]):
        prefix = f"audio_tower.layers.{layer}"
        # Whisper's attention: no bias on the keys.
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{prefix}.self_attn.{projection}", width, width, bias=projection != "k_proj")
        shapes |= _layer_norm(f"{prefix}.self_attn_layer_norm", width)
        shapes |= _linear(f"{prefix}.fc1", inner, width, bias=True)
        shapes |= _linear(f"{prefix}.fc2", width, inner, bias=True)
        shapes |= _layer_norm(f"{prefix}.final_layer_norm", width)
    return shapes | _layer_norm("audio_tower.layer_norm", width)


def _projector_shapes(audio: dict[str, Any], text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return _linear("multi_modal_projector.linear", text["hidden_size"], audio["d_model"], bias=True)


def _head_width(text: dict[str, Any]) -> int:
    width: int = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return width


def _text_shapes(text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    head = _head_width(text)
    queries, keys = heads * head, text["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"language_model.model.embed_tokens.weight": (text["vocab_size"], width)}
    for layer in range(text["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{layer}"
        # Qwen2's attention: biases on queries, keys and values, none on the output.
        shapes |= _linear(f"{prefix}.self_attn.q_proj", queries, width, bias=True)
        shapes |= _linear(f"{prefix}.self_attn.k_proj", keys, width, bias=True)
        shapes |= _linear(f"{prefix}.self_attn.v_proj", keys, width, bias=True)
        shapes |= _linear(f"{prefix}.self_attn.o_proj", width, queries, bias=False)
        shapes |= _linear(f"{prefix}.mlp.gate_proj", inner, width, bias=False)
        shapes |= _linear(f"{prefix}.mlp.up_proj", inner, width, bias=False)
        shapes |= _linear(f"{prefix}.mlp.down_proj", width, inner, bias=False)
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
    shapes["language_model.model.norm.weight"] = (width,)
    return shapes | _linear("language_model.lm_head", text["vocab_size"], width, bias=False)


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return a configuration whose audio encoder and decoder have at most so many layers each."""
    counts = {"audio_config": "encoder_layers", "text_config": "num_hidden_layers"}
    sections = {name: _section(config, name) for name in counts}
    return config | {
        name: config.get(name, {}) | {key: min(layers, sections[name][key])} for name, key in counts.items()
    }


def window_frames(config: dict[str, Any]) -> int:
    """Return the frames of the encoder's window, two for each of its positions."""
    positions: int = _section(config, "audio_config")["max_source_positions"]
    return 2 * positions


def ordinary_tokens(config: dict[str, Any]) -> int:
    """Return the number of token ids before the audio token, or all where the configuration names none."""
    vocabulary: int = _section(config, "text_config")["vocab_size"]
    audio_token: int = config.get("audio_token_index", vocabulary)
    return min(vocabulary, audio_token)


FAMILY = Family(
    name="qwen2_audio",
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
    stacks=STACKS,
    frames_per_second=100,
    window_frames=window_frames,
    prompt_tokens=PROMPT_TOKENS,
    pads_to_window=True,
    smoothing_groups=smoothing_groups,
    with_layers=with_layers,
    ordinary_tokens=ordinary_tokens,
)
