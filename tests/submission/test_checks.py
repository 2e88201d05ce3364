"""Good and broken bundles in pairs: every check finds its own fault alone, and nothing in a good bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from submission.bundle.checks import (
    CHECKS,
    PRIMARIES,
    Finding,
    checks_table,
    exit_status,
    findings_json,
    findings_text,
    report,
    verify,
    verify_upload_set,
)
from submission.errors import UserError
from submission.model.sizes import size_text
from submission.store.digests import canonical_json, sha256_file
from submission.system.campaign import read_campaign

ROOT = Path(__file__).parents[2]
ACL = "en-de/ACL.txt"
CONFIG = "model/config.json"
WEIGHTS = "model/model.safetensors"
DESCRIPTION = "description/en-de.txt"
SEGMENTER = "segmenter/config.json"
# What else is found where config.json gives other sizes than the weights have.
OTHER_SIZES = ("DES03", "MAN07", "WEI06")


# --- ways to break a bundle ---


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


def deep_folder(bundle: Path) -> None:
    """Nest folders until their path is longer than the system can open."""
    here = os.open(bundle / "segments", os.O_RDONLY)
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
        path.write_text("Guten Tag.\nDas ist ein Test.\nBis morgen.\n", encoding="utf-8")
    edit("scores.json", lambda s: [r["flags"].update(blank=0) for r in s["testsets"]])(bundle)
    seal(bundle)


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
    files = [p for p in sorted(bundle.rglob("*")) if p.is_file() and not p.is_symlink() and p != path]
    manifest["files"] = {
        os.fsencode(p.relative_to(bundle)).decode("utf-8"): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
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


CASES = (
    case("CAM01", "another prompt", edit("campaign.json", lambda c: c.update(prompt="Translate:"))),
    case("CAM01", "another limit", edit("campaign.json", lambda c: c.update(size_limit="9 GiB"))),
    case("CAM01", "no campaign", remove("campaign.json")),
    case("CAM01", "campaign that is a list", write("campaign.json", "[]")),
    case("CFG01", "no configuration", remove(CONFIG)),
    case("CFG01", "configuration cut short", write(CONFIG, '{"model_type": "qwen2')),
    case("CFG01", "configuration nested without end", write(CONFIG, "[" * 100_000)),
    case("CFG01", "another architecture", edit(CONFIG, lambda c: c.update(model_type="whisper"))),
    case("CFG01", "plain checkpoint", edit(CONFIG, lambda c: c.pop("quantization_config"))),
    case("CFG01", "a million layers", edit(CONFIG, lambda c: c["text_config"].update(num_hidden_layers=10**6))),
    case("CFG01", "no heads", edit(CONFIG, lambda c: c["text_config"].update(num_attention_heads=0))),
    case("CFG01", "text for a size", edit(CONFIG, lambda c: c["text_config"].update(head_dim="a"))),
    case("CFG01", "list for a dtype", edit(CONFIG, lambda c: c.update(dtype=[]))),
    case("CFG01", "unknown codec", edit(CONFIG, lambda c: c["quantization_config"].update(codecs={}))),
    case("CFG01", "weight of another model", edit(CONFIG, lambda c: packed_weights(c).update(spy="affine3g128"))),
    case("CFG02", "weights on a hub", edit(CONFIG, lambda c: c.update(_name_or_path="Qwen/Qwen2-Audio-7B"))),
    case("CFG02", "code on a hub", edit(CONFIG, lambda c: c.update(auto_map={"AutoModel": "them/code--model.Evil"}))),
    case("CFG02", "deep down", edit(CONFIG, lambda c: c["text_config"].update(base_model_name_or_path="a/b"))),
    case("CFG02", "adapter", write("model/adapter_config.json", "{}")),
    case("CFG02", "address", edit(CONFIG, lambda c: c.update(weights="https://example.org/w.safetensors"))),
    case("CFG03", "generation configuration cut short", write("model/generation_config.json", "{")),
    case("CFG03", "key given twice", write("model/generation_config.json", '{"a": 1, "a": 2}')),
    case("CFG03", "not a number", write("model/generation_config.json", '{"a": NaN}')),
    case("CFG04", "wider than the base", edit(CONFIG, sized("text_config", intermediate_size=512)), *OTHER_SIZES),
    case("CFG04", "other heads", edit(CONFIG, sized("audio_config", encoder_attention_heads=8))),
    case("CFG04", "more words", edit(CONFIG, sized("text_config", vocab_size=2048)), *OTHER_SIZES),
    case("CFG05", "fewer words", edit(CONFIG, sized("text_config", vocab_size=1000)), *OTHER_SIZES),
    case("CFG05", "fewer positions", edit(CONFIG, sized("audio_config", max_source_positions=100)), *OTHER_SIZES),
    case("CFG06", "template that imports", write("model/chat_template.jinja", "{% import 'x' as y %}")),
    case("CFG06", "template that looks inside", write("model/chat_template.jinja", "{{ x.__class__.__mro__ }}")),
    case(
        "CFG06",
        "template in a configuration",
        write("model/tokenizer_config.json", '{"chat_template": [{"template": "{{ [] | attr(x) }}"}]}'),
    ),
    case(
        "DATA01",
        "constrained on other data",
        edit("recipe.json", lambda r: r["upload"].update(condition="constrained")),
        *("DES03", "MAN07", "NAME01"),
    ),
    case("DES01", "no description", remove(DESCRIPTION)),
    case("DES01", "not UTF-8", write(DESCRIPTION, b"Model name: \xff\n")),
    case("DES02", "no size", replace(DESCRIPTION, "Storage size:", "Size on disk:")),
    case("DES02", "empty", write(DESCRIPTION, "")),
    case("DES03", "another size", replace(DESCRIPTION, "Storage size: ", "Storage size: 1")),
    case("DES03", "other parameters", replace(DESCRIPTION, "Number of parameters: ", "Number of parameters: 1")),
    case("DES03", "technique that was not used", replace(DESCRIPTION, "Data sets:", "- pruning\nData sets:")),
    case("FILE01", "link to a file", lambda b: (b / "model/vocab.json").symlink_to("config.json")),
    case("FILE01", "link out of the bundle", lambda b: (b / "segments/x").symlink_to("/etc")),
    case("FILE02", "named pipe", lambda b: os.mkfifo(b / "model/merges.txt")),
    case("FILE03", "pickled weights", write("model/pytorch_model.bin", b"weights")),
    case("FILE03", "Python", write("model/modeling_qwen.py", "import os\n")),
    case("FILE04", "pickle called text", write("model/merges.txt", b"\x80\x04\x95abc")),
    case("FILE04", "script called text", write("model/merges.txt", b"#!/bin/sh\n")),
    case("FILE04", "ZIP called JSON", write("model/vocab.json", b"PK\x03\x04abc")),
    case("FILE04", "program called JSON", write("model/tokenizer.json", b"MZ\x90\x00abc")),
    case("FILE04", "pickle of the oldest kind called text", write("model/merges.txt", b"cos\nsystem\n(S'id'\ntR.")),
    case("FILE04", "tar called text", write("model/merges.txt", b"x.txt".ljust(257, b"\0") + b"ustar\x0000")),
    case("FILE05", "line break", write("model/a\nb.txt", "")),
    case("FILE05", "hidden file", write("model/.cache.json", "{}")),
    case("FILE05", "colon", write("model/a:b.txt", ""), "MAN06"),
    case(
        "FILE05",
        "not UTF-8",
        lambda b: Path(os.fsdecode(os.fsencode(b) + b"/model/\xff.txt")).touch(),
        "MAN03",
        sealed=False,
    ),
    case("FILE06", "case", write("model/Config.json", "{}")),
    case("FILE06", "Unicode form", lambda b: [write(f"model/{n}.txt", "")(b) for n in ("\xe9", "e\u0301")], "FILE05"),
    case("FILE07", "folder that cannot be opened", deep_folder, sealed=False),
    case("FILE08", "file at the top", write("notes.txt", "")),
    case("FILE08", "audio", write("model/talk1.wav", b"RIFF")),
    case("FILE08", "weights in the wrong place", write("weights/model.safetensors", b"")),
    case("FILE09", "a thousand folders", many_folders),
    case("FILE10", "hard link within the bundle", lambda b: os.link(b / CONFIG, b / "model/vocab.json")),
    case("FILE10", "hard link to the outside", lambda b: os.link(b / WEIGHTS, b.parent / "elsewhere"), sealed=False),
    case("FILE11", "weights that are a hole", punch),
    case("MAN01", "no manifest", remove("manifest.json")),
    case("MAN01", "not JSON", write("manifest.json", b"\xff")),
    case("MAN01", "no provenance", edit("manifest.json", lambda m: m.pop("provenance")), sealed=False),
    case("MAN01", "stage of no key", edit("manifest.json", lambda m: m["stages"].update(merge=[])), sealed=False),
    case("MAN01", "another version", edit("manifest.json", lambda m: m.update(version=2)), sealed=False),
    case("MAN01", "files is a list", edit("manifest.json", lambda m: m.update(files=[])), sealed=False),
    case("MAN01", "size is a text", edit("manifest.json", lambda m: m["files"][ACL].update(bytes="3")), sealed=False),
    case("MAN02", "output lost", remove(ACL), "SET01", sealed=False),
    case("MAN03", "file added", write("model/README.md", ""), sealed=False),
    case("MAN04", "output cut", write(ACL, "a\nb\nc\n"), sealed=False),
    case("MAN05", "byte changed", replace(ACL, "Guten", "Gutes"), sealed=False),
    case("MAN06", "path upwards", edit("manifest.json", lambda m: list_file(m, "../../etc/passwd")), sealed=False),
    case("MAN06", "absolute path", edit("manifest.json", lambda m: list_file(m, "/etc/passwd")), sealed=False),
    case("MAN06", "backslash", edit("manifest.json", lambda m: list_file(m, "..\\x")), sealed=False),
    case("MAN06", "drive", edit("manifest.json", lambda m: list_file(m, "C:x")), sealed=False),
    case("MAN07", "fewer bytes", edit("manifest.json", lambda m: m["model"].update(bytes=1)), sealed=False),
    case("MAN07", "fewer parameters", edit("manifest.json", lambda m: m["model"].update(parameters=1)), sealed=False),
    case("MAN07", "no techniques", edit("manifest.json", lambda m: m.update(techniques=[])), sealed=False),
    case("NAME01", "another track", replace(DESCRIPTION, "ModelCompression", "Offline")),
    case("NAME01", "another pair", replace(DESCRIPTION, "_en-de_", "_en-zh_")),
    case("NAME01", "another kind", replace(DESCRIPTION, "_primary", "_contrastive")),
    case("NAME01", "another team", replace(DESCRIPTION, ": MINIATURE_", ": KIT_")),
    case("REC01", "no recipe", remove("recipe.json")),
    case("REC01", "unknown key", edit("recipe.json", lambda r: r.update(teacher="big"))),
    case("REC01", "number without end", edit("recipe.json", lambda r: r["finetune"].update(dropout=10**400))),
    case("SCO01", "no scores", remove("scores.json")),
    case("SCO01", "scores that are no list", write("scores.json", '{"scores": {}}')),
    case("SCO01", "number without end", write("scores.json", '{"scores": [], "testsets": [], "value": 1e999}')),
    case("SCO01", "no test sets", write("scores.json", '{"scores": []}')),
    case("SCO02", "other segments", scored(segments=4)),
    case("SCO02", "other blank lines", scored(flags={"blank": 1})),
    case("SCO02", "text for a count", scored(segments="3")),
    case("SCO02", "no flags", scored(flags=None)),
    case("SCO02", "figure of other segments", figure(segments=2)),
    case("SCO03", "output not listed", edit("scores.json", lambda s: s["testsets"].remove(record_of(s)))),
    case("SCO03", "output listed twice", edit("scores.json", lambda s: s["testsets"].append(record_of(s)))),
    case("SCO04", "more than all", figure(value=100.5)),
    case("SCO04", "less than nothing", figure(metric="chrF", value=-1)),
    case("SCO04", "more than a float holds", figure(value=10**400)),
    case("SCO04", "text for a figure", figure(value="30")),
    case("SCO04", "true for a figure", figure(value=True)),
    case("SCO04", "no figure", figure(value=None)),
    case("SCO04", "interval without end", figure(metric="COMET", low=-1e300)),
    case("SEG01", "classifier's weights missing", remove("segmenter/model.safetensors")),
    case("SEG01", "classifier missing", lambda b: shutil.rmtree(b / "segmenter")),
    case("SEG01", "classifier that no one needs", edit("recipe.json", lambda r: r["segment"].update(method="vad"))),
    case("SEG02", "no JSON", write(SEGMENTER, "{")),
    case("SEG02", "another format", edit(SEGMENTER, lambda c: c.update(format="whisper"))),
    case("SEG02", "another version", edit(SEGMENTER, lambda c: c.update(version=True))),
    case("SEG02", "no head", edit(SEGMENTER, lambda c: c.pop("head"))),
    case("SEG02", "unknown key", edit(SEGMENTER, lambda c: c.update(plugin="x"))),
    case("SEG02", "weights on a hub", edit(SEGMENTER, lambda c: c["wav2vec2"].update(_name_or_path="facebook/x"))),
    case("SEG03", "no safetensors", write("segmenter/model.safetensors", "weights")),
    case("SEG03", "header alone", write("segmenter/model.safetensors", (2).to_bytes(8, "little") + b"{}")),
    case("SEG03", "cut", lambda b: os.truncate(b / "segmenter/model.safetensors", 100_000)),
    case("SET01", "output missing", remove(ACL)),
    case("SET02", "test set of no campaign", write("en-de/NEWS.txt", "")),
    case("SET02", "pair of no campaign", write("en-fr/ACL.txt", "")),
    case("SET02", "pair that the test set does not have", write("en-zh/CHALLENGEACCENT.txt", "")),
    case("SET02", "segments of no test set", write("segments/NEWS.yaml", "[]\n")),
    case("SET03", "segments missing", remove("segments/ACL.yaml")),
    case("SET03", "other YAML", write("segments/ACL.yaml", "- wav: talk1.wav\n")),
    case("SET03", "number without end", replace("segments/ACL.yaml", "duration: 1.0", "duration: " + "9" * 400)),
    case("TXT01", "a line too few", write(ACL, "a\nb\n"), "SCO02"),
    case("TXT01", "a line too many", write(ACL, "a\nb\nc\nd\n"), "SCO02"),
    case("TXT01", "empty", write(ACL, ""), "SCO02", "TXT14"),
    case("TXT02", "Latin-1", write(ACL, "a\nGrüße\nc\n".encode("latin-1"))),
    case("TXT02", "UTF-16", write(ACL, "a\nb\nc\n".encode("utf-16")), "TXT01", "TXT09"),
    case("TXT03", "byte order mark", write(ACL, "\ufeffa\nb\nc\n")),
    case("TXT04", "Windows line ends", write(ACL, "a\r\nb\r\nc\r\n")),
    case("TXT05", "line separator", line("Ein\u2028Satz.")),
    case("TXT05", "vertical tab", line("Ein\vSatz.")),
    case("TXT05", "next line", line("Ein\x85Satz.")),
    case("TXT06", "NUL", line("Ein\x00Satz.")),
    case("TXT06", "tab", line("Ein\tSatz.")),
    case("TXT07", "override", line("Ein\u202eSatz.")),
    case("TXT07", "byte order mark inside", line("Ein\ufeffSatz.")),
    case("TXT08", "leading blank", line(" Ein Satz.")),
    case("TXT08", "trailing blank", line("Ein Satz. ")),
    case("TXT08", "ideographic blank", line("\u3000句")),
    case("TXT09", "no final line feed", write(ACL, "a\nb\nc")),
    case("TXT10", "blank line", line(""), "SCO02"),
    case("TXT11", "words again and again", line("Ich bin da, ich bin da, ich bin da, ich bin da, ich bin da, und")),
    case("TXT11", "one word again and again", line("der " * 20 + "Hund")),
    case("TXT11", "Chinese again and again", line("我们我们我们我们我们")),
    case("TXT12", "applause", line("Danke. (Applause)")),
    case("TXT12", "laughter", line("[Gelächter] Danke.")),
    case("TXT12", "music in Chinese", line("谢谢。（音乐）")),
    case("TXT12", "the model's own token", line("Danke.<|im_end|>")),
    case("TXT13", "five megabytes", write(ACL, b"a\n" * (5 << 19))),
    case("TXT14", "blank lines only", write(ACL, "\n\n\n"), "SCO02"),
    case("WEI01", "cut within the length", write(WEIGHTS, b"\x00\x00")),
    case("WEI01", "header longer than the file", write(WEIGHTS, (1 << 60).to_bytes(8, "little") + b"{}")),
    case("WEI01", "header that is a list", header(spell=lambda table: "[]")),
    case("WEI01", "unknown dtype", header(lambda table: first(table).update(dtype="F7"))),
    case("WEI01", "true for a size", header(lambda table: first(table).update(shape=[True]))),
    case("WEI01", "fraction for an offset", header(lambda table: first(table).update(data_offsets=[0.0, 8.0]))),
    case("WEI01", "number of ten thousand digits", header(spell=lambda t: '{"a": {"shape": [' + "9" * 10**4 + "]}}")),
    case("WEI01", "nested without end", header(spell=lambda table: '{"a":' * 10**4)),
    case("WEI01", "blank before the header", header(spell=lambda table: " " + json.dumps(table))),
    case("WEI01", "negative offset", header(lambda table: first(table).update(data_offsets=[-2, 0]))),
    case("WEI01", "shape beyond every memory", header(lambda table: first(table).update(shape=[1 << 60]))),
    case("WEI01", "no offsets", header(lambda table: first(table).pop("data_offsets"))),
    case("WEI02", "name given twice", header(spell=spell_twice)),
    case(
        "WEI02",
        "tensor in two files",
        lambda b: (b / "model/more.safetensors").write_bytes((b / WEIGHTS).read_bytes()),
        *("SIZE01", "WEI04"),
    ),
    case("WEI03", "overlap", header(swap_offsets)),
    case("WEI03", "gap", header(lambda table: shift(table, 8), more=bytes(8))),
    case("WEI03", "beyond the file", header(lambda table: shift(table, 1 << 40))),
    case("WEI03", "data after the last tensor", header(more=b"hidden")),
    case("WEI03", "cut in the data", lambda b: os.truncate(b / WEIGHTS, os.path.getsize(b / WEIGHTS) - 1)),
    case("WEI03", "shape of another size", header(lambda table: first(table).update(shape=[1]))),
    case("WEI04", "index that names another file", write("model/model.safetensors.index.json", '{"weight_map": {}}')),
    case("WEI04", "index that is none", write("model/model.safetensors.index.json", '{"weight_map": []}')),
    case("WEI05", "no weights", remove(WEIGHTS)),
    case("WEI06", "tensor renamed", header(lambda table: table.update(other=table.pop("audio_tower.conv1.weight")))),
    case("WEI06", "another shape", header(lambda table: first(table)["shape"].append(1))),
)


def packed_weights(config: dict) -> dict:
    return config["quantization_config"]["weights"]


def list_file(manifest: dict, path: str) -> None:
    manifest["files"][path] = {"bytes": 1, "sha256": "0" * 64}


def codes(findings: list[Finding]) -> set[str]:
    return {f.code for f in findings}


# --- the tests ---


def test_a_good_bundle_gives_no_finding(good):
    """The third line of every output is blank in the fixture, which is worth a warning and no more."""
    findings = verify(good)
    assert codes(findings) == {"TXT10"} and exit_status(findings) == 0
    speak(good)
    assert verify(good) == [] and verify(good, "miniature") == []


def test_scores_of_the_outputs_in_the_bundle_give_no_finding(good):
    figure(note="of few segments", low=20.0, high=40)(good)
    seal(good)
    assert codes(verify(good)) == {"TXT10"}
    figure(testset="ACL6060", segments=100, metric="TER", value=180.5)(good)  # scored and not uploaded
    edit("scores.json", lambda s: s["testsets"].append({"pair": "en-de", "testset": "ACL6060", "segments": 100}))(good)
    seal(good)
    assert codes(verify(good)) == {"TXT10"}


def test_the_scores_are_compared_with_the_segments_too(good):
    (good / ACL).write_text("Guten Tag.\nDas ist ein Test.\n", encoding="utf-8")
    scored(segments=2, flags={"blank": 0})(good)
    seal(good)
    assert {"SCO02", "TXT01"} <= codes(verify(good))


@pytest.mark.parametrize("broken", CASES, ids=lambda c: f"{c.code}: {c.what}")
def test_a_broken_bundle_is_refused_with_its_own_code(good, broken):
    speak(good)
    broken.breaks(good)
    if broken.sealed:
        seal(good)
    findings = verify(good, "miniature")
    assert codes(findings) - broken.also == {broken.code}
    severity = {c.code: c.severity for c in CHECKS}[broken.code]
    assert exit_status(findings) == (severity == "error" or bool(broken.also))
    printed = findings_text(findings) + findings_json(findings)
    assert all(c.isprintable() or c == "\n" for c in printed)


def campaign_file(folder: Path, limit: str) -> str:
    """Write the miniature's campaign with another limit and return the file's path."""
    text = (ROOT / "submission" / "campaigns" / "miniature.toml").read_text(encoding="utf-8")
    lines = [f'size_limit = "{limit}"' if row.startswith("size_limit") else row for row in text.splitlines()]
    (folder / "tight.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "tight.toml")


def test_a_model_over_the_limit_is_refused_with_all_units(good, tmp_path):
    campaign = campaign_file(tmp_path, "20 kB")
    write("campaign.json", canonical_json(asdict(read_campaign(campaign))))(good)
    seal(good)
    (found,) = [f for f in verify(good, campaign) if f.severity == "error"]
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    assert found.code == "SIZE01"
    assert f"{size:,} bytes = {size / 1e9:.6f} GB = {size / 2**30:.6f} GiB is over the limit of 20 kB" in found.what
    assert f"by {size - 20_000:,} bytes" in found.what


def test_a_model_within_the_limit_in_gib_and_over_it_in_gb_is_worth_a_warning(good, tmp_path):
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    limit = (size + 50_000) / 2**30  # read as GB it is 7 % less
    campaign = campaign_file(tmp_path, f"{limit:.7f} GiB")
    write("campaign.json", canonical_json(asdict(read_campaign(campaign))))(good)
    seal(good)
    assert codes(verify(good, campaign)) == {"SIZE02", "TXT10"}


def test_every_check_has_a_broken_bundle():
    assert {c.code for c in CASES} | {"SIZE01", "SIZE02"} == {c.code for c in CHECKS}
    assert len(CASES) >= 45


def test_every_check_has_a_code_of_its_own_and_a_fix():
    listed = [c.code for c in CHECKS]
    assert listed == sorted(set(listed))
    assert all(c.fix and c.fix[0].isupper() and c.fix.endswith(".") for c in CHECKS)


def test_all_findings_come_in_one_run_errors_first(good):
    line(" Ein\x00Satz. (Applause)")(good)
    remove("segments/YOUTUBE.yaml")(good)
    findings = verify(good)
    assert {"MAN02", "MAN04", "SET03", "TXT06", "TXT08", "TXT12"} <= codes(findings)
    severities = [f.severity for f in findings]
    assert severities == sorted(severities)
    assert json.loads(findings_json(findings)) == [asdict(f) for f in findings]
    assert "How to fix it:" in findings_text(findings)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("primary", "contrastive"), []),
        (("primary", "primary"), ["2 of 2 bundles are primary, expected exactly one: "]),
        (("contrastive", "contrastive"), ["0 of 2 bundles are primary, expected exactly one"]),
    ],
)
def test_of_several_bundles_exactly_one_is_primary(good, tmp_path, kinds, said):
    folders = [Path(shutil.copytree(good, tmp_path / str(n))) for n in range(2)]
    for folder, kind in zip(folders, kinds, strict=True):
        edit("recipe.json", lambda r, kind=kind: r["upload"].update(kind=kind))(folder)
    findings = verify_upload_set(folders)
    assert [f.what.partition("unconstrained: ")[2][: len(s)] for f, s in zip(findings, said, strict=True)] == said
    assert {f.code for f in findings} <= {PRIMARIES.code}


def test_each_condition_has_a_primary_of_its_own(good, tmp_path):
    other = Path(shutil.copytree(good, tmp_path / "other"))
    edit("recipe.json", lambda r: r["upload"].update(condition="constrained"))(other)
    assert verify_upload_set([good, other]) == []


def test_the_command_checks_several_bundles_as_one_upload(good, tmp_path):
    other = shutil.copytree(good, tmp_path / "other")
    status, said = command(good, other)
    assert status == 1 and "2 bundles as one upload" in said and "error   PRI01" in said
    status, said = command("--json", good, other)
    assert status == 1 and json.loads(said).keys() == {str(good), str(other), ""}


def test_of_very_many_findings_the_first_are_shown_and_the_rest_are_counted(good):
    edit("manifest.json", lambda m: [list_file(m, f"model/{n}.json") for n in range(5_000)])(good)
    found = [f for f in verify(good) if f.code == "MAN02"]
    assert len(found) == 101 and found[0].what == "4,900 more findings of this check are not shown"


def test_the_competition_is_held_against_the_shapes_of_its_own_base_model(good):
    """The miniature is smaller in every respect: were it named Qwen2-Audio-7B, the check would say so."""
    smaller = {f.what.partition(":")[0] for f in verify(good, "iwslt26") if f.code == "CFG05"}
    assert {"text_config.hidden_size", "text_config.num_hidden_layers", "audio_config.d_model"} <= smaller
    edit(CONFIG, lambda c: c["text_config"].update(hidden_size=8192, num_attention_heads=64))(good)
    larger = {f.what for f in verify(good, "iwslt26") if f.code == "CFG04"}
    assert "text_config.hidden_size: the base model Qwen2-Audio-7B has 4,096, this model 8,192" in larger


def test_a_bundle_is_checked_against_the_campaign_of_the_checker(good):
    findings = verify(good, "iwslt26")
    assert {"CAM01", "NAME01"} <= codes(findings)


@pytest.mark.parametrize(
    "name", ['"../../evil"', '"/evil.toml"', "3", "null", "[]"], ids=["upwards", "path", "number", "null", "list"]
)
def test_a_bundle_cannot_choose_the_campaign_that_it_is_checked_against(good, name):
    write("campaign.json", f'{{"name": {name}}}')(good)
    with pytest.raises(UserError, match="--campaign"):
        verify(good)


def test_what_cannot_be_checked_is_said_and_not_found_clean(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(UserError, match="name the campaign to check against with --campaign"):
        verify(tmp_path)
    assert "MAN01" in codes(verify(tmp_path, "miniature"))


def test_a_file_is_to_be_unpacked(tmp_path):
    (tmp_path / "bundle.tar").touch()
    with pytest.raises(UserError, match="is a file.*unpack it and name the folder"):
        verify(tmp_path / "bundle.tar")


def test_of_a_folder_that_holds_bundles_the_bundles_are_named(good):
    (good.parent / ".bundle.partial").mkdir()
    with pytest.raises(UserError, match="is not a bundle, but holds some: bundle; name one of them"):
        verify(good.parent, "miniature")


def test_a_bundle_without_its_manifest_gives_one_finding_for_it(good):
    remove("manifest.json")(good)
    assert codes(verify(good)) == {"MAN01", "TXT10"}


def test_the_report_says_what_was_checked_against_what(good):
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    limit = read_campaign("miniature").size_limit_bytes
    text = report(good, None, verify(good))
    assert str(good) in text and f"campaign miniature, limit {read_campaign('miniature').size_limit}" in text
    assert f"{size_text(size)}, {limit - size:,} bytes under the limit" in text
    assert "11 of 11, 33 lines in all" in text
    assert f"{sum(p.is_file() for p in good.rglob('*'))}, " in text
    assert text.endswith("verify: 11 warnings\n")
    remove(ACL)(good)
    write(WEIGHTS, bytes(limit + 1))(good)
    text = report(good, "miniature", verify(good, "miniature"))
    assert "bytes OVER the limit" in text and "10 of 11, 30 lines in all" in text


@pytest.mark.parametrize("breaks", [shutil.rmtree, many_folders, deep_folder, remove("campaign.json")])
def test_the_head_of_the_report_is_written_whatever_lies_in_the_folder(good, breaks):
    breaks(good)
    assert report(good, None, []).endswith("verify: no findings\n")
    lines = report(good, "miniature", []).splitlines()
    assert lines[1].startswith("checked against: campaign miniature, limit ")
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("breaks", "status", "said"),
    [
        (None, 0, "verify: 11 warnings"),
        (line("Ein\x00Satz."), 1, "error   TXT06   en-de/ACL.txt: line 2: U+0000"),
        (remove("campaign.json"), 2, "name the campaign to check against with --campaign"),
    ],
    ids=["good", "broken", "cannot be checked"],
)
def test_the_command_says_by_its_status_what_it_found(good, breaks, status, said):
    if breaks:
        breaks(good)
    command = [sys.executable, "-m", "submission", "verify", str(good)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == status
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


def command(*arguments: str | Path) -> tuple[int, str]:
    """Run `verify` and return its status and all that it printed."""
    line = [sys.executable, "-m", "submission", "verify", *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_command_checks_a_named_bundle_against_the_named_campaign(good):
    status, said = command(good, "--campaign", "iwslt26")
    assert status == 1 and "checked against: campaign iwslt26, limit 4 GiB" in said and "CAM01" in said


def test_the_table_of_checks_in_the_submission_guide_is_current():
    text = (ROOT / "SUBMISSION.md").read_text(encoding="utf-8")
    table = text.split("<!-- checks -->\n")[1].split("<!-- /checks -->")[0]
    assert table.strip() == checks_table().strip(), "write it with submission.bundle.checks.checks_table()"
