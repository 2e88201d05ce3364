"""Read a model folder, plain or packed: which tensors it holds, where, and whether they are those of its configuration.

Reads `config.json` and the headers of the safetensors files, never a weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.model.codecs import Codec, codec_parts, parse_codec
from submission.model.families import DTYPES, family_of, read_config, tensors
from submission.model.safetensors_header import read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""What peft writes beside an adapter's weights."""
METHOD = "packed"
VERSION = 1
LOADED_BY = "packed weights: run `import submission.runtime` before from_pretrained"
"""What a packed model's `config.json` says under `transformers_weights`, where stock transformers expects the name of a
weights file. Without our quantizer it only warns of an unknown `quant_method` and continues with random weights; with
this entry it ends with an error that quotes it. The quantizer takes the entry away before the files are looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a tensor's bytes are."""

    path: Path
    offset: int
    """Of its first byte in the file."""
    dtype: str
    """As a safetensors header spells it, `BF16`."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model folder whose tensors are exactly those that its configuration implies."""

    folder: Path
    config: dict[str, Any]
    codecs: dict[str, Codec]
    """Packed weights by name, `….up_proj.weight`; empty for a plain checkpoint."""
    located: dict[str, Located]
    """Every stored tensor (of a packed weight: its parts) by its name on the hub."""


def packed_config(config: dict[str, Any], codecs: dict[str, Codec]) -> dict[str, Any]:
    """Return a checkpoint's configuration as the packed model has it; unchanged where nothing is packed.

    codecs: name of each packed weight -> its codec. Different codecs have different names, or ValueError is raised.
    """
    if not codecs:
        return dict(config)
    used = set(codecs.values())
    if len({codec.name for codec in used}) < len(used):
        raise ValueError("two different codecs have the same name; a codec's name must hold all its options")
    section = {
        "quant_method": METHOD,
        "version": VERSION,
        "codecs": {codec.name: codec.to_dict() for codec in used},
        "weights": {name.removesuffix(".weight"): codec.name for name, codec in codecs.items()},
    }
    return config | {"quantization_config": section, "transformers_weights": LOADED_BY}


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a packed model's configuration as the checkpoint has it that the model stands for."""
    return {key: value for key, value in config.items() if key not in ("quantization_config", "transformers_weights")}


def config_text(config: dict[str, Any]) -> str:
    """Return a configuration as `save_pretrained` writes it, so that a packed model saved again has the same bytes."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def parse_quantization(section: Any) -> dict[str, Codec]:
    """Return weight name -> codec of a packed model's `quantization_config`; UserError where malformed."""
    where = "config.json: quantization_config"
    if not isinstance(section, dict) or section.get("quant_method") != METHOD:
        got = section.get("quant_method") if isinstance(section, dict) else section
        raise UserError(f"{where}.quant_method", f"expected {METHOD!r}, got {got!r}", "use a model of this program")
    if section.get("version") != VERSION:
        what = f"expected {VERSION}, got {section.get('version')!r}"
        raise UserError(f"{where}.version", what, "use the version of this program that packed the model")
    table, weights = section.get("codecs"), section.get("weights")
    if not isinstance(table, dict) or not isinstance(weights, dict):
        raise UserError(where, "expected the objects `codecs` and `weights`", "pack the model again")
    known = {name: parse_codec(value, f"{where}.codecs.{name}") for name, value in table.items()}
    for weight, name in weights.items():
        if not isinstance(name, str) or name not in known:
            raise UserError(f"{where}.weights.{weight}", f"unknown codec {name!r}", f"known: {', '.join(known)}")
    return {f"{weight}.weight": known[name] for weight, name in weights.items()}


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return what a model folder holds, having read its configuration and headers only.

    Raises UserError naming the tensors that are missing, left over, misshaped or of a dtype that no
    checkpoint has, and the file that is missing, damaged or truncated.
    """
    if not folder.is_dir():
        raise UserError(str(folder), "no such folder", "name a model folder (config.json, model.safetensors, …)")
    if (folder / ADAPTER).is_file():
        what = f"holds a PEFT adapter ({ADAPTER}) beside its weights, which transformers alone would apply"
        fix = "merge it into the weights (`PeftModel.merge_and_unload`), or move it elsewhere"
        raise UserError(str(folder), what, fix)
    config = read_config(folder)
    section = config.get("quantization_config")
    codecs = {} if section is None else parse_quantization(section)
    located = _locate(folder, config)
    expected = _expected(config, codecs)
    _refuse(folder, "missing", expected.keys() - located.keys(), "fetch or make the model again")
    _refuse(folder, "not part of this model", located.keys() - expected.keys(), "fetch or make the model again")
    for name, (dtypes, shape) in expected.items():
        found = located[name]
        if found.shape != shape:
            what = f"expected the shape {list(shape)}, got {list(found.shape)}"
            raise UserError(f"{found.path}: {name}", what, "take weights and config.json of one model")
        if found.dtype not in dtypes:
            what = f"expected the dtype {' or '.join(dtypes)}, got {found.dtype}"
            raise UserError(f"{found.path}: {name}", what, "convert or make the model again")
    return Checkpoint(folder=folder, config=config, codecs=codecs, located=located)


def _refuse(folder: Path, what: str, names: Iterable[str], fix: str) -> None:
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        raise UserError(str(folder), f"{len(listed)} tensors {what}: {', '.join(listed[:3])}{more}", fix)


def _expected(config: dict[str, Any], codecs: dict[str, Codec]) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return stored name -> (allowed dtypes, shape) of all that a folder of this configuration must hold."""
    expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
    unknown = set(codecs)
    for spec in tensors(config):
        unknown.discard(spec.name)
        if spec.name not in codecs:
            expected[spec.name] = (tuple(DTYPES.values()), spec.shape)
            continue
        if not spec.packable:
            where = f"config.json: quantization_config.weights.{spec.name.removesuffix('.weight')}"
            raise UserError(where, f"{spec.role} is never packed", "pack the model again")
        for part, (dtype, shape) in codec_parts(spec.name, codecs[spec.name], spec.shape).items():
            expected[f"{spec.name}.{part}"] = ((dtype,), shape)
    if unknown:
        what = f"names weights that the model lacks: {', '.join(sorted(unknown)[:3])}"
        raise UserError("config.json: quantization_config.weights", what, "pack the model again")
    return expected


def _locate(folder: Path, config: dict[str, Any]) -> dict[str, Located]:
    """Return every tensor in a folder's files, by its name on the hub."""
    hub_name = family_of(config).hub_name
    located: dict[str, Located] = {}
    for path in weight_files(folder):
        header = read_header(path)
        for name, info in header.tensors.items():
            if hub_name(name) in located:
                raise UserError(f"{path}: {name}", "occurs twice in this folder", "fetch or make the model again")
            place = Located(path=path, offset=header.data_offset + info.begin, dtype=info.dtype, shape=info.shape)
            located[hub_name(name)] = place
    return located


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder: one, or the shards that its index names, sorted."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(str(index), "has no weight_map of names to files", "fetch or make the file again") from error
    if outside := sorted(str(n) for n in names if not isinstance(n, str) or Path(n).name != n):
        raise UserError(str(index), f"names {outside[0]!r}, which is no file of this folder", "fetch it again")
    return [folder / name for name in sorted(names)]
