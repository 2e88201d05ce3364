"""Layers in blocks, whose inputs are computed again for the backward pass: on a deep small model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quantize.calibration.activations import ActivationStore
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.layerwise_moments import LayerwiseMoments
from quantize.calibration.model_moments import SCRATCH
from submission.miniature.model import SMALL
from submission.model.moments_size import MomentsSize, layer_blocks
from submission.store import launch
from tests.quantize.shared_calibration import calibrate_on, write_inputs

DEEP = dataclasses.replace(SMALL, name="deep", layers=7, audio_layers=5)
"""Blocks of four and three layers of the decoder, of three and two of the encoder."""
DEPTHS = {"audio": 5, "text": 7}
BATCHES = 7
"""Of train.jsonl; three have gradients."""
POINT = re.compile(r"(?:gradient\.|again\.)?(audio|text)\.\d+")


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"), DEEP)


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory) -> Path:
    return calibrate_on(inputs, tmp_path_factory.mktemp("made"))


@pytest.fixture
def bars(monkeypatch) -> dict[str, list[float]]:
    """Label -> the total of a progress bar, and what was done when it ended."""
    found: dict[str, list[float]] = {}

    @contextmanager
    def noting(label: str, total: float, unit: str) -> Iterator:
        def tick(amount: float) -> None:
            found[label][1] += amount

        found[label] = [total, 0.0]
        yield tick

    monkeypatch.setattr(launch, "progress", noting)
    return found


@pytest.fixture
def loaded(monkeypatch) -> list[tuple[str, int]]:
    """The layers that were loaded, in order."""
    found: list[tuple[str, int]] = []
    layer = LayerwiseModel.layer
    monkeypatch.setattr(LayerwiseModel, "layer", lambda self, *at: found.append(at) or layer(self, *at))
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_at(monkeypatch, method: str, point: str, after: int) -> None:
    """Raise Killed when the store is called for a point, after so many times."""
    call, left = getattr(ActivationStore, method), after

    def until_killed(store: ActivationStore, at: str, *args) -> None:
        nonlocal left
        if at == point:
            left -= 1
        if left < 0:
            raise Killed
        call(store, at, *args)

    monkeypatch.setattr(ActivationStore, method, until_killed)


def kill_after(monkeypatch, count: int) -> None:
    """Raise Killed at the activation or gradient after so many that the store writes."""
    write, left = ActivationStore.write, count

    def until_killed(store: ActivationStore, *args) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(store, *args)

    monkeypatch.setattr(ActivationStore, "write", until_killed)


def test_blocks_that_run_again_give_the_bytes_of_a_run_that_keeps_the_inputs_of_every_layer(
    inputs, made, tmp_path, monkeypatch, loaded
):
    every_layer = [range(layer, layer + 1) for layer in range(max(DEPTHS.values()))]
    monkeypatch.setattr("quantize.calibration.layerwise_moments.layer_blocks", lambda depth: every_layer[:depth])
    assert files(calibrate_on(inputs, tmp_path / "out")) == files(made)
    assert len(loaded) == 2 * sum(DEPTHS.values())


def test_each_layer_is_loaded_as_often_as_it_runs_and_the_bar_counts_that(inputs, made, tmp_path, bars, loaded):
    assert files(calibrate_on(inputs, tmp_path / "out")) == files(made)
    backward = [("text", layer) for layer in (4, 5, 6, 5, 4, 0, 1, 2, 3, 2, 1, 0)]
    backward += [("audio", layer) for layer in (3, 4, 3, 0, 1, 2, 1, 0)]
    assert loaded == [(stack, layer) for stack, depth in DEPTHS.items() for layer in range(depth)] + backward
    total, done = bars["calibrate: gradients"]
    assert done == pytest.approx(total) and total == len(backward) + 2 + 1  # around the stacks, and behind them


@pytest.mark.parametrize(
    ("method", "point", "after", "first"),
    [
        pytest.param("write", "again.text.2", 1, [1, 2, 3, 2, 1, 0], id="in a layer that runs again"),
        pytest.param("complete", "again.text.2", 0, [1, 2, 3, 2, 1, 0], id="before such a layer is marked"),
        pytest.param("write", "again.text.3", 0, [2, 3, 2, 1, 0], id="between two such layers"),
        pytest.param("write", "gradient.text.3", 0, [3, 2, 1, 0], id="directly after the block ran again"),
        pytest.param("forget", "again.text.3", 0, [2, 1, 0], id="before what a layer has read is removed"),
        pytest.param(
            "forget", "text.4", 1, [0, 1, 2, 3, 2, 1, 0], id="before the inputs that a block kept are removed"
        ),
        pytest.param("forget", "gradient.head", 0, [4, 5, 6, 5, 4, 0], id="before the backward pass reaches a layer"),
    ],
)
def test_a_run_killed_about_a_block_resumes_where_it_was(
    inputs, made, tmp_path, monkeypatch, bars, loaded, method, point, after, first
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_at(patch, method, point, after)
        with pytest.raises(Killed):
            calibrate_on(inputs, out)
    loaded.clear()
    assert files(calibrate_on(inputs, out)) == files(made) and not (out / SCRATCH).exists()
    assert [layer for _, layer in loaded[: len(first)]] == first and loaded[0][0] == "text"
    assert all(done == pytest.approx(total) for total, done in bars.values())


@pytest.mark.slow
@pytest.mark.parametrize("writes", [BATCHES, BATCHES + 1])
def test_a_run_killed_again_and_again_comes_to_the_same_bytes(inputs, made, tmp_path, monkeypatch, writes):
    """Each run ends when it has written so many activations and gradients: those of one layer forward, or one more."""
    out, kills = tmp_path / "out", 0
    while not (out / "moments.json").exists():
        with monkeypatch.context() as patch:
            kill_after(patch, writes)
            try:
                calibrate_on(inputs, out)
            except Killed:
                kills += 1
    assert kills > sum(DEPTHS.values()) and files(out) == files(made)


@pytest.mark.parametrize(
    ("traced", "gradient_batches", "batches"),
    [
        pytest.param(4, 1, BATCHES - 1, id="most in the forward pass"),
        pytest.param(10, 3, BATCHES, id="about as many in both"),
        pytest.param(24, 6, 6, id="most in the backward pass"),
    ],
)
def test_as_many_points_are_stored_as_the_forecast_counts(
    inputs, tmp_path, monkeypatch, traced, gradient_batches, batches
):
    size = {"audio": 2, "text": 3}  # of a batch at one point, whatever its length
    seen: list[int] = []
    write = ActivationStore.write

    def counted(store: ActivationStore, *args) -> None:
        write(store, *args)
        points = [POINT.fullmatch(path.parent.name) for path in store.folder.glob("*/*.safetensors")]
        seen.append(sum(size[point[1]] for point in points if point))

    monkeypatch.setattr(ActivationStore, "write", counted)
    calibrate_on(inputs, tmp_path / "out", traced=traced)
    forecast = MomentsSize(memory_bytes=0, disk_bytes=0, sum_bytes=0, state_bytes=size, depths=DEPTHS)
    around = max(size.values()) * batches  # masks, and what the head reads
    assert max(seen) == forecast.activation_bytes(batches, gradient_batches) - around


def test_every_activation_is_removed_when_it_is_not_needed(inputs, tmp_path, monkeypatch):
    """Behind the backward pass nothing is left but the gradient before the first layer, which the embedding's needs."""
    left: list[str] = []
    backward = LayerwiseMoments.backward

    def noting(passes: LayerwiseMoments, *args) -> None:
        backward(passes, *args)
        left.extend(path.parent.name for path in passes.store.folder.glob("*/*.safetensors"))

    monkeypatch.setattr(LayerwiseMoments, "backward", noting)
    calibrate_on(inputs, tmp_path / "out")
    assert {point for point in left if not point.startswith("calls.")} <= {"gradient.audio.0"}


def test_the_blocks_cover_the_layers_and_no_others_store_fewer_points():
    def stored(blocks: list[range]) -> int:
        return max(number + len(block) for number, block in enumerate(blocks))

    def divisions(start: int, depth: int) -> Iterator[list[range]]:
        if start == depth:
            yield []
        for stop in range(start + 1, depth + 1):
            for rest in divisions(stop, depth):
                yield [range(start, stop), *rest]

    for depth in range(1, 12):
        blocks = layer_blocks(depth)
        assert [layer for block in blocks for layer in block] == list(range(depth))
        assert stored(blocks) == len(blocks[0]) == min(map(stored, divisions(0, depth)))
    assert [len(block) for block in layer_blocks(32)] == [8, 7, 6, 5, 4, 2]
