"""Weights that are worked on at once: their order, their threads, their room, and that bytes do not depend on it."""

from __future__ import annotations

from threading import Barrier, Lock, get_ident

import pytest
import torch

from quantize.calibration.model_moments import MomentsFolder
from quantize.packing import weights_at_once
from quantize.packing.budgets import allot
from quantize.packing.pack import pack_system
from quantize.packing.weights_at_once import each_weight
from quantize.rehearsal.random_checkpoint import make_checkpoint
from quantize.rehearsal.random_moments import draw_moments
from quantize.stages import side_data
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import tensors
from submission.model.forecast import allotted, resolve_codecs
from tests.quantize.rehearsal.support import SMALL

TARGET = 700_000


@pytest.fixture
def threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(weights_at_once, "MOST_ELEMENTS", 100)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_each_part_has_one_thread_and_a_large_one_has_all_and_is_alone(threads):
    threads(3)
    running, lock, most = [], Lock(), []

    def work(part: int) -> tuple[int, int]:
        with lock:
            running.append(part)
            most.append(sum(running))
            assert part <= 100 or running == [part]
        found = torch.get_num_threads()
        with lock:
            running.remove(part)
        return found, get_ident()

    parts, done = [10, 90, 60, 101, 40, 1, 70, 500, 30], []
    found = each_weight(work, parts, lambda part: part, done.append)
    assert [count for count, _ in found] == [3 if part > 100 else 1 for part in parts]
    assert {thread for part, (_, thread) in zip(parts, found, strict=True) if part > 100} == {get_ident()}
    assert max(total for total in most if total not in (101, 500)) <= 100
    assert sorted(done) == sorted(parts) and torch.get_num_threads() == 3


def test_parts_that_fit_run_at_once(threads):
    threads(2)
    together = Barrier(2)
    found = each_weight(lambda part: together.wait(60) >= 0, [50, 50, 20, 30], lambda part: part, lambda part: None)
    assert found == [True] * 4


@pytest.mark.parametrize("count", [1, 3])
def test_after_an_error_no_other_part_begins_and_threads_are_given_back(count, threads):
    threads(count)
    begun = []

    def work(part: int) -> float:
        begun.append(part)
        return 1 / (part - 60)

    with pytest.raises(ZeroDivisionError):
        each_weight(work, [30, 60, 90, 91, 92], lambda part: part, lambda part: None)
    assert set(begun) <= {30, 60, 90} and torch.get_num_threads() == count


def test_budgets_and_packed_bytes_are_those_of_one_thread(tmp_path, threads, monkeypatch):
    checkpoint, moments = tmp_path / "checkpoint", tmp_path / "moments"
    make_checkpoint(checkpoint, SMALL)
    draw_moments(moments, SMALL)
    codecs = resolve_codecs(SMALL, {"linears": Entropy(trellis=True), "embedding": Entropy()})
    largest = max(shape[0] * shape[1] for shape in (spec.shape for spec in tensors(SMALL)) if len(shape) == 2)
    found = []
    for count, most in ((1, 1 << 27), (3, largest - 1)):  # the second: embedding and head alone
        threads(count)
        monkeypatch.setattr(weights_at_once, "MOST_ELEMENTS", most)
        out = tmp_path / f"{count} threads"
        out.mkdir()
        report = allot(checkpoint, codecs, out, target_bytes=TARGET, moments=MomentsFolder(moments))
        sides = side_data({"calibrate": moments})
        pack_system(checkpoint, out, allotted(codecs, report["budgets"]), "feedback", side_data=sides)
        found.append((report, (out / "model" / "model.safetensors").read_bytes()))
    assert found[0] == found[1]
