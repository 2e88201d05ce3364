"""A stage that several processes build together, as torchrun starts them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.store.launch import Launch, launched, said_while_waiting
from submission.store.store import Stage, Store
from tests.support.launching import ACCELERATE, HANG_SECONDS, launch

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}

BUILT = """
import os
import sys
from pathlib import Path

from submission.store.launch import obtain_together
from submission.store.store import Stage, Store

def make(out):
    raise AssertionError("built again")

stage = Stage(name="finetune", revision=1, options={}, inputs={})
folder = obtain_together(Store(root=Path(sys.argv[1])), stage, make)
Path(sys.argv[2], os.environ["RANK"]).write_text(str(folder))
"""


def test_where_the_stage_is_built_already_the_other_processes_return(tmp_path: Path) -> None:
    stage = Stage(name="finetune", revision=1, options={}, inputs={})
    folder = Store(root=tmp_path).obtain(stage, lambda out: (out / "x").touch())
    (tmp_path / "answers").mkdir()  # a file each: what two processes print to one pipe may run together
    done = launch(BUILT, tmp_path, tmp_path, tmp_path / "answers")
    assert done.returncode == 0, done.stderr
    answers = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "answers").iterdir()}
    assert answers == {"0": str(folder), "1": "None"}
    assert done.stderr.count("cached") == 1


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_that_mpi_started_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert launched() == Launch(rank=0, processes=1)
    monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match=rf"{name}=2: started by MPI.*torchrun"):
        launched()
    for variable, value in LAUNCHED.items():
        monkeypatch.setenv(variable, value)
    assert launched() == Launch(rank=1, processes=2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": None}, "WORLD_SIZE=2: says one of 2 processes, and RANK not set; to run alone: `env -u RANK"),
        ({"MASTER_ADDR": None, "MASTER_PORT": None}, "MASTER_ADDR and MASTER_PORT not set"),
        ({"RANK": "2"}, "WORLD_SIZE=2: says one of 2 processes, and RANK is 2"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many: expected a whole number"),
        ({"WORLD_SIZE": "1"}, "WORLD_SIZE=1: .* RANK is 1"),
    ],
)
def test_variables_that_a_batch_header_left_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], said: str
) -> None:
    for variable, value in (LAUNCHED | changed).items():
        monkeypatch.delenv(variable, raising=False) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=said):
        launched()


def test_a_wait_for_others_says_for_whom_and_where(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr("submission.store.launch.WAITING_SECONDS", 0.01)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.7")
    monkeypatch.setenv("MASTER_PORT", "29500")
    said, until = "", time.monotonic() + HANG_SECONDS
    with said_while_waiting(Launch(rank=1, processes=4)):
        while not said.endswith("\n") and time.monotonic() < until:
            time.sleep(0.01)
            said += capfd.readouterr().err
    assert said.startswith(
        "rank 1: waiting for the other 3 of 4 processes at 10.0.0.7:29500; to run alone: `env -u RANK"
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--cpu",)])
def test_accelerate_that_starts_one_process_for_two_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = launch(BUILT, tmp_path, tmp_path, tmp_path, launcher=(*ACCELERATE, *options))
    assert done.returncode != 0
    assert "accelerate launch: starts one process instead of several" in done.stderr
    alone = ("accelerate.commands.launch", "--num_processes=1", *options)
    program = "from submission.store.launch import launched\nassert launched().processes == 1"
    assert launch(program, tmp_path, launcher=alone).returncode == 0
