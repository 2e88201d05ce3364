"""Sample corpora, fine-tune with LoRA, and merge: from corpora to a fine-tuned checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from submission.cli import add_system_arguments, add_verb, add_verbs, open_system, run
from submission.store.launch import build_together
from train import stages

if TYPE_CHECKING:
    from submission.system.system import System


def corpus(args: argparse.Namespace) -> None:
    """Sample utterances from the recipe's corpora and check their audio and texts."""
    system, store = open_system(args)
    system.data_path(store)
    print(store.build(system.stage("corpus"), stages.corpus))


def finetune(args: argparse.Namespace) -> None:
    """Train LoRA adapters on the corpus; an interrupted run resumes.

    Start it by `torchrun` or `accelerate launch` to train on several devices.
    """
    system, store = open_system(args)
    system.data_path(store)
    folder = build_together(store, system.stage("finetune"), stages.finetune)
    if folder is not None:
        print(folder)


def merge(args: argparse.Namespace) -> None:
    """Merge the adapters into the base model."""
    system, store = open_system(args)
    system.data_path(store)
    print(store.build(system.stage("merge"), stages.merge))


def bench(args: argparse.Namespace) -> None:
    """Time the training step against a plain loop of peft and Trainer, and the input alone.

    With --full-size only the step, at the size of the competition's model.
    """
    system, store = open_system(args)
    if args.full_size:
        _bench_full_size(system, args)
        return
    system.data_path(store)
    stage = system.stage("finetune")
    base, sampled, data = (store.locate(stage.inputs[name]) for name in ("base", "corpus", "data"))
    from train.bench.input import Rate, bench_input
    from train.bench.step import bench_step

    run_with = (base, sampled, data, stages.task_of(stage.options), system.recipe.finetune)
    step = bench_step(*run_with, steps=args.steps, turns=args.turns)
    ours = step["ours"]
    consumed = Rate(ours["utterances_per_second"], step["batch_size"] / ours["cpu_seconds_per_step"])
    fed = bench_input(*run_with, batches=args.steps, consumed=consumed)
    result = {"train step": step, "train input": fed}
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for loop in ("ours", "plain"):
        found = step[loop]
        print(f"{loop:6}{found['utterances_per_second']:8.1f} utterances/s{found['peak_bytes'] / 2**20:8,.0f} MiB peak")
    print(f"ours over plain: {step['throughput_ratio']:.2f} x the throughput, {step['memory_ratio']:.2f} x the memory")
    for name in ("from_files", "kept", "m4a", "m4a_whole"):
        rate, ratio = fed[f"{name}_utterances_per_second"], fed[f"{name}_over_consumed"]
        cpu = fed[f"{name}_over_consumed_in_cpu_time"]
        print(
            f"input {name:10}{rate:9,.1f} utterances/s, {ratio:,.1f} x what the step consumes, {cpu:,.1f} x in CPU time"
        )


def _bench_full_size(system: System, args: argparse.Namespace) -> None:
    from train.bench.full_size import bench_full_size

    found = bench_full_size(system.campaign.model.name, system.recipe.finetune, steps=args.steps)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    share = f"{found['share_of_peak']:.0%}" if found["share_of_peak"] else "an unknown share"
    print(
        f"{system.campaign.model.name} on {found['card']}: {found['tokens_per_second']:,.0f} tokens/s, "
        f"{found['utterances_per_second']:.1f} utterances/s, "
        f"{found['peak_bytes'] / 2**30:.1f} GiB peak, {share} of the card's bf16 peak"
    )


def _at_least(least: int) -> Callable[[str], int]:
    """Return an argparse type: whole numbers of at least `least`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)

    return number


VERBS = (corpus, finetune, merge, bench)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the namespace's `verb` is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    verbs = add_verbs(parser)
    for function in VERBS:
        verb = add_verb(verbs, function)
        add_system_arguments(verb)
        if function is bench:
            steps = "steps of each run, of which the first two are not timed (default: %(default)s)"
            verb.add_argument("--steps", type=_at_least(3), default=8, metavar="N", help=steps)
            turns = "runs of each loop, in turn (default: %(default)s)"
            verb.add_argument("--turns", type=_at_least(1), default=3, metavar="N", help=turns)
            full = "time only the step, on random weights of the size of the campaign's base model; needs a GPU"
            verb.add_argument("--full-size", action="store_true", help=full)
            verb.add_argument("--json", action="store_true", help="print every figure as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
