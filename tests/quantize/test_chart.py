from __future__ import annotations

import struct
from pathlib import Path

import pytest

from quantize.ranking.chart import BLUE, ORANGE, draw_ranking


def ranking(layers: int) -> dict:
    values = [0.002 * ((5 * layer) % 7) - 0.001 for layer in range(layers)]
    return {
        "role": "mlp",
        "codec": {"kind": "affine", "bits": 3, "group_size": 128},
        "pairs": {pair: {"utterances": 468, "target_tokens": 9_000} for pair in ("en-de", "en-zh")},
        "layers": [
            {"layer": layer, "mean": {"value": value, "standard_error": 0.0004}, "pairs": {}}
            for layer, value in enumerate(values)
        ],
    }


def svg(folder: Path, layers: int, chosen: tuple[int, ...] = ()) -> str:
    folder.mkdir(exist_ok=True)
    vector, _ = draw_ranking(ranking(layers), folder, chosen)
    return vector.read_text(encoding="utf-8")


def test_the_chart_says_what_is_drawn_in_which_unit(tmp_path):
    text = svg(tmp_path, 8)
    for said in (
        "Cost of mlp as affine3g128, one layer at a time",
        "change of cross-entropy",
        "(nats per target token)",
        ">layer<",
        "mean over en-de (468 utterances), en-zh (468 utterances); whiskers: one standard error",
    ):
        assert said in text
    assert "chosen" not in text and ORANGE.lower() not in text


def test_chosen_layers_have_their_own_colour_and_a_legend(tmp_path):
    text = svg(tmp_path, 8, (2, 5, 6))
    assert "chosen for affine3g128: 3 of 8 layers" in text and ">not chosen<" in text
    # One fill a bar and one in the legend.
    assert (text.count(f"fill: {ORANGE.lower()}"), text.count(f"fill: {BLUE.lower()}")) == (4, 6)


def test_all_layers_may_be_chosen(tmp_path):
    assert "2 of 2 layers" in svg(tmp_path, 2, (0, 1))


@pytest.mark.parametrize("layers", [1, 8, 32])
def test_every_layer_has_its_bar_and_number(tmp_path, layers):
    text = svg(tmp_path, layers)
    assert text.count(f"fill: {BLUE.lower()}") == layers
    assert all(f">{layer}</text>" in text for layer in range(layers))
    width, height = struct.unpack(">II", (tmp_path / "sensitivity.png").read_bytes()[16:24])
    assert 700 < width < 1700 and height == 570


def test_the_same_ranking_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        svg(tmp_path / folder, 8, (1,))
    for name in ("sensitivity.svg", "sensitivity.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
