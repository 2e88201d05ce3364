"""Rehearse packing at full size: make a checkpoint of the real model's shapes with random weights, and pack it.

This shows before the real weights are there whether packing takes acceptable time and memory, and whether the model
has the size of the forecast. None of that depends on the values of the weights.

A recipe with a target of bytes is allotted budgets and solved from random moments (`random_moments.py`); with fewer
layers, its target is smaller by as much as the model's parameters are fewer.

Packing runs in a separate process, so that its peak memory is measured alone.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from quantize.rehearsal.random_checkpoint import left_to_make, make_checkpoint, with_layers
from submission.benchmarking import describe_machine, peak_of_this_process
from submission.counting import counted
from submission.errors import UserError
from submission.model.budgets import provisional_forecast
from submission.model.codecs import Codec
from submission.model.costs.operations import parameter_count
from submission.model.families import shipped_config, without_parts
from submission.model.forecast import Forecast, allotted, companion_bytes, forecast, resolve_codecs
from submission.model.moments_size import moments_size
from submission.store.digests import write_text
from submission.system.campaign import read_campaign
from submission.system.model_size import target_bytes
from submission.system.recipe.quantize_options import QuantizeOptions
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System

CAMPAIGN = "iwslt26"
SYSTEM = "ablation:g128"
"""System 8 of the paper."""

MARK = "rehearsal.txt"
"""Marks a folder made by a rehearsal, whose contents the next one may remove."""

MOST_SECONDS = 20 * 60
MOST_PEAK_BYTES = 4 << 30
MOST_SOLVING_SECONDS = 30 * 60
MOST_SOLVING_PEAK_BYTES = 6 << 30
"""Bars for a recipe with a target: of allocation and packing together, on two cores."""


def rehearse(
    out: Path, recipe: str = SYSTEM, layers: int | None = None, keep: bool = False, campaign: str = CAMPAIGN
) -> dict[str, Any]:
    """Return what making and packing a checkpoint shaped like a campaign's model took.

    layers: of each of the model's stacks, None for all; embedding and head stay as large as they are.
    Works in `out`, which is emptied afterwards unless `keep`; a killed rehearsal resumes with the shards that it
    finished and packs from the start. Layers that a recipe chooses by sensitivity are the first ones, since random
    weights have no ranking; moments are random. Raises UserError where the disk is too small or the recipe calibrates
    by AWQ.
    """
    chosen = read_campaign(campaign)
    read = read_recipe(recipe, campaign)
    options = read.quantize
    if options.awq is not None:
        what = "calibrates by AWQ, which random weights cannot be"
        raise UserError(f"recipe {recipe}", what, f"name one without, {SYSTEM} or contrastive; it weighs the same")
    shipped = shipped_config(chosen.model.name)
    if shipped is None:
        what = f"no configuration of its base model, {chosen.model.name}, ships"
        raise UserError(f"campaign {campaign}", what, f"name {CAMPAIGN}, or another of a published model")
    config = without_parts(shipped if layers is None else with_layers(shipped, layers), options.drop)
    target = target_bytes(System(chosen, read, None, out / "store"))
    if target is not None:
        target = target * parameter_count(config) // parameter_count(without_parts(shipped, options.drop))
    record = rehearse_config(out, config, options, chosen.size_limit_bytes, keep=keep, target=target)
    return {"model": chosen.model.name, "recipe": recipe, "layers": layers or "all", **record}


def rehearse_config(
    out: Path,
    config: dict[str, Any],
    options: QuantizeOptions,
    limit_bytes: int | None,
    *,
    keep: bool,
    target: int | None = None,
) -> dict[str, Any]:
    """Return what making and packing a checkpoint of a configuration took, as `rehearse` does.

    target: what the packed model may weigh, for a recipe with a target.
    """
    if target is None:
        predicted = forecast(config, options.codecs, options.overrides, limit_bytes=limit_bytes)
        codecs = predicted.codecs
    else:
        predicted = provisional_forecast(config, options.codecs, options.overrides, target, other_bytes=0)
        codecs = resolve_codecs(config, options.codecs, options.overrides)
    plain, packed, moments = out / "checkpoint", out / "packed", out / "moments"
    measured = target is not None and options.moments is not None
    _need_own(out, plain, packed, moments)
    moments_bytes = moments_size(config).disk_bytes if measured else 0  # fewer where inputs have widths in common
    _need_space(out, left_to_make(plain, config) + predicted.total_bytes + moments_bytes)
    write_text(out / MARK, "Made by a rehearsal: checkpoint/, packed/ and moments/ are removed by the next one.\n")
    shutil.rmtree(packed, ignore_errors=True)
    made = make_checkpoint(plain, config)
    if measured:
        from quantize.rehearsal.random_moments import draw_moments

        draw_moments(moments, config)
    work = _pack_apart(plain, packed, codecs, options.solver, target, moments if measured else None)
    record = _record(made, work, predicted, sum(path.stat().st_size for path in packed.iterdir()))
    if not keep:
        for folder in (plain, packed, moments):
            shutil.rmtree(folder, ignore_errors=True)
        (out / MARK).unlink()
    return record


def _need_own(out: Path, *folders: Path) -> None:
    """Make the working folder; UserError where it holds folders of these names that no rehearsal made."""
    for folder in folders:
        if folder.exists() and not (out / MARK).is_file():
            raise UserError(str(folder), "exists, and was not made by a rehearsal", "name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)


def _record(made: dict[str, Any], work: dict[str, Any], predicted: Forecast, size_bytes: int) -> dict[str, Any]:
    total_bytes = work.get("allotted_bytes", predicted.total_bytes)
    if "allotted_bytes" in work:
        seconds, bars = work["allocating_seconds"] + work["seconds"], (MOST_SOLVING_SECONDS, MOST_SOLVING_PEAK_BYTES)
    else:
        seconds, bars = made["seconds"] + work["seconds"], (MOST_SECONDS, MOST_PEAK_BYTES)
    return {
        "parameters": predicted.parameters,
        "checkpoint_bytes": made["bytes"],
        "shards": made["shards"],
        "shards_found": made["shards_found"],
        "making_seconds": made["seconds"],
        "allocating_seconds": work.get("allocating_seconds"),
        "packing_seconds": work["seconds"],
        "packing_processor_seconds": work["processor_seconds"],
        "seconds": round(seconds, 1),
        "parameters_per_second": round(predicted.parameters / work["seconds"]),
        "peak_bytes": work["peak_bytes"],
        "model_bytes": size_bytes,
        "forecast_bytes": total_bytes,
        "relative_mse": work["relative_mse"],
        "bars": {"seconds": bars[0], "peak_bytes": bars[1]},
        "passed": {
            "seconds": seconds <= bars[0],
            "peak_bytes": work["peak_bytes"] <= bars[1],
            "forecast": size_bytes == total_bytes,
        },
        "machine": describe_machine() | {"threads": work["threads"]},
    }


def _need_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        what = f"needs {needed / 2**30:.1f} GiB of disk, {free / 2**30:.1f} are free"
        fix = f"free {(needed - free) / 2**30:.1f} GiB, name another disk with --out, or fewer layers with --layers"
        raise UserError(str(out), what, fix)


def _pack_apart(
    plain: Path, packed: Path, codecs: Mapping[str, Codec], solver: str, target: int | None, moments: Path | None
) -> dict[str, Any]:
    """Pack in a separate process, and return the result of `_pack` there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_pack, plain, packed, dict(codecs), solver, target, moments).result()
        except BrokenProcessPool as error:
            what = "packing was killed, most likely because memory ran out"
            raise UserError(str(packed), what, "free memory and run the same command again") from error


