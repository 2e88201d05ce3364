"""Model families: what the tensors of a model are called, how large they are, and what each is for.

One file per family, found by the `model_type` of a checkpoint's `config.json`. All answers come from arithmetic on the
configuration alone, so that sizes are known before any weight is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.model.families import gemma4_unified, qwen2_audio
from submission.model.families.family import Family
from submission.model.families.tensors import TensorSpec

FAMILIES: dict[str, Family] = {
    "qwen2_audio": qwen2_audio.FAMILY,
    "gemma4_unified": gemma4_unified.FAMILY,
}
"""Model families by the `model_type` of their configuration. The second file of each is registered in
`submission.runtime.families`."""

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Dtypes that a checkpoint may have: their name in a configuration -> in a safetensors header."""


def family_of(config: dict[str, Any]) -> Family:
    """Return the family of a configuration; UserError for a model that no family describes."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError("config.json: model_type", f"unknown model {kind!r}", f"known: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Return every tensor of a checkpoint with this configuration, by hub name, in the model's order."""
    return family_of(config).tensors(config)


def tied_heads(config: dict[str, Any]) -> list[TensorSpec]:
    """Return the heads of a model that share a stored weight, as if they were stored by their own names."""
    stored = {spec.name: spec for spec in tensors(config)}
    tied = family_of(config).tied_weights(config)
    return [replace(stored[weight], name=head, role="lm_head") for head, weight in tied.items()]


def audio_positions(config: dict[str, Any], frames: int) -> int:
    """Return how many positions of the text stream stand for audio of so many frames."""
    stacks = {stack.name: stack for stack in family_of(config).stacks}
    return stacks["projector"].positions(frames, 0) if "projector" in stacks else frames


def droppable_parts(family: Family) -> list[str]:
    """Return the parts that a system for speech may leave out, sorted: the first words of their roles."""
    return sorted({role.partition(".")[0] for role in family.droppable_roles})


def without_parts(config: dict[str, Any], parts: Iterable[str]) -> dict[str, Any]:
    """Return the configuration of a model without these parts; UserError for one that its family cannot do without."""
    family = family_of(config)
    known = droppable_parts(family)
    for part in parts:
        if part not in known:
            what = f"{part!r} cannot be left out of a model of the family {family.name}"
            fix = (
                f"choose among: {', '.join(known)}"
                if known
                else "leave it out of the recipe: all of this family is needed"
            )
            raise UserError("quantize.drop", what, fix)
        config = family.without(config, part)
    return config


def stored_dtype(config: dict[str, Any]) -> str:
    """Return the safetensors dtype of a checkpoint's weights, as its configuration gives it.

    The field is `dtype`, formerly `torch_dtype`. UserError for one that no codec reads.
    """
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
