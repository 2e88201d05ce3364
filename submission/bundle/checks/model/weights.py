"""Checks CFG and WEI of the model folder: it can be loaded, holds data only, and matches its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.model.remote_code import remote_references, unsafe_template_code
from submission.bundle.untrusted.bundle_view import CONFIG, BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.checkpoint import parse_quantization
from submission.model.families import tensors
from submission.model.safetensors_header import METADATA, BadHeader, Problem, SafetensorsHeader
from submission.text.characters import printable

# Vocabularies: any text may be a key there.
NOT_CONFIGURATION = frozenset({"model/tokenizer.json", "model/vocab.json", "model/added_tokens.json"})
INDEX = ".safetensors.index.json"
WEIGHTS = "model/model.safetensors"
MOST_SHOWN = 5


def configuration(view: BundleView) -> Iterator[Fault]:
    """Put the packed model's `config.json` there, as `quantize` wrote it, for the campaign's base model."""
    if isinstance(view.config, Unreadable):
        yield CONFIG, str(view.config)
        return
    kind, expected = view.config.get("model_type"), view.campaign.model.architecture
    if kind != expected:
        yield CONFIG, f"model_type: expected '{expected}', got {printable(repr(kind)[:80])}"
    elif isinstance(view.expected_tensors, Unreadable) and not view.config_faults and not view.larger_sizes:
        yield CONFIG, str(view.expected_tensors)


def outside_reference(view: BundleView) -> Iterator[Fault]:
    """Remove the key: loading would fetch weights, or run code, that the bundle does not hold."""
    tables = {CONFIG: view.config, **{f"model/{name}": value for name, value in view.model_files.items()}}
    for path, value in tables.items():
        if path not in NOT_CONFIGURATION and not isinstance(value, Unreadable):
            for found in remote_references(value):
                yield printable(path), found
    for path in view.files:
        if path.rpartition("/")[2] == "adapter_config.json":
            yield printable(path), "an adapter: its weights apply to a base model outside the bundle"


def reaching_template(view: BundleView) -> Iterator[Fault]:
    """Take the base model's own chat template: one that reaches for Python's internals, or for other files, runs code
    where it is rendered.
    """
    for path, template in _templates(view):
        if found := unsafe_template_code(template):
            yield printable(path), f"the template holds {printable(found)}"


def _templates(view: BundleView) -> Iterator[tuple[str, str]]:
    """Yield every chat template of the model, whether a file of its own or a text in JSON."""
    for name, file in view.family.files.items():
        path = f"model/{name}"
        if file.shape is None and path in view.files:
            try:
                yield path, view.read(path, file.most_bytes).decode("utf-8", "replace")
            except Unreadable:
                continue  # FILE07 or FILE12 says so
    for name, table in view.model_files.items():
        template = table.get("chat_template") if isinstance(table, dict) else None
        # A text, or in older files a list of tables of which each has one.
        for part in template if isinstance(template, list) else [template]:
            text = part.get("template") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield f"model/{name}", text


def unreadable_json(view: BundleView) -> Iterator[Fault]:
    """Write the file again from the packed model; it is not the JSON that loading it would read."""
    for name, value in view.model_files.items():
        if isinstance(value, Unreadable):
            yield f"model/{name}", str(value)
    for entry in view.under("model"):
        if entry.path.endswith(INDEX):
            try:
                view.json(entry.path)
            except Unreadable as error:
                yield printable(entry.path), str(error)


def no_weights(view: BundleView) -> Iterator[Fault]:
    """Put the packed weights (`*.safetensors`) into `model/`; a bundle that holds none cannot be run."""
    if not view.headers:
        yield "model", "holds no safetensors file"


def bad_header(view: BundleView) -> Iterator[Fault]:
    """Write the weights again with `quantize`; this is not a safetensors file, or not a whole one."""
    yield from _header_faults(view, "unreadable")
    for path, header in _good_headers(view):
        if header.metadata != METADATA:
            got = printable(repr(header.metadata)[:80])
            yield printable(path), f"header: __metadata__: expected {METADATA}, which loading reads, got {got}"


def repeated_tensor(view: BundleView) -> Iterator[Fault]:
    """Write the weights again with `quantize`; where a name occurs twice, two readers load two models."""
    yield from _header_faults(view, "repeated")
    seen: dict[str, str] = {}
    for path, header in _good_headers(view):
        both = sorted(header.tensors.keys() & seen.keys())
        for name in both[:MOST_SHOWN]:
            yield printable(path), f"holds '{printable(name)}', which is in {printable(seen[name])} too"
        if len(both) > MOST_SHOWN:
            yield printable(path), f"holds {len(both) - MOST_SHOWN} more tensors that are in other files too"
        seen |= dict.fromkeys(header.tensors, path)


def bad_layout(view: BundleView) -> Iterator[Fault]:
    """Write the weights again with `quantize`; the tensors must fill the file: no gap, no overlap, no more, no
    less.
    """
    yield from _header_faults(view, "layout")


def bad_index(view: BundleView) -> Iterator[Fault]:
    """Write the weights again with `quantize`; the index must name the file of every tensor, in this folder."""
    indexes = [e.path for e in view.under("model") if e.path.endswith(INDEX)]
    if not indexes and len(view.headers) > 1:
        yield "model", f"{len(view.headers)} safetensors files and no index"
    for path in sorted(view.headers) if WEIGHTS in view.headers or not indexes else ():
        if path != WEIGHTS:
            yield (
                printable(path),
                f"is not read: loading takes {WEIGHTS} alone where it is there, or what an index names",
            )
    held = {name: path.rpartition("/")[2] for path, header in _good_headers(view) for name in header.tensors}
    for path in indexes:
        try:
            index = view.table(path)
        except Unreadable:
            continue  # CFG03 says so
        table = index.get("weight_map")
        if not isinstance(table, dict):
            yield printable(path), "has no weight_map"
            continue
        size = sum(info.end - info.begin for _, header in _good_headers(view) for info in header.tensors.values())
        if index.keys() != {"metadata", "weight_map"} or index["metadata"] != {"total_size": size}:
            yield printable(path), f"expected weight_map, and metadata with a total_size of {size:,}, and nothing else"
        wrong = sorted(name for name in table.keys() | held.keys() if table.get(name) != held.get(name))
        for name in wrong[:MOST_SHOWN]:
            place = printable(repr(table.get(name))[:80])
            yield printable(path), f"'{printable(name)}': the index has {place}, it lies in {held.get(name)!r}"
        if len(wrong) > MOST_SHOWN:
            yield printable(path), f"{len(wrong) - MOST_SHOWN} more tensors do not lie where the index has them"


def wrong_tensors(view: BundleView) -> Iterator[Fault]:
    """Pack the campaign's base model again with `quantize`; its tensors must be those that `config.json` implies."""
    expected, found = view.expected_tensors, _good_headers(view)
    if isinstance(expected, Unreadable) or not found or len(found) < len(view.headers):
        return  # CFG01, WEI05, or WEI01 to WEI03 say so
    held = {name: (info.dtype, info.shape) for _, header in found for name, info in header.tensors.items()}
    wrong = sorted(name for name in expected.keys() | held.keys() if expected.get(name) != held.get(name))
    for name in wrong[:MOST_SHOWN]:
        yield "model", f"'{printable(name)}': expected {_spell(expected.get(name))}, got {_spell(held.get(name))}"
    if len(wrong) > MOST_SHOWN:
        yield "model", f"{len(wrong) - MOST_SHOWN} more tensors are not as the configuration implies"


