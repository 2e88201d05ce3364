"""Forecast the size of a system's model, rank layers, calibrate, allot bytes, quantize and pack."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quantize.artifact_files import AWQ_REPORT, MOMENTS, PACKING_REPORT, RECOVERY_REPORT
from submission.benchmarking import add_bench_arguments, run_benches
from submission.cli import add_system_arguments, add_verb, add_verbs, open_systems, run

if TYPE_CHECKING:
    from submission.store.store import Store
    from submission.system.system import System


def sensitivity(args: argparse.Namespace) -> None:
    """Rank layers by what a coarser codec of each costs in cross-entropy on the dev set.

    Builds the stage sensitivity, of a list for every system that chooses layers by it. Started by `torchrun` or
    `accelerate launch`, the processes share the batches of one system.
    """
    from quantize import stages
    from quantize.forecast_table import ranking_table
    from submission.model.ranking import RANKING
    from submission.store.launch import build_together

    fix = 'write layers = "sensitivity" in one of them'
    for system, store in _systems_with(args, "sensitivity", "quantize.overrides", fix, shared=True):
        folder = build_together(store, system.stage("sensitivity"), stages.sensitivity)
        if folder is not None:
            print(ranking_table(json.loads((folder / RANKING).read_text(encoding="utf-8"))))
            print(f"pictures: {folder / 'sensitivity.svg'}, {folder / 'sensitivity.png'}")


def awq(args: argparse.Namespace) -> None:
    """Calibrate AWQ: scales of channels that lower the error of packed layers.

    Builds the stage awq of a system, or of every system of a list that has it. Of several launched processes the first
    one does the work.
    """
    from quantize import stages
    from quantize.forecast_table import awq_table

    for system, store in _systems_with(args, "awq", "quantize.awq", "write a [quantize.awq] section"):
        folder = store.build(system.stage("awq"), stages.awq, resume=True)
        print(awq_table(json.loads((folder / AWQ_REPORT).read_text(encoding="utf-8"))))
        print(f"scales: {folder / 'scales.safetensors'}")


def calibrate(args: argparse.Namespace) -> None:
    """Measure the moments of every weight, by which error feedback weighs errors.

    Builds the stage calibrate of a system, or of every system of a list that has it. The model runs layer by layer, on
    a GPU if there is one. Started by `torchrun` or `accelerate launch`, the processes share the batches of one system,
    on a GPU each.
    """
    from quantize import stages
    from quantize.forecast_table import moments_line
    from submission.store.launch import build_together

    fix = "write a [quantize.moments] section"
    for system, store in _systems_with(args, "calibrate", "quantize.moments", fix, shared=True):
        folder = build_together(store, system.stage("calibrate"), stages.calibrate)
        if folder is not None:
            print(moments_line(json.loads((folder / MOMENTS).read_text(encoding="utf-8"))))
            print(f"moments: {folder}")


def allocate(args: argparse.Namespace) -> None:
    """Allot a budget of bytes to every weight, so that the model folder meets the recipe's target.

    Builds the stage allocate of a system, or of every system of a list that has it. Of several launched processes the
    first one does the work.
    """
    from quantize import stages
    from quantize.forecast_table import allocation_lines
    from submission.model.budgets import BUDGETS

    fix = "write a target, and a codec that takes budgets"
    for system, store in _systems_with(args, "allocate", "quantize.target", fix):
        folder = store.build(system.stage("allocate"), stages.allocate)
        print("\n".join(allocation_lines(json.loads((folder / BUDGETS).read_text(encoding="utf-8")))))
        print(f"budgets: {folder / BUDGETS}")


def _systems_with(
    args: argparse.Namespace, step: str, where: str, fix: str, *, shared: bool = False
) -> list[tuple[System, Store]]:
    """Return the systems that --recipe names and that have a step, one for each artifact; UserError where none has it.

    shared: of several launched processes all take part, and a list is refused; otherwise all but the first have none.
    """
    from submission.errors import UserError
    from submission.store.launch import launched
    from submission.system.pipeline import has_step

    having = [(system, store) for system, store in open_systems(args) if has_step(system, step)]
    if not having:
        raise UserError(where, f"recipe {args.recipe} has no step {step}", fix)
    launch = launched()
    if shared and launch.processes > 1 and len(having) > 1:
        what = "several processes share the work of one system, and this is a list"
        raise UserError(f"--recipe {args.recipe}", what, "name one system, or start one process")
    for system, store in having:
        system.data_path(store)
    return one_each(having, step) if shared or launch.rank == 0 else []


def one_each(systems: list[tuple[System, Store]], stage: str) -> list[tuple[System, Store]]:
    """Return the first of all systems that share the artifact of a stage, in their order."""
    first: dict[str, tuple[System, Store]] = {}
    for system, store in systems:
        first.setdefault(system.stage(stage).key, (system, store))
    return list(first.values())


def pack(args: argparse.Namespace) -> None:
    """Quantize and pack the merged checkpoint.

    Builds the stage quantize of a system, or of every system of a list: model/ and a report. Where layers are chosen by
    sensitivity, sensitivity.svg and .png show which. Reads the ranking of layers, the scales of AWQ, moments and
    budgets where the recipe has them. A weight whose relative squared error is over 0.5 is a warning, and an error
    unless the recipe says `allow_lost_weights = true` in [quantize]. Of several launched processes the first one does
    the work.
    """
    from quantize import stages
    from quantize.packing.lost_weights import check_lost_weights
    from submission.model.forecast import uploaded_bytes
    from submission.model.sizes import against_limit
    from submission.store.launch import launched

    if launched().rank > 0:
        return
    for system, store in open_systems(args):
        built = store.build(system.stage("quantize"), stages.pack, resume=True)
        packed, model = json.loads((built / PACKING_REPORT).read_text(encoding="utf-8"))["packed"], built / "model"
        check_lost_weights(packed, system.name, allowed=system.recipe.quantize.allow_lost_weights)
        limit = against_limit(uploaded_bytes(model), system.campaign.size_limit)
        print("\n".join([f"{system.name}: {system.recipe.description}", *limit, f"packed model: {model}"]))


def recover(args: argparse.Namespace) -> None:
    """Tune scales, zero-points, norms and biases of a packed model towards the model before packing.

    Builds the stage recover of a system, or of every system of a list that has it: model/, of as many bytes as before,
    and a report. Runs on a GPU if there is one. Of several launched processes the first one does the work.
    """
    from quantize import stages
    from quantize.forecast_table import recovery_line

    for system, store in _systems_with(args, "recover", "quantize.recovery", "write a [quantize.recovery] section"):
        folder = store.build(system.stage("recover"), stages.recover, resume=True)
        print(recovery_line(json.loads((folder / RECOVERY_REPORT).read_text(encoding="utf-8"))))
        print(f"packed model: {folder / 'model'}")


def forecast(args: argparse.Namespace) -> None:
    """Print the exact size that a system's packed model will have, by role, before any work.

    It follows from shapes alone. Also prints what further steps would save; for a list of systems, one line each.
    """
    from quantize.forecast_table import forecast_record, forecast_table, systems_table
    from submission.errors import UserError
    from submission.store.digests import canonical_json
    from submission.system.plan import expected_model

    systems = open_systems(args)
    forecasts, out_of_reach = [], []
    for system, store in systems:
        try:
            predicted = expected_model(system, store, args.checkpoint)
        except UserError as error:
            if len(systems) == 1:
                raise
            out_of_reach.append(f"{system.recipe.name}: {error}")
            continue
        if predicted is None:
            what = f"no configuration of {system.campaign.model.name} is here"
            raise UserError("forecast", what, "name a model folder with --checkpoint or --data")
        forecasts.append((system, predicted))
    if args.json:
        records = [forecast_record(system, predicted) for system, predicted in forecasts]
        print(canonical_json(records if len(records) > 1 else records[0]), end="")
    elif len(forecasts) > 1:
        print("\n".join([systems_table(forecasts), *out_of_reach]))
    else:
        print(forecast_table(*forecasts[0]))


def unpack(args: argparse.Namespace) -> None:
    """Write the plain checkpoint that a packed model stands for, so that any other tool can start from it.

    Weights have the base model's dtype, as a rule bf16 with 2 bytes a parameter; equal bytes on every machine.
    """
    from quantize.packing.unpack import unpack as write_checkpoint
    from submission.model.sizes import size_text

    size = write_checkpoint(args.folder, args.out, args.campaign)
    print(f"checkpoint: {args.out}, {size_text(size)}")


def rehearse(args: argparse.Namespace) -> int:
    """Pack random weights in the shapes of a campaign's base model, and print times and sizes.

    Needs disk for both models (20 GiB for iwslt26, 30 GiB for iwslt27) and none of the campaign's data; a killed run
    resumes with the shards that it has made. Exit status 1 where a bar (20 minutes, 4 GiB of memory, the forecast's
    bytes) is missed.
    """
    from quantize.rehearsal.packing import rehearsal_text
    from quantize.rehearsal.packing import rehearse as run_rehearsal
    from submission.store.digests import canonical_json

    record = run_rehearsal(args.out, args.recipe, args.layers, args.keep, args.campaign)
    print(canonical_json(record) if args.json else rehearsal_text(record))
    return 0 if all(record["passed"].values()) else 1


def bench(args: argparse.Namespace) -> int:
    """Measure speed and memory of solver, sensitivity sweep, loading and codecs beside their peers.

    Figures are written as JSON. Ratios hold on any machine, seconds on this one; let nothing else run. The hqq library
    alone takes minutes. Exit status 1 where a bar is missed.
    """
    from quantize.bench import BENCHES

    return run_benches(BENCHES, args.only, args.out)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the namespace's `verb` is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m quantize", description=__doc__)
    verbs = add_verbs(parser)

    for function in (sensitivity, awq, calibrate, allocate, pack, recover, forecast):
        verb = add_verb(verbs, function)
        add_system_arguments(verb)
    verb.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a checkpoint's folder in place of the campaign's model"
    )
    verb.add_argument("--json", action="store_true", help="print JSON in place of the table")

    verb = add_verb(verbs, unpack)
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="a bundle, or the folder of a packed model")
    verb.add_argument("out", type=Path, metavar="OUT", help="the folder to write, which is not there yet")
    checked = "campaign that a bundle is checked against first (default: the one that it names)"
    verb.add_argument("--campaign", metavar="C", help=checked)

    verb = add_verb(verbs, rehearse)
    verb.add_argument(
        "--campaign", default="iwslt26", metavar="C", help="whose base model is rehearsed (default: %(default)s)"
    )
    verb.add_argument("--recipe", default="ablation:g128", metavar="R", help="what to pack (default: %(default)s)")
    verb.add_argument("--layers", type=int, metavar="N", help="layers of each stack of the model (default: all)")
    verb.add_argument(
        "--out", type=Path, default=Path("build/rehearsal"), metavar="DIR", help="working folder (default: %(default)s)"
    )
    verb.add_argument("--keep", action="store_true", help="keep checkpoint and packed model")
    verb.add_argument("--json", action="store_true", help="print JSON in place of text")

    verb = add_verb(verbs, bench)
    add_bench_arguments(verb, "solver, sweep, loading, entropy or layers", "quantize")
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
