"""Moments that several processes measure together, as torchrun starts them, against those of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantize.calibration.model_moments import SCRATCH
from quantize.calibration.moment_files import read_factor, read_importance
from quantize.calibration.shared_sums import dealt
from tests.quantize.shared_calibration import calibrate_on, write_inputs
from tests.support.launching import TORCHRUN, TORCHRUN_THREE, launch

PROGRAM = """
import sys
from pathlib import Path

from tests.quantize.shared_calibration import calibrate_on, kill_rank

inputs, out, source, rank, files = sys.argv[1:]
kill_rank(int(rank), int(files))
calibrate_on(Path(inputs), Path(out), source)
"""
NEVER = (0, 1 << 30)
HEAD = ("input.language_model.lm_head.safetensors", "output.language_model.lm_head.weight.safetensors")


def share(inputs: Path, out: Path, *, source: str = "train", kill: tuple[int, int] = NEVER, launcher=TORCHRUN):
    """Calibrate in launched processes; kill: a rank, and how many files it writes before."""
    return launch(PROGRAM, out.parent, inputs, out, Path(source), *kill, launcher=launcher)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def second_moment(folder: Path, key: str) -> torch.Tensor:
    factor = read_factor(folder, key)
    lower = factor.feedback.double() * factor.diagonal
    return lower @ lower.t()


def assert_equal_but_for_rounding(ours: Path, theirs: Path) -> None:
    """Second moments to 1e-5 of their mean diagonal, importances to 1e-6: float32 sums in another order."""
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    assert (ours / "moments.json").read_bytes() == (theirs / "moments.json").read_bytes()
    inputs = json.loads((ours / "moments.json").read_text(encoding="utf-8"))["inputs"]
    for name, key in inputs.items():
        found, expected = (second_moment(folder, key) for folder in (ours, theirs))
        assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.diagonal().mean())), key
        found, expected = (read_importance(folder, name) for folder in (ours, theirs))
        assert torch.allclose(found, expected, rtol=1e-6, atol=0), name


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def single(inputs, tmp_path_factory) -> Path:
    return calibrate_on(inputs, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def double(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("double") / "out"
    done = share(inputs, out)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_measure_what_one_does(single, double):
    assert_equal_but_for_rounding(double, single)
    for name in HEAD:
        assert (double / name).read_bytes() == (single / name).read_bytes()


@pytest.mark.parametrize(
    ("written", "complete", "incomplete"),
    [
        pytest.param(47, "gradient.text.2", "again.text.1", id="while a block runs again"),
        pytest.param(49, "again.text.1", "gradient.text.1", id="directly after it"),
    ],
)
def test_a_run_of_which_a_process_was_killed_resumes_to_the_same_bytes(
    inputs, single, double, tmp_path, written, complete, incomplete
):
    """Killed in the backward pass; resumed by two processes, and by one."""
    out = tmp_path / "out"
    done = share(inputs, out, kill=(1, written))
    assert done.returncode != 0 and not (out / "moments.json").exists()
    assert (out / SCRATCH / complete / "complete").exists()
    assert not (out / SCRATCH / incomplete / "complete").exists()
    shutil.copytree(out, tmp_path / "alone")
    assert share(inputs, out).returncode == 0
    assert files(out) == files(double)
    assert_equal_but_for_rounding(calibrate_on(inputs, tmp_path / "alone"), single)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_killed_again_and_again_comes_to_the_same_bytes(inputs, double, tmp_path, rank):
    out, kills = tmp_path / "out", 0
    while not (out / "moments.json").exists():
        kills += share(inputs, out, kill=(rank, 17)).returncode != 0
    assert kills > 3 and files(out) == files(double)


@pytest.mark.slow
def test_a_killed_run_resumes_with_more_processes(inputs, single, tmp_path):
    out = tmp_path / "out"
    assert share(inputs, out, kill=(0, 60)).returncode != 0
    done = share(inputs, out, launcher=TORCHRUN_THREE)
    assert done.returncode == 0, done.stderr
    assert_equal_but_for_rounding(out, single)


TOGETHER = """
import sys
from pathlib import Path

from submission.store.launch import obtain_together
from submission.store.store import Stage, Store
from tests.quantize.shared_calibration import calibrate_on

