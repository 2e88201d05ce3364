"""Architectures: what the tensors of a model are called, how large they are, and what each is for.

One file per model family, found by the `model_type` of a checkpoint's `config.json`. An architecture answers
by arithmetic on the configuration alone, so that sizes are known before any weight is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.model.families import qwen2_audio
from submission.model.families.smoothing import SmoothingGroup, Stack
from submission.model.families.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the rest of the house may ask about a model family."""

    name: str
    roles: tuple[str, ...]
    """Every role that occurs, in the order in which tables show them."""
    tensors: Callable[[dict[str, Any]], list[TensorSpec]]
    """Configuration -> every tensor of a checkpoint, in the model's order."""
    sizes: Callable[[dict[str, Any]], dict[str, int]]
    """Configuration -> "section.key" -> size, of everything that shapes a tensor, also where it is silent."""
    role_of: Callable[[str], str]
    """Name of a tensor on the hub -> its role; KeyError for a name that is none."""
    hub_name: Callable[[str], str]
    """Name of a tensor in a file or in a loaded model -> its name on the hub."""
    module_name: Callable[[str], str]
    """Name of a tensor or module on the hub -> its path in the loaded transformers model."""
    stacks: tuple[Stack, ...]
    """Parts of the model in the order in which activations reach them."""
    smoothing_groups: Callable[[dict[str, Any]], list[SmoothingGroup]]
    """Configuration -> tensors between which a factor per channel can move, in the same order."""


ARCHITECTURES = {
    "qwen2_audio": Architecture(
        name="qwen2_audio",
        roles=qwen2_audio.ROLES,
        tensors=qwen2_audio.tensors,
        sizes=qwen2_audio.sizes,
        role_of=qwen2_audio.role_of,
        hub_name=qwen2_audio.hub_name,
        module_name=qwen2_audio.module_name,
        stacks=qwen2_audio.STACKS,
        smoothing_groups=qwen2_audio.smoothing_groups,
    ),
}
"""Model families by the `model_type` of their configuration."""

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Dtypes that a checkpoint may have: their name in a configuration -> in a safetensors header."""


def architecture_of(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a configuration; UserError for a model that none describes."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError("config.json: model_type", f"unknown model {kind!r}", f"known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


def tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Return every tensor of a checkpoint with this configuration, by hub name, in the model's order."""
    return architecture_of(config).tensors(config)


def stored_dtype(config: dict[str, Any]) -> str:
    """Return the safetensors dtype of a checkpoint's weights as its configuration says it (`dtype`, formerly
    `torch_dtype`)."""
    name = config.get("dtype") or config.get("torch_dtype")
    if name not in DTYPES:
        raise UserError("config.json: dtype", f"expected one of {', '.join(DTYPES)}, got {name!r}", "write the dtype")
    return DTYPES[name]


def read_config(path: Path) -> dict[str, Any]:
    """Return a checkpoint's configuration, given its folder or a JSON file."""
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(str(file), f"cannot be read ({error.strerror})", "name a checkpoint folder") from error
    except ValueError as error:
        raise UserError(str(file), f"is not JSON ({error})", "fetch or make the file again") from error
    if not isinstance(config, dict):
        raise UserError(str(file), "expected a JSON object", "fetch or make the file again")
    return config


def shipped_config(model: str) -> dict[str, Any] | None:
    """Return the configuration of a model (`Qwen2-Audio-7B`) that ships as data, or None."""
    path = Path(__file__).parent / f"{model}.config.json"
    return read_config(path) if path.is_file() else None
