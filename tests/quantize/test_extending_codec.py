"""docs/extending/codec.md, followed: its codec works everywhere by its file and its lines in the registry."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

from quantize.packing.pack import pack_checkpoint
from submission.bundle.checks import weights as checks
from submission.bundle.description import derive_facts
from submission.bundle.untrusted.bundle_view import BundleView
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.checkpoint import packed_config, read_checkpoint
from submission.model.codecs import CODECS, Affine, Codec, parse_codec
from submission.model.families import read_config, tensors
from submission.model.forecast import companion_files, forecast, further_steps, resolve_codecs
from submission.model.safetensors_header import read_header
from submission.runtime.packed import PackedEmbedding, PackedLinear, prepack_linears
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from tests.support.extending import ROOT, import_source, titled_blocks
from tests.support.tiny_qwen import build_checkpoint

FILE = "submission/model/codecs/deflated.py"
UP = "language_model.model.layers.0.mlp.up_proj.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
RULES = {
    "*": {"kind": "affine", "bits": 4, "group_size": 64},
    "mlp": {"kind": "deflated", "levels": 15},
    "embedding": {"kind": "deflated", "levels": 15},
}


@pytest.fixture
def page_codec(monkeypatch) -> type[Codec]:
    """The codec of the page, in the registry."""
    codec = import_source(monkeypatch, FILE, titled_blocks("codec.md")[FILE]).Deflated
    monkeypatch.setitem(CODECS, "deflated", codec)
    return codec


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture
def codecs(base, page_codec) -> dict[str, Codec]:
    """Codecs of all weights, with a budget each: seven bits per weight and the scales."""
    resolved = resolve_codecs(read_config(base), {role: parse_codec(v, role) for role, v in RULES.items()})
    sizes = {spec.name: spec.shape for spec in tensors(read_config(base))}
    return {
        name: codec.allotted(sizes[name][0] * sizes[name][1] * 7 // 8 + 2 * sizes[name][0])
        for name, codec in resolved.items()
    }


@pytest.fixture
def packed(base, codecs, tmp_path) -> Path:
    folder = tmp_path / "bundle/model"
    folder.mkdir(parents=True)
    pack_checkpoint(base, folder, codecs, solver="hqq")
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32):
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=dtype)


def test_the_page_gives_a_codec_to_whoever_follows_it(tmp_path):
    blocks = titled_blocks("codec.md")
    shutil.copytree(ROOT / "submission", tmp_path / "submission", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / FILE).write_text(blocks[FILE], encoding="utf-8")
    registry = tmp_path / "submission/model/codecs/__init__.py"
    text = registry.read_text(encoding="utf-8")
    for old, new in (
        ("from submission.model.codecs.affine import Affine\n", blocks["the import"]),
        ('    "affine": Affine,\n', blocks["the line"]),
    ):
        assert old in text
        text = text.replace(old, old + new)
    registry.write_text(text, encoding="utf-8")
    program = f"""