def _pack(
    plain: Path, packed: Path, codecs: dict[str, Codec], solver: str, target: int | None, moments: Path | None
) -> dict[str, Any]:
    """Pack a checkpoint; return seconds, this process's peak of memory, threads, and the mean error of the weights.

    With a target, budgets are allotted first: what that takes and what the model will weigh are in the result too.
    """
    import torch

    from quantize.calibration.model_moments import MomentsFolder
    from quantize.packing.budgets import allot
    from quantize.packing.pack import pack_checkpoint
    from quantize.stages import side_data

    inputs, names = {} if moments is None else {"calibrate": moments}, {name: c.name for name, c in codecs.items()}
    allocation: dict[str, Any] = {}
    started = time.perf_counter()
    if target is not None:
        budgets = packed.with_name("budgets")
        budgets.mkdir(exist_ok=True)
        found = allot(
            plain, codecs, budgets, target_bytes=target, moments=None if moments is None else MomentsFolder(moments)
        )
        shutil.rmtree(budgets)
        codecs = allotted(codecs, found["budgets"])
        seconds = round(time.perf_counter() - started, 1)
        here = found["total_bytes"] - companion_bytes(plain)  # the rest is a model card, which is not packed
        allocation = {"allocating_seconds": seconds, "allotted_bytes": here}
    packed.mkdir()
    started, processor = time.perf_counter(), time.process_time()
    report = pack_checkpoint(plain, packed, codecs, solver=solver, side_data=side_data(inputs))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    errors: dict[str, list[float]] = {}
    for name, entry in report["packed"].items():
        errors.setdefault(names[name], []).append(entry["relative_mse"])  # by its name before it had a budget
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "peak_bytes": peak_of_this_process(),
        "threads": torch.get_num_threads(),
        "relative_mse": {name: float(f"{sum(of) / len(of):.4g}") for name, of in sorted(errors.items())},
        **allocation,
    }


def rehearsal_text(record: dict[str, Any]) -> str:
    """Return a rehearsal's figures as text."""

    def judged(name: str) -> str:
        return "passed" if record["passed"][name] else "NOT passed"

    machine, bars, allocating = record["machine"], record["bars"], record["allocating_seconds"]
    layers = "all layers" if record["layers"] == "all" else counted(record["layers"], "layer")
    return "\n".join(
        [
            f"{record['model']}, {layers}, recipe {record['recipe']}: "
            f"{record['parameters']:,} parameters of random weights",
            f"making   {record['checkpoint_bytes']:,} bytes in {record['shards']} shards "
            f"({record['shards_found']} found): {record['making_seconds']:.1f} s",
            *([] if allocating is None else [f"budgets  {allocating:.1f} s"]),
            f"packing  {record['packing_seconds']:.1f} s, {record['packing_processor_seconds']:.1f} s of processors by "
            f"{counted(machine['threads'], 'thread')}, {record['parameters_per_second'] / 1e6:.1f} M parameters/s, "
            f"peak memory {record['peak_bytes'] / 2**30:.2f} GiB",
            f"model    {record['model_bytes']:,} bytes, forecast {record['forecast_bytes']:,}",
            f"bars     {bars['seconds'] // 60} minutes: {judged('seconds')}; {bars['peak_bytes'] >> 30} GiB: "
            f"{judged('peak_bytes')}; bytes as forecast: {judged('forecast')}",
            f"machine  {machine['processor']}, {counted(machine['cores'], 'core')}, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB",
        ]
    )
