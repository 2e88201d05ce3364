"""The bench of calibration and solving, on a small model."""

from __future__ import annotations

import pytest

from quantize.bench import calibration
from quantize.bench.calibration import measure_moments, measure_solving, whole_model
from submission.miniature.model import SMALL
from submission.model.families import read_config, tensors
from tests.support.tiny_qwen import build_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


def test_every_part_and_every_large_weight_is_measured(base, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "LEAST_SIDE", 32)
    record = measure_moments(base, tmp_path / "moments")
    names = {f"{way} {stack}" for way in ("before", "forward", "backward") for stack in ("audio", "text")}
    assert set(record["seconds"]) == names | {"factors", "head"} and record["peak_bytes"] > 0
    found = measure_solving(base, tmp_path / "moments")["weights"]
    large = [spec.name for spec in tensors(read_config(base)) if spec.packable and min(spec.shape) >= 32]
    assert list(found) == large and all(one["solving"] > 0 for one in found.values())


def test_the_whole_is_every_layer_as_the_first_and_every_row_as_those_measured(base):
    config = read_config(base)
    layer, embedding = "language_model.model.layers.0.mlp.up_proj.weight", "language_model.model.embed_tokens.weight"
    rows = {spec.name: spec.shape[0] for spec in tensors(config)}
    measured = {"rows": rows[embedding] // 2, "solving": 3.0, "allotting": 3.0}
    assert whole_model(config, {layer: measured | {"rows": rows[layer]}}, "solving") == 2 * 3.0
    assert whole_model(config, {embedding: measured}, "solving") == pytest.approx(6.0, rel=0.01)
    assert whole_model(config, {embedding: measured}, "allotting") == 3.0
