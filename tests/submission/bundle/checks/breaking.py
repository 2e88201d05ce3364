"""Ways to break a bundle: each is a function of its folder, or returns one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from submission.bundle.checks.claims.scores import readable_records
from submission.bundle.model_card import render_model_card
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.configuration import expected_tensors
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.codecs.entropy.codec import Entropy
from submission.model.safetensors_header import file_bytes, header_bytes
from submission.model.sizes import size_text
from submission.store.digests import canonical_json, sha256_file
from submission.system.campaign import read_campaign

ACL = "en-de/ACL.txt"
CONFIG = "model/config.json"
WEIGHTS = "model/model.safetensors"
DESCRIPTION = "description/en-de.txt"
SEGMENTER = "segmenter/config.json"
TOKENIZER = "model/tokenizer.json"
TOKENIZER_CONFIG = "model/tokenizer_config.json"
PROCESSOR = "model/processor_config.json"
# What else is found where config.json gives other sizes than the weights have.
OTHER_SIZES = ("DES03", "MAN07", "WEI06")


def write(path: str, data: bytes | str) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))

    return apply


def remove(path: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / path).unlink()


def edit(path: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the value of a JSON file in place."""

    def apply(bundle: Path) -> None:
        value = json.loads((bundle / path).read_text(encoding="utf-8"))
        change(value)
        (bundle / path).write_text(json.dumps(value), encoding="utf-8")

    return apply


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        text = (bundle / path).read_text(encoding="utf-8")
        assert old in text
        (bundle / path).write_text(text.replace(old, new), encoding="utf-8")

    return apply


def copied(path: str, other: str) -> Callable[[Path], None]:
    """Put the text of one output in the place of another."""

    def apply(bundle: Path) -> None:
        (bundle / other).write_bytes((bundle / path).read_bytes())

    return apply


def exchange(path: str, other: str) -> Callable[[Path], None]:
    """Exchange two outputs."""

    def apply(bundle: Path) -> None:
        one, two = (bundle / path).read_bytes(), (bundle / other).read_bytes()
        (bundle / path).write_bytes(two)
        (bundle / other).write_bytes(one)

    return apply


def header(change: Callable[[dict], object] = lambda table: None, spell=json.dumps, more: bytes = b"") -> Callable:
    """Change the header of the weights; `spell` writes it, `more` follows the data."""

    def apply(bundle: Path) -> None:
        data = (bundle / WEIGHTS).read_bytes()
        length = int.from_bytes(data[:8], "little")
        table = json.loads(data[8 : 8 + length])
        change(table)
        text = spell(table).encode("utf-8")
        text += b" " * (-len(text) % 8)
        (bundle / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + more)

    return apply


def first(table: dict) -> dict:
    """Return the entry of the first tensor of the file."""
    return min((e for n, e in table.items() if n != "__metadata__"), key=lambda e: e["data_offsets"])


def swap_offsets(table: dict) -> None:
    """Let a tensor of the same size lie where its neighbour lies."""
    tensors = sorted((e for n, e in table.items() if n != "__metadata__"), key=lambda e: e["data_offsets"])
    one, other = next(
        (a, b)
        for a, b in zip(tensors, tensors[1:], strict=False)
        if a["data_offsets"][1] - a["data_offsets"][0] == b["data_offsets"][1] - b["data_offsets"][0]
    )
    other["data_offsets"] = one["data_offsets"]


def shift(table: dict, by: int) -> None:
    """Move the last tensor of the file."""
    last = max((e for n, e in table.items() if n != "__metadata__"), key=lambda e: e["data_offsets"])
    last["data_offsets"] = [offset + by for offset in last["data_offsets"]]


def spell_twice(table: dict) -> str:
    name = next(n for n in table if n != "__metadata__")
    return json.dumps(table)[:-1] + f", {json.dumps(name)}: {json.dumps(table[name])}}}"


def sized(section: str, **sizes: int) -> Callable[[dict], None]:
    """Let the configuration give the model other sizes."""
    return lambda config: config[section].update(sizes)


def punch(bundle: Path) -> None:
    """Let the data of the weights be one hole, behind the same header."""
    data = (bundle / WEIGHTS).read_bytes()
    with (bundle / WEIGHTS).open("wb") as file:
        file.write(data[: 8 + int.from_bytes(data[:8], "little")])
        file.truncate(len(data))


