"""Derive from an untrusted `config.json` which tensors a packed model must store, by arithmetic that always ends."""

from __future__ import annotations

import re
from typing import Any

from submission.bundle.untrusted.strict_json import Unreadable
from submission.errors import UserError
from submission.model.checkpoint import parse_quantization
from submission.model.families import stored_dtype, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import stored_parts
from submission.text.characters import printable

# Qwen2-Audio-7B: 32 layers, 156,032 tokens. What lies far above is no model and would only cost time.
MOST_LAYERS = 1_000
LARGEST_WIDTH = 10_000_000


def expected_tensors(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape) of all that a packed model with this configuration stores.

    Raises Unreadable for a configuration that is malformed in any way.
    """
    specs = _specs(config)
    try:
        dtype, codecs = stored_dtype(config), parse_quantization(config.get("quantization_config"))
    except UserError as error:
        raise Unreadable(_message(error)) from None
    section = config["quantization_config"]
    if set(section) != {"quant_method", "version", "codecs", "weights"}:
        raise Unreadable("quantization_config: expected exactly quant_method, version, codecs and weights")
    if type(section["version"]) is not int:
        raise Unreadable("quantization_config.version: expected a whole number")
    for weight, name in section["weights"].items():
        if codecs[f"{weight}.weight"].name != name:
            raise Unreadable(f"quantization_config.codecs: '{printable(name)}' is not the name of what it stands for")
    unused = section["codecs"].keys() - set(section["weights"].values())
    if unused:
        raise Unreadable(f"quantization_config.codecs: no weight uses '{printable(min(unused))}'")
    stored: dict[str, tuple[str, tuple[int, ...]]] = {}
    for spec in specs:
        codec = codecs.pop(spec.name, None)
        if codec is not None and not spec.packable:
            raise Unreadable(f"quantization_config packs '{spec.name}', which no codec may store")
        try:
            stored |= stored_parts(spec, codec, dtype)
        except UserError as error:
            raise Unreadable(_message(error)) from None
    if codecs:
        raise Unreadable(f"quantization_config packs '{printable(min(codecs))}', which the model does not have")
    return stored


def _specs(config: dict[str, Any]) -> list[TensorSpec]:
    _refuse_implausible(config)
    try:
        return tensors(config)
    except UserError as error:
        raise Unreadable(_message(error)) from None
    except ZeroDivisionError:
        raise Unreadable("num_attention_heads: expected a positive number") from None


def _message(error: UserError) -> str:
    return f"{printable(error.where)}: {printable(error.what, 200)}"


def _refuse_implausible(config: dict[str, Any]) -> None:
    """Refuse values of a type or size that no architecture's arithmetic expects."""
    for key in ("model_type", "dtype", "torch_dtype"):
        if not isinstance(config.get(key, ""), (str, type(None))):
            raise Unreadable(f"{key}: expected a text")
    for name, section in config.items():
        if not re.fullmatch(r"\w+_config", name) or not isinstance(section, dict):
            continue
        for key, value in section.items():
            largest = MOST_LAYERS if key.endswith("layers") else LARGEST_WIDTH
            if key in {"head_dim"} and not isinstance(value, (int, type(None))):
                raise Unreadable(f"{name}.{key}: expected a size")
            if isinstance(value, int) and not -LARGEST_WIDTH <= value <= largest:
                raise Unreadable(f"{name}.{printable(key)}: {printable(repr(value)[:40])} is no size of a model")