def undecodable_weight(view: BundleView) -> Iterator[Fault]:
    """Pack the model again with `quantize`, or copy it again; what is stored of this weight cannot be decoded."""
    if not isinstance(view.config, dict) or not view.headers or any(True for _ in wrong_tensors(view)):
        return  # CFG01, WEI05 or WEI06 say so
    if isinstance(view.expected_tensors, Unreadable) or len(_good_headers(view)) < len(view.headers):
        return  # CFG01, or WEI01 to WEI03
    wrong = 0
    for name, fault in _stored_faults(view, view.config):
        wrong += 1
        if wrong <= MOST_SHOWN:
            yield "model", f"'{printable(name)}': {printable(fault, 200)}"
    if wrong > MOST_SHOWN:
        yield "model", f"{wrong - MOST_SHOWN} more weights cannot be decoded"


def _stored_faults(view: BundleView, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the weights whose codec finds fault with what is stored of them, and which."""
    places = {name: (path, header) for path, header in _good_headers(view) for name in header.tensors}
    codecs = parse_quantization(config["quantization_config"])
    for spec in tensors(config):
        codec = codecs.get(spec.name)
        if codec is None:
            continue

        def read(suffix: str, weight: str = spec.name) -> bytes:
            path, header = places[f"{weight}.{suffix}"]
            info = header.tensors[f"{weight}.{suffix}"]
            return view.read_range(path, header.data_offset + info.begin, header.data_offset + info.end)

        try:
            codec.check_stored(read, spec.shape)
        except (ValueError, Unreadable) as error:
            yield spec.name, str(error).split(";")[0]


def _spell(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def _header_faults(view: BundleView, problem: Problem) -> Iterator[Fault]:
    for path, header in view.headers.items():
        if isinstance(header, BadHeader) and header.problem == problem:
            yield printable(path), str(header)


def _good_headers(view: BundleView) -> list[tuple[str, SafetensorsHeader]]:
    return [(path, header) for path, header in view.headers.items() if isinstance(header, SafetensorsHeader)]