def stream_of_nothing(bundle: Path) -> None:
    """Let a weight be a stream by its configuration, and be any bytes."""
    config = json.loads((bundle / CONFIG).read_text(encoding="utf-8"))
    section, codec = config["quantization_config"], Entropy(budget_bytes=60_000)
    section["codecs"][codec.name] = codec.to_dict()
    section["weights"]["language_model.model.layers.0.mlp.up_proj"] = codec.name
    (bundle / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    stored = expected_tensors(config)
    head = header_bytes(stored)
    (bundle / WEIGHTS).write_bytes(head + b"Z" * (file_bytes(stored) - len(head)))


def other_codec(config: dict) -> None:
    """Let a weight have two bits by its configuration, where the recipe gives it three."""
    section = config["quantization_config"]
    section["codecs"]["affine2g128"] = {"kind": "affine", "bits": 2, "group_size": 128}
    section["weights"]["language_model.model.layers.0.mlp.up_proj"] = "affine2g128"


def constrained_with(part: str, *, folder: str = "acl_6060/dev") -> Callable[[Path], None]:
    """Let a bundle be trained on ACL 60/60 in a folder by its recipe, and have read one part by its manifest."""

    def apply(bundle: Path) -> None:
        edit("recipe.json", lambda r: r["upload"].update(condition="constrained"))(bundle)
        edit("recipe.json", lambda r: r["corpus"]["sources"][0].update(format="acl6060", folder=folder))(bundle)
        edit("manifest.json", lambda m: m["inputs"].update({part: "c" * 64}))(bundle)

    return apply


def rules_of(recipe: dict) -> dict:
    """Return the codecs that a recipe gives by role."""
    rules: dict = recipe["quantize"]["codecs"]
    return rules


def override(recipe: dict, *, times: int = 1, **changes) -> None:
    """Let a recipe give two bits to the MLPs of some layers."""
    codec = {"kind": "affine", "bits": 2, "group_size": 128}
    table = {"role": "mlp", "layers": "sensitivity", "count": "fit", "codec": codec, "seed": None}
    recipe["quantize"]["overrides"] = [table | changes] * times


def kept_weight(config: dict) -> None:
    """Let a weight be kept by its configuration, where the recipe packs it."""
    del config["quantization_config"]["weights"]["language_model.lm_head"]


def replacing_decoder(tokenizer: dict) -> None:
    """Let the tokenizer write one text whatever the model says."""
    rule = {"type": "Replace", "pattern": {"Regex": "(?s).+"}, "content": "Guten Tag."}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [rule]}


def growing_decoder(tokenizer: dict) -> None:
    """Let each rule of the decoder double what it gets."""
    rule = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [rule] * 60}


def exchange_tokens(tokenizer: dict) -> None:
    """Let two tokens of one byte stand for each other, so that another text is written."""
    words = tokenizer["model"]["vocab"]
    words["a"], words["e"] = words["e"], words["a"]


def stretched(path: str, size: int) -> Callable[[Path], None]:
    """Let a file be as long as one says, by a hole that no disk has to hold, behind a manifest that agrees."""

    def apply(bundle: Path) -> None:
        os.truncate(bundle / path, size)

    return apply


def deep_folder(bundle: Path) -> None:
    nest_folders(bundle / "segments")