import tomllib
from submission.model.codecs import parse_codec
table = tomllib.loads({blocks["recipe"]!r})
print(*(parse_codec(value, role).name for role, value in table["quantize"]["codecs"].items()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "affine4g128 deflated15\n", done.stderr


def test_the_model_weighs_what_the_forecast_says(base, packed, codecs):
    other = sum(path.stat().st_size for path in companion_files(base))
    # The weights' codecs are given one by one, as a stage that allots budgets leaves them.
    sizes = read_header(packed / "model.safetensors").tensors
    for name, codec in codecs.items():
        stored = sum(info.end - info.begin for part, info in sizes.items() if part.startswith(f"{name}."))
        assert codec.budget_bytes is None or stored == codec.budget_bytes, name
    one = {"mlp": codecs[UP]}
    same_shape = [spec for spec in tensors(read_config(base)) if spec.role.startswith("mlp")]
    assert len({spec.shape for spec in same_shape}) == 1
    cast = forecast(read_config(base), one, other_bytes=other)
    folder = packed.parent / "again"
    folder.mkdir()
    pack_checkpoint(base, folder, cast.codecs, solver="hqq")
    assert sum(path.stat().st_size for path in folder.iterdir()) == cast.total_bytes
    assert further_steps(cast) == [] and {role.codecs for role in cast.roles if role.role == "mlp.up"} == {
        ("deflated15",)
    }


def test_a_size_is_refused_by_name_before_the_budgets_are_decided(base, page_codec, tmp_path):
    with pytest.raises(UserError, match=r"mlp\.\w+_proj.weight: deflated15 has no budget of bytes"):
        forecast(read_config(base), {"mlp": page_codec(levels=15)})
    with pytest.raises(UserError, match="has no budget of bytes"):
        pack_checkpoint(base, tmp_path, resolve_codecs(read_config(base), {"mlp": page_codec(levels=15)}), solver="hqq")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_does_not_fit_its_budget_is_refused_by_name(base, codecs, tmp_path):
    tight = codecs | {UP: codecs[UP].allotted(1000)}
    with pytest.raises(UserError, match=rf"{UP}: needs \d+ bytes, its budget is 1000; allot more bytes"):
        pack_checkpoint(base, tmp_path, tight, solver="hqq")


def test_a_budget_that_holds_no_part_is_refused_by_name(base, codecs, tmp_path):
    with pytest.raises(UserError, match=f"{UP}: 10 bytes do not hold 128 scales; allot more bytes"):
        pack_checkpoint(base, tmp_path, codecs | {UP: codecs[UP].allotted(10)}, solver="hqq")


def test_a_codec_that_stores_other_parts_than_it_declares_is_refused(base, page_codec, codecs, tmp_path):
    class Longer(page_codec):
        def encode(self, weight, solve):
            parts = page_codec.encode(self, weight, solve)
            return parts | {"stream": torch.cat([parts["stream"], parts["stream"][-1:]])}

    longer = Longer(levels=15, budget_bytes=codecs[UP].budget_bytes)
    with pytest.raises(AssertionError, match=rf"deflated15b\d+ stores .* of {UP}, and declares"):
        pack_checkpoint(base, tmp_path, codecs | {UP: longer}, solver="hqq")


def faults(folder: Path) -> list[tuple[str, str]]:
    view = BundleView(folder, read_campaign("miniature"))
    every = (checks.configuration, checks.outside_reference, checks.unreadable_json, checks.no_weights)
    every += (checks.bad_header, checks.repeated_tensor, checks.bad_layout, checks.bad_index, checks.wrong_tensors)
    return [fault for check in every for fault in check(view)]


def test_verification_finds_nothing_and_misses_a_part_of_another_shape(packed):
    assert faults(packed.parent) == []
    weights = load_file(packed / "model.safetensors")
    weights[f"{UP}.stream"] = weights[f"{UP}.stream"][:-1].clone()
    save_file(weights, packed / "model.safetensors", metadata={"format": "pt"})
    assert [what for _, what in faults(packed.parent)] == [
        f"'{UP}.stream': expected U8 [14336], got U8 [14335]",
    ]


def test_it_loads_with_stock_from_pretrained_and_computes_what_it_decodes(packed, base, codecs):
    model = load(packed)
    layer = model.model.language_model.layers[0].mlp.up_proj
    assert isinstance(layer, PackedLinear) and layer.weight.codec == codecs[UP]
    whole, original = layer.weight.dequantize(torch.float32), load_file(base / "model.safetensors")[UP].float()
    assert float((whole - original).square().sum() / original.square().sum()) < 0.02
    inputs = torch.randn(3, layer.in_features)
    assert torch.equal(layer(inputs), inputs @ whole.T)
    assert prepack_linears(model) == 0  # float32; and the codec has no grouped codes
    assert not layer.to(torch.bfloat16).weight.prepack()


def test_rows_are_those_of_the_whole_weight(packed, monkeypatch):
    model = load(packed)
    embedding, layer = model.get_input_embeddings(), model.model.language_model.layers[0].mlp.up_proj
    assert isinstance(embedding, PackedEmbedding)
    ids = torch.tensor([[5, 1], [7, 5]])
    assert torch.equal(embedding(ids), embedding.weight.dequantize(torch.float32)[ids])
    whole = layer.weight.dequantize(torch.float32)
    assert torch.equal(layer.weight.dequantize(torch.float32, slice(3, 9)), whole[3:9])
    inputs = torch.randn(3, layer.in_features)
    expected = layer(inputs)
    monkeypatch.setattr("submission.runtime.packed.LINEAR_ELEMENTS", 50 * layer.in_features)
    assert torch.allclose(layer(inputs), expected, atol=1e-6)


def test_saving_it_gives_the_same_bytes(packed, tmp_path):
    load(packed, torch.bfloat16).save_pretrained(tmp_path / "saved")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (packed / name).read_bytes()


def test_it_is_described_in_its_own_words_once_for_all_budgets(packed, codecs):
    recipe = read_recipe("primary", "miniature")
    facts = derive_facts(read_config(packed), 1, read_campaign("miniature"), recipe)
    lines = [line for line in facts.techniques if "zlib" in line]
    assert len({codec.name for codec in codecs.values() if codec.kind == "deflated"}) > 1 == len(lines)
    assert lines[0].startswith("Rounding to 31 values per row, compressed by zlib: 7 tensors, ")
    assert "(embedding, mlp)" in lines[0]
    assert [line for line in facts.techniques if line.startswith("HQQ quantization to 4 bits, ")]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("stream", lambda part: part.fill_(7), "stream: Error -3"),
        ("stream", lambda part: part[-1].fill_(1), "stream: does not hold one code per weight and zeros"),
        ("scale", lambda part: part[2].fill_(float("nan")), "scale: holds a number that is not finite"),
    ],
)
def test_parts_that_it_never_writes_are_refused_when_they_are_loaded(packed, part, change, said):
    weights = load_file(packed / "model.safetensors")
    change(weights[f"{UP}.{part}"])
    save_file(weights, packed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"up_proj.weight.{said}"):
        load(packed)


def test_a_model_of_it_is_refused_where_it_is_not_registered(packed, monkeypatch):
    monkeypatch.delitem(CODECS, "deflated")
    with pytest.raises(UserError, match="unknown codec 'deflated'; known: affine"):
        load(packed)


def test_a_configuration_holds_hundreds_of_budgets(base, page_codec):
    names = [spec.name for spec in tensors(read_config(base)) if spec.packable]
    codecs = {name: page_codec(levels=15, budget_bytes=100_000 + i) for i, name in enumerate(names)}
    codecs |= {f"x{i}.weight": page_codec(levels=15, budget_bytes=200_000 + i) for i in range(500)}
    section = packed_config(read_config(base), codecs)["quantization_config"]
    assert len(section["codecs"]) == len(codecs)


def test_two_codecs_of_one_name_are_refused(base, page_codec):
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Nameless(page_codec):
        @property
        def name(self) -> str:
            return "deflated"

    codecs = {"a.weight": Nameless(levels=3), "b.weight": Nameless(levels=4)}
    with pytest.raises(ValueError, match="two different codecs have the same name"):
        packed_config(read_config(base), codecs)


def test_a_codec_of_fixed_size_takes_no_budget(packed):
    codec = Affine(bits=4, group_size=64)
    assert not codec.takes_budget and codec.allotted(5) == codec
    assert read_checkpoint(packed).codecs[UP].takes_budget
