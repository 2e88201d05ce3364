"""Merge LoRA adapters into the base: W + (alpha / rank) · B · A, tensor by tensor in the base's own files.

The files of the base are copied and only the bytes of adapted weights are overwritten, so the merged checkpoint has
the base's names, shards and layout, and memory holds one weight at a time, never a model. The sum is made in float32
and rounded once to the weight's own dtype.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from submission.errors import UserError
from submission.model.checkpoint import INDEX, WEIGHTS, Located, read_checkpoint, weight_files
from submission.model.families import family_of
from submission.model.forecast import COMPANIONS
from submission.progress import progress
from submission.store.digests import canonical_json, sha256_file, write_text
from submission.system.data_folder import LICENSES

COPIED = ("config.json", INDEX, *COMPANIONS, *LICENSES)
"""Files of a checkpoint besides its weights: configuration, tokenizer, processor, chat template, licence."""
REPORT = "merge_report.json"
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PLAIN = {"peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "fan_in_fan_out": False}
"""Values in an adapter's configuration for which the formula above holds."""
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


class LoraPair(NamedTuple):
    """Names of the two matrices of one adapter."""

    a: str
    """float [rank, in]"""
    b: str
    """float [out, rank]"""


def read_scale(adapter: Path) -> float:
    """Return alpha / rank of an adapter; UserError for an adapter that is not a plain B · A."""
    path = adapter / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "fine-tune again") from error
    wrong = [f"{key} {config.get(key)!r}" for key, value in PLAIN.items() if config.get(key, value) != value]
    wrong += [key for key in ("rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if wrong:
        raise UserError(str(path), f"is no plain LoRA adapter: {', '.join(wrong)}", "fine-tune without these")
    return config["lora_alpha"] / config["r"]


def pair_up(names: list[str], where: str) -> dict[str, LoraPair]:
    """Return module path in the loaded model -> its two matrices; UserError where a name is no part of a pair."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise UserError(f"{where}: {name}", "is not part of a LoRA pair and would be lost", "fine-tune again")
        found.setdefault(match["module"], {})[match["part"]] = name
    for module, parts in found.items():
        if len(parts) != 2:
            raise UserError(f"{where}: {module}", f"has only lora_{next(iter(parts))}", "fine-tune again")
    return {module: LoraPair(parts["A"], parts["B"]) for module, parts in found.items()}


def merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Write the merged checkpoint, an ordinary Hugging Face folder, into `out`.

    Every tensor of the adapter is used. Raises UserError for an adapter that does not fit the base, and for a base
    that is packed.
    """
    checkpoint = read_checkpoint(base)
    if checkpoint.codecs:
        raise UserError(str(base), "is a packed model", "merge into the checkpoint that it was packed from")
    scale = read_scale(adapter)
    path = adapter / "adapter_model.safetensors"
    hub_name = family_of(checkpoint.config).hub_name
    with safe_open(path, framework="pt") as tensors:
        pairs = pair_up(list(tensors.keys()), str(path))
        adapted = {f"{hub_name(module)}.weight": pair for module, pair in pairs.items()}
        if unknown := sorted(adapted.keys() - checkpoint.located.keys()):
            raise UserError(f"{path}: {unknown[0]}", f"is no weight of {base}", "merge into the base of this adapter")
        copies = {source: out / source.name for source in weight_files(base)}
        for source, copy in copies.items():
            shutil.copyfile(source, copy)
        with progress("merge", len(adapted), "weights") as tick:
            for name in sorted(adapted, key=lambda n: (checkpoint.located[n].path, checkpoint.located[n].offset)):
                a, b = (tensors.get_tensor(part).float() for part in adapted[name])
                tensor = checkpoint.located[name]
                if (b.shape[0], a.shape[1]) != tensor.shape or a.shape[0] != b.shape[1]:
                    what = f"{list(b.shape)} · {list(a.shape)} does not give {list(tensor.shape)}"
                    raise UserError(f"{path}: {name}", what, "merge into the base of this adapter")
                _add(copies[tensor.path], tensor, scale * (b @ a))
                tick(1)
    _copy_companions(base, out)


def write_merge_report(tuned: Path, merged: Path) -> None:
    """Write merge_report.json into the merged checkpoint: base, data sample, seed and step of the merged adapters.

    tuned: the folder of a fine-tuning, with its finetuning_report.json. Nothing that loads the checkpoint reads this.
    """
    report = json.loads((tuned / "finetuning_report.json").read_text(encoding="utf-8"))
    origin = {
        "base": report["base"],
        "sample": report["sample"],
        "seed": report["seed"],
        "step": report["kept_step"],
        "steps": report["steps"],
        "adapter_sha256": sha256_file(tuned / "adapter/adapter_model.safetensors"),
    }
    write_text(merged / REPORT, canonical_json(origin))


def _add(path: Path, tensor: Located, delta: torch.Tensor) -> None:
    """Add delta, float32 [out, in], to a weight in its file."""
    dtype = DTYPES[tensor.dtype]
    with path.open("r+b") as file:
        file.seek(tensor.offset)
        weight = torch.frombuffer(bytearray(file.read(delta.numel() * dtype.itemsize)), dtype=dtype)
        merged = (weight.reshape(tensor.shape).float() + delta).to(dtype)
        file.seek(tensor.offset)
        file.write(merged.contiguous().view(torch.uint8).numpy().tobytes())


def _copy_companions(base: Path, out: Path) -> None:
    names = {name for name in COPIED if (base / name).is_file()}
    if (base / WEIGHTS).is_file():
        names.discard(INDEX)  # a leftover beside a single file would name shards that are not there
    for name in sorted(names):
        shutil.copyfile(base / name, out / name)
