"""Weights of which packing leaves nothing: a warning each, and an error unless the recipe allows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from quantize.packing.lost_weights import check_lost_weights
from quantize.packing.pack import pack_checkpoint
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.system.recipe.recipe_files import read_recipe
from tests.quantize.support import codecs_of
from tests.support.tiny_qwen import build_checkpoint

UP = "language_model.model.layers.0.mlp.up_proj.weight"


def packed_with(factor: float, place: Path) -> dict:
    """Return the report's entries of a model of which one weight is scaled by a factor."""
    folder = build_checkpoint(place / "base", ["the cat sleeps"], SMALL, 1)
    weights = dict(load_file(folder / "model.safetensors"))
    weights[UP] = weights[UP] * factor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (place / "out").mkdir()
    return dict(pack_checkpoint(folder, place / "out", codecs_of(folder), solver="hqq")["packed"])


def test_a_weight_below_what_scales_can_express_stops_the_build_unless_the_recipe_allows_it(tmp_path, capsys):
    packed = packed_with(1e-6, tmp_path)
    with pytest.raises(
        UserError, match=rf"of 1 of its \d+ packed weights hardly anything is left \(first: {UP}\)"
    ) as no:
        check_lost_weights(packed, "miniature/primary", allowed=False)
    assert "allow_lost_weights = true" in no.value.fix
    assert f"pack: warning: {UP}: relative squared error" in capsys.readouterr().err
    check_lost_weights(packed, "miniature/primary", allowed=True)
    said = capsys.readouterr().err
    assert "warning" not in said and "pack: 1 of " in said and "as the recipe allows" in said and UP in said


def test_weights_of_a_usual_scale_pass_without_a_word(tmp_path, capsys):
    check_lost_weights(packed_with(1.0, tmp_path), "miniature/primary", allowed=False)
    assert "warning" not in capsys.readouterr().err


def test_recipes_that_give_bits_by_their_use_allow_it_and_others_do_not():
    allowed = {name: read_recipe(name, "miniature").quantize.allow_lost_weights for name in ("primary", "frontier-2gb")}
    assert allowed == {"primary": False, "frontier-2gb": True}
