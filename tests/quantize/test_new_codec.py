"""A newcomer's codec: one class and one line in the registry, and everything else works with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch

from quantize.packing.pack import pack_checkpoint
from submission.errors import UserError
from submission.miniature.model import SMALL, build_checkpoint
from submission.model.codecs import CODECS, Codec, parse_codec
from submission.model.families import read_config
from submission.model.forecast import companion_files, forecast, further_steps
from submission.runtime.loading import load_model
from submission.runtime.packed import PackedLinear


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign(Codec):
    """The sign of each weight, and one magnitude a row."""

    kind: Literal["sign"] = "sign"

    @property
    def name(self) -> str:
        return "sign"

    @property
    def summary(self) -> str:
        return "1 bit, a float16 magnitude per row"

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"signs": ("U8", (shape[0], -(-shape[1] // 8))), "magnitude": ("F16", (shape[0], 1))}

    def steps(self) -> dict[str, Codec]:
        return {}

    def encode(self, weight: torch.Tensor, solve: Any) -> dict[str, torch.Tensor]:
        import numpy as np

        signs = np.packbits(weight.float().numpy() > 0, axis=1, bitorder="little")
        return {"signs": torch.from_numpy(signs), "magnitude": weight.float().abs().mean(1, keepdim=True).half()}

    def decode(self, parts: Mapping[str, torch.Tensor], columns: int, dtype: torch.dtype) -> torch.Tensor:
        bits = parts["signs"].unsqueeze(2) >> torch.arange(8, dtype=torch.uint8) & 1
        return ((bits.flatten(1)[:, :columns] * 2.0 - 1) * parts["magnitude"].float()).to(dtype)

    def check(self, parts: Mapping[str, torch.Tensor], columns: int) -> None:
        if not (parts["magnitude"] >= 0).all():
            raise ValueError("magnitude: holds a number that is negative or none")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A model whose MLPs are stored by the new codec, and what was forecast of it."""
    monkeypatch.setitem(CODECS, "sign", Sign)
    base = build_checkpoint(tmp_path / "base", ["the cat sleeps"], SMALL, 1)
    rules = {"mlp": parse_codec({"kind": "sign"}, "recipe")}
    other = sum(path.stat().st_size for path in companion_files(base))
    cast = forecast(read_config(base), rules, other_bytes=other)
    (tmp_path / "packed").mkdir()
    pack_checkpoint(base, tmp_path / "packed", cast.codecs, solver="hqq")
    return tmp_path / "packed", cast


def test_it_weighs_what_its_parts_say(packed):
    folder, cast = packed
    assert sum(path.stat().st_size for path in folder.iterdir()) == cast.total_bytes
    assert further_steps(cast) == []


def test_it_loads_and_computes_what_it_decodes(packed):
    folder, _ = packed
    model, _ = load_model(folder, "float32")
    layer = model.model.language_model.layers[0].mlp.up_proj
    assert isinstance(layer, PackedLinear) and layer.weight.codec == Sign()
    inputs = torch.randn(3, layer.in_features)
    assert torch.equal(layer(inputs), inputs @ layer.weight.dequantize(torch.float32).T)
    assert len(layer.weight.dequantize(torch.float32)[0].abs().unique()) == 1


def test_saving_it_gives_the_same_bytes(packed, tmp_path):
    folder, _ = packed
    model, _ = load_model(folder, "bfloat16")
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_model_of_it_is_refused_where_nobody_knows_it(packed, monkeypatch):
    folder, _ = packed
    monkeypatch.delitem(CODECS, "sign")
    with pytest.raises(UserError, match="unknown codec 'sign'; known: affine"):
        load_model(folder, "float32")