def nest_folders(folder: Path) -> None:
    """Nest folders until their path is longer than the system can open."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 190, dir_fd=here)
        inner = os.open("d" * 190, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def many_folders(bundle: Path) -> None:
    for number in range(1_001):
        (bundle / f"d{number}").mkdir()


def line(text: str) -> Callable[[Path], None]:
    """Write an output of three lines, the second of which is `text`."""
    return write(ACL, f"Guten Tag.\n{text}\nBis morgen.\n")


def scored(**changes) -> Callable[[Path], None]:
    """Let scores.json say something else of the first output."""
    return edit("scores.json", lambda s: record_of(s).update(changes))


def figure(**changes) -> Callable[[Path], None]:
    """Let scores.json hold one figure of the first output."""
    record = {"pair": "en-de", "testset": "ACL", "segments": 3, "metric": "BLEU", "value": 30.0} | changes
    return edit("scores.json", lambda s: s.update(scores=[record]))


def record_of(scores: dict) -> dict:
    return next(r for r in scores["testsets"] if (r["pair"], r["testset"]) == ("en-de", "ACL"))


def speak(bundle: Path) -> None:
    """Let every line of every output hold text; the third one of the fixture is blank, which is worth a warning."""
    for path in bundle.glob("en-*/*.txt"):
        third = "明天见。" if path.parent.name == "en-zh" else "Bis morgen."
        path.write_text(path.read_text(encoding="utf-8").replace("\n\n", f"\n{third}\n"), encoding="utf-8")
    edit("scores.json", lambda s: [r["flags"].update(blank=0) for r in s["testsets"]])(bundle)
    seal(bundle)


def measured_elsewhere(bundle: Path) -> None:
    """Let a bundle hold figures that were measured on another one."""
    machine = {"processor": "p", "cores": 1, "threads": 1, "memory_bytes": 1, "system": "s", "device": "cpu"}
    batch = {"batch_size": 1, "rows": 1, "load_seconds": 1, "warm_up_seconds": 1, "seconds": [1], "tokens": 1}
    record = {
        "format": "decoding-efficiency",
        "version": 1,
        "bundle_sha256": "0" * 64,
        "pair": "en-de",
        "testset": "ACL",
        "segments": 3,
        "audio_seconds": 3,
        "dtype": json.loads((bundle / "recipe.json").read_text(encoding="utf-8"))["decode"]["dtype"],
        "machine": machine | {"versions": {"torch": "2"}},
        "batches": [batch | {"peak_bytes": 1}],
    }
    (bundle / "efficiency.json").write_text(json.dumps(record), encoding="utf-8")


def unused_codec(config: dict) -> None:
    codecs = config["quantization_config"]["codecs"]
    codecs["affine2g7"] = {"kind": "affine", "bits": 2, "group_size": 7}


def many_sources(recipe: dict) -> None:
    (source,) = recipe["corpus"]["sources"]
    recipe["corpus"]["sources"] = [source | {"name": f"{source['name']}{n}"} for n in range(1_000)]


def prepend(bundle: Path, text: str) -> None:
    """Write something before the fields of a description."""
    path = bundle / DESCRIPTION
    path.write_text(text + path.read_text(encoding="utf-8"), encoding="utf-8")


def derive_card(bundle: Path) -> None:
    """Let the model card be the one that the artifacts give, where they give one and it is there."""
    view = BundleView(bundle, read_campaign("miniature"))
    if view.facts is None or isinstance(view.recipe, Unreadable) or "model/README.md" not in view.files:
        return
    scores = [record for key, record in readable_records(view) if key == "scores"]
    card = render_model_card(view.facts, view.campaign, view.recipe, scores)
    (bundle / "model/README.md").write_text(card, encoding="utf-8")


MOST_SEALED_BYTES = 64 << 20
"""Of a longer file nobody computes the digest: that is what it was stretched for."""


def seal(bundle: Path) -> None:
    """Bring the manifest up to date, and what follows from the size, so that only the fault itself is found."""
    path = bundle / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        size = sum(p.stat().st_size for p in (bundle / "model").rglob("*") if p.is_file() and not p.is_symlink())
        old, manifest["model"]["bytes"] = manifest["model"]["bytes"], size
    except (OSError, ValueError, KeyError):
        return
    for description in (bundle / "description").glob("*.txt"):
        data = description.read_bytes()
        description.write_bytes(data.replace(size_text(old).encode(), size_text(size).encode()))
    derive_card(bundle)
    files = [p for p in sorted(bundle.rglob("*")) if p.is_file() and not p.is_symlink() and p != path]
    manifest["files"] = {
        os.fsencode(p.relative_to(bundle)).decode("utf-8"): {
            "bytes": p.stat().st_size,
            "sha256": sha256_file(p) if p.stat().st_size < MOST_SEALED_BYTES else "0" * 64,
        }
        for p in files
    }
    for section in ("campaign", "recipe"):
        if (entry := manifest["files"].get(f"{section}.json")) is not None:
            manifest[section]["sha256"] = entry["sha256"]
    path.write_text(canonical_json(manifest), encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A broken bundle."""

    code: str
    what: str
    breaks: Callable[[Path], object]
    also: frozenset[str] = frozenset()
    """Codes of other checks that the same fault sets off."""
    sealed: bool = True
    """Whether the manifest is brought up to date after breaking."""


def case(code: str, what: str, breaks: Callable[[Path], object], *also: str, sealed: bool = True) -> Case:
    return Case(code=code, what=what, breaks=breaks, also=frozenset(also), sealed=sealed)


def packed_weights(config: dict) -> dict:
    return config["quantization_config"]["weights"]


def list_file(manifest: dict, path: str) -> None:
    manifest["files"][path] = {"bytes": 1, "sha256": "0" * 64}