inputs, store = map(Path, sys.argv[1:])
stage = Stage(name="calibrate", revision=1, options={}, inputs={})
folder = obtain_together(Store(root=store), stage, lambda out: calibrate_on(inputs, out, "dev"))
if folder is not None:
    (folder / "artifact.json").unlink()
    print(folder)
"""


def test_processes_without_batches_take_part_in_building_the_stage(inputs, tmp_path):
    """Three processes, two batches, of which one has gradients."""
    done = launch(TOGETHER, tmp_path, inputs, tmp_path / "store", launcher=TORCHRUN_THREE)
    assert done.returncode == 0, done.stderr
    assert_equal_but_for_rounding(Path(done.stdout.strip()), calibrate_on(inputs, tmp_path / "one", "dev"))


ADDED_UP = """
import sys
from pathlib import Path

import torch

from quantize.calibration.moment_files import write_tensors
from quantize.calibration.moment_files import read_factor, read_importance
from quantize.calibration.shared_sums import SharedSums
from submission.store.launch import process_group

def sums_of(rank):
    generator = torch.Generator().manual_seed(rank)
    keys = {0: ["large", "small"], 1: [], 2: ["large", "small", "last"]}[rank]
    return {key: torch.randn(len(key), 9, generator=generator) for key in keys}

with process_group() as launch:
    shared = SharedSums(launch, Path(sys.argv[1]), torch.device("cpu"))
    for turn in range(2):
        for key, total in shared.add_up(sums_of(launch.rank)).items():
            write_tensors(Path(sys.argv[2], f"{turn}.{key}"), {key: total, "rank": torch.tensor(launch.rank)})
    assert shared.add_counts({"a": launch.rank} if launch.rank else {}) == {"a": 3}
"""


def test_sums_are_added_up_in_the_order_of_the_processes_and_none_twice(tmp_path):
    """Files of a killed run, of these processes and of a fourth one, count for nothing."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    for folder in (scratch, out):
        folder.mkdir()
    for rank in range(4):
        shutil.copyfile(__file__, scratch / f"{rank}.safetensors")
    done = launch(ADDED_UP, tmp_path, scratch, out, launcher=TORCHRUN_THREE)
    assert done.returncode == 0, done.stderr
    first, last = torch.Generator().manual_seed(0), torch.Generator().manual_seed(2)
    expected = {key: torch.randn(5, 9, generator=first) for key in ("large", "small")}
    for key in ("large", "small"):
        expected[key] += torch.randn(5, 9, generator=last)
    expected["last"] = torch.randn(4, 9, generator=last)
    for turn in range(2):
        for owner, key in enumerate(("large", "small", "last")):
            found = load_file(out / f"{turn}.{key}")
            assert torch.equal(found[key], expected[key]) and found["rank"] == owner
    assert [path.name for path in scratch.iterdir()] == ["3.safetensors"]


def test_the_largest_sums_have_owners_of_their_own():
    assert dealt({"down": 121, "k": 16, "o": 16, "gate": 16}, 2) == {"down": 0, "gate": 1, "k": 0, "o": 1}
    assert dealt({}, 3) == {}


REFUSED = """
import os
import sys
from pathlib import Path

from quantize.calibration import model_moments
from submission.errors import UserError
from tests.quantize.shared_calibration import calibrate_on

if os.environ["RANK"] == "1":
    model_moments.free_bytes = lambda device: 1 << 10
try:
    calibrate_on(Path(sys.argv[1]), Path(sys.argv[2]))
except UserError as error:
    Path(sys.argv[3], os.environ["RANK"]).write_text(str(error), encoding="utf-8")
"""


def test_a_process_that_has_too_little_memory_ends_all_before_any_work(inputs, tmp_path):
    said = tmp_path / "said"
    said.mkdir()
    done = launch(REFUSED, tmp_path, inputs, tmp_path / "out", said)
    assert done.returncode == 0, done.stderr
    texts = {path.name: path.read_text(encoding="utf-8") for path in said.iterdir()}
    assert texts.keys() == {"0", "1"} and texts["0"] == texts["1"]
    assert "GiB in each of 2 processes, cpu has 0.0 free; start fewer processes, run this step on" in texts["0"]
    assert not any((tmp_path / "out").iterdir())
