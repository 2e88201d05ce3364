"""Several processes on one machine, as `accelerate launch` starts them, against one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.launching import ACCELERATE, launch
from tests.train.finetuning_inputs import TASK, FinetuningInputs, logged, options
from train.batches import plan_batches, share
from train.finetune import finetune

PROGRAM = """
import sys
from pathlib import Path

from submission.store.store import Stage, Store
from tests.train.finetuning_inputs import TASK, options
from train.finetune import finetune
from submission.store.launch import obtain_together

base, corpus, data, store = map(Path, sys.argv[1:])
stage = Stage(name="finetune", revision=1, options={}, inputs={})
choices = options(dropout=0.0, batch_size=6, bleu_utterances=2)
folder = obtain_together(Store(root=store), stage, lambda out: finetune(base, corpus, data, TASK, choices, out))
if folder is not None:
    print(folder)
"""


def test_processes_share_every_batch_and_have_all_of_it_together() -> None:
    for batch in plan_batches([5] * 29, 6, 1, 0):
        shares = [share(batch, rank, 3) for rank in range(3)]
        assert sorted(i for part in shares for i in part if i >= 0) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [share([7], rank, 3) for rank in range(3)] == [[7], [~7], [~7]]


def test_two_processes_give_the_course_of_one(inputs: FinetuningInputs, tmp_path: Path) -> None:
    (tmp_path / "single").mkdir()
    choices = options(dropout=0.0, batch_size=6, bleu_utterances=2)  # 16 utterances twice: the last batch has 2
    single = finetune(inputs.base, inputs.corpus, inputs.data, TASK, choices, tmp_path / "single")
    places = (inputs.base, inputs.corpus, inputs.data, tmp_path / "store")
    done = launch(PROGRAM, tmp_path, *places, launcher=(*ACCELERATE, "--multi_gpu"))  # on processors, for all its name
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())  # one line: the first process speaks for all
    report = json.loads((folder / "finetuning_report.json").read_text(encoding="utf-8"))
    assert report["processes"] == 2
    assert report["steps"] == single["steps"] == 6
    for name in ("loss", "grad_norm", "eval_loss", "learning_rate"):
        ours, theirs = logged(folder, name), logged(tmp_path / "single", name)
        assert ours == pytest.approx(theirs, rel=2e-4), name
    for name in ("eval_bleu_de", "eval_bleu_zh"):
        assert len(logged(folder, name)) == len(logged(tmp_path / "single", name)) == 3
    ours, theirs = (load_file(path / "adapter/adapter_model.safetensors") for path in (folder, tmp_path / "single"))
    assert ours.keys() == theirs.keys()
    worst = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    assert worst < 1e-2 * max(weight.abs().max().item() for weight in theirs.values())
    assert not torch.equal(ours[next(iter(ours))], torch.zeros_like(ours[next(iter(ours))]))
