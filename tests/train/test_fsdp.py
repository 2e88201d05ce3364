"""A model shared by two processes, each holding half of every weight, against one process that holds it all.

accelerate has FSDP for GPUs alone. torch has it for processors too, so the program declares
its two gloo processes to accelerate as a kind that has FSDP; all else, torch's sharding included, is what runs on GPUs.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from submission.errors import UserError
from tests.support.launching import launch
from tests.train.finetuning_inputs import TASK, FinetuningInputs, logged, options
from train.callbacks import COMPLETE
from train.finetune import finetune
from train.sharding import check_sharded, check_sharding

REQUESTED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
KILLED_AT_STEP = 4
PROGRAM = f"""
import sys
from pathlib import Path

import train.finetune
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from submission.store.launch import obtain_together
from submission.store.store import Stage, Store
from tests.support.killing import kill_when
from tests.train.finetuning_inputs import TASK, options

form = AcceleratorState.__init__

def form_as_for_gpus(self, *arguments, **named):
    PartialState(cpu=True)
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    form(self, *arguments, **named)

AcceleratorState.__init__ = form_as_for_gpus

train.finetune.KEPT_FEATURES_BYTES = 0  # so that speeches are decoded once, by both, and data workers read them

base, corpus, data, store = map(Path, sys.argv[1:5])
choices = options(dropout=0.0, batch_size=6, bleu_utterances=2, keep="best")

def make(out):
    if sys.argv[5].endswith("kill"):
        kill_when(out, "checkpoints/checkpoint-{KILLED_AT_STEP}/{COMPLETE}")
    train.finetune.finetune(base, corpus, data, TASK, choices, out)

if __name__ == "__main__":  # and not in a data worker
    stage = Stage(name="finetune", revision=1, options={{}}, inputs={{}})
    folder = obtain_together(Store(root=store), stage, make)
    if folder is not None:
        print(folder)
"""


@pytest.mark.slow
def test_a_killed_sharded_run_resumes_and_has_the_loss_curve_of_one_process(
    inputs: FinetuningInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "single").mkdir()
    choices = options(dropout=0.0, batch_size=6, bleu_utterances=2, keep="best")
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, choices, tmp_path / "single")
    for name, value in REQUESTED.items():
        monkeypatch.setenv(name, value)
    places = (inputs.base, inputs.corpus, inputs.data, tmp_path / "store")
    killed = launch(PROGRAM, tmp_path, *places, Path("kill"))
    assert killed.returncode != 0 and f"Signal {signal.SIGKILL:d}" in killed.stderr, killed.stderr
    checkpoint = next((tmp_path / "store").glob(f"partial/*/checkpoints/checkpoint-{KILLED_AT_STEP}"))
    assert list(checkpoint.glob("pytorch_model_fsdp*"))  # what the Trainer writes of a sharded model
    assert (checkpoint.parent / "decoded.f32").stat().st_size == 4 * (8_000 + 12_000)
    done = launch(PROGRAM, tmp_path, *places, Path("finish"))
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {KILLED_AT_STEP} of 6" in done.stderr
    folder = Path(done.stdout.strip())
    assert json.loads((folder / "finetuning_report.json").read_text(encoding="utf-8"))["processes"] == 2
    for name in ("loss", "grad_norm", "eval_loss", "learning_rate"):
        ours, theirs = logged(folder, name), logged(tmp_path / "single", name)
        assert ours == pytest.approx(theirs, rel=2e-4), name
    ours, theirs = (load_file(path / "adapter/adapter_model.safetensors") for path in (folder, tmp_path / "single"))
    assert {name: weight.shape for name, weight in ours.items()} == {n: weight.shape for n, weight in theirs.items()}
    worst = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    assert worst < 1e-2 * max(weight.abs().max().item() for weight in theirs.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FSDP_VERSION": "1"}, "FSDP version 1.*set fsdp_version to 2"),
        ({"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "SHARDED_STATE_DICT.*set fsdp_state_dict_type to FULL"),
        ({"FSDP_STATE_DICT_TYPE": ""}, "requests nothing.*set fsdp_state_dict_type to FULL"),
    ],
)
def test_fsdp_that_would_not_save_whole_adapters_is_refused(change: dict[str, str], message: str) -> None:
    check_sharding(REQUESTED)
    with pytest.raises(UserError, match=message):
        check_sharding(REQUESTED | change)
    check_sharding(REQUESTED | change | {"ACCELERATE_USE_FSDP": "false"})


def test_fsdp_that_accelerate_does_not_activate_is_refused(
    inputs: FinetuningInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in REQUESTED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="FSDP was requested and is not active: there is no GPU"):
        finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    check_sharded(REQUESTED, True)
    check_sharded({}, False)
