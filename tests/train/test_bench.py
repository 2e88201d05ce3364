from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration

from submission.text.corpus import read_corpus
from tests.train.finetuning_inputs import TASK, FinetuningInputs, options
from train.bench.input import Rate, bench_input
from train.bench.step import LOOPS, bench_step


def test_both_loops_descend_on_the_same_loss(inputs: FinetuningInputs, tmp_path: Path) -> None:
    utterances = read_corpus(inputs.corpus / "train.jsonl")[:4]  # one batch: the order does not matter
    losses = {}
    for name, make in LOOPS.items():
        (tmp_path / name).mkdir()
        trainer = make(inputs.base, utterances, inputs.data, TASK, options(dropout=0.0), tmp_path / name, 2)
        assert isinstance(trainer.model.get_base_model(), Qwen2AudioForConditionalGeneration)
        trainer.train()
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # Not nearer: the plain loop tokenizes prompt and target in one piece, and at their seam other tokens may arise.
    assert losses["ours"] == pytest.approx(losses["plain"], rel=1e-3)


@pytest.mark.slow
def test_the_bench_says_what_was_measured_and_how(inputs: FinetuningInputs) -> None:
    measured = (inputs.base, inputs.corpus, inputs.data, TASK, options())
    step = bench_step(*measured, steps=3, turns=1)
    assert (step["steps"], step["turns"], step["batch_size"]) == (3, 1, 4)
    for loop in LOOPS:
        assert step[loop]["utterances_per_second"] > 0
        assert torch.cuda.is_available() or 50 << 20 < step[loop]["peak_bytes"] < 4 << 30
    fed = bench_input(*measured, batches=2, consumed=Rate(2.0, 4.0))
    for name in ("from_files", "kept", "m4a", "m4a_whole"):
        assert fed[f"{name}_over_consumed"] == fed[f"{name}_utterances_per_second"] / 2 > 0
        assert fed[f"{name}_over_consumed_in_cpu_time"] == fed[f"{name}_utterances_per_cpu_second"] / 4 > 0
    with pytest.raises(ValueError, match="2 steps leave none to time"):
        bench_step(*measured, steps=2, turns=1)
