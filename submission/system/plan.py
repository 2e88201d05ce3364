"""The plan of a system: its stages, which of them are built, what they weigh, and what is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from submission.bundle.description import model_name
from submission.errors import UserError
from submission.model.budgets import provisional_forecast, read_budgets
from submission.model.costs.devices import CARDS, processor
from submission.model.costs.durations import cost_lines
from submission.model.costs.operations import parameter_count
from submission.model.costs.steps import step_works
from submission.model.families import read_config, without_parts
from submission.model.forecast import Forecast, companion_bytes, forecast
from submission.model.moments_size import moments_size
from submission.model.ranking import read_order
from submission.model.recovery_size import recovery_bytes
from submission.model.sizes import GIB, against_limit, in_unit
from submission.processors import given_processors
from submission.store.store import Store
from submission.system.model_size import base_model, target_bytes
from submission.system.pipeline import has_step
from submission.system.system import System


def plan_rows(system: System, store: Store) -> list[dict[str, Any]]:
    """Return a row per stage in building order: id, key, state, bytes (None where not known yet)."""
    incomplete = bool(system.missing())
    rows = []
    for stage in system.stages():
        record = store.record(stage)
        size = record.size_bytes if record else None
        state = "built" if record else "waits for data" if incomplete else "to build"
        rows.append({"stage": stage.id, "key": stage.key, "state": state, "bytes": size, "command": stage.command})
    return rows


def expected_model(system: System, store: Store, checkpoint: Path | None = None) -> Forecast | None:
    """Return the forecast of the packed model, from the base model's configuration; None where that is unknown.

    Until the base model is there, the shipped copy of its configuration serves; its tokenizer then counts 0.
    checkpoint: another model's folder in place of the base model's.
    """
    known = base_model(system)
    if checkpoint is not None:
        known = read_config(checkpoint), companion_bytes(checkpoint)
    if known is None:
        return None
    config, other_bytes = known
    if "quantization_config" in config:
        raise UserError(str(checkpoint), "is packed already", "name the checkpoint at full precision")
    quantize = system.recipe.quantize
    config = without_parts(config, quantize.drop)
    target = target_bytes(system)
    budgets = _budgets(system, store) if checkpoint is None else None
    if target is not None and budgets is None:
        return provisional_forecast(config, quantize.codecs, quantize.overrides, target, other_bytes=other_bytes)
    return forecast(
        config,
        quantize.codecs,
        quantize.overrides,
        limit_bytes=system.campaign.size_limit_bytes,
        other_bytes=other_bytes,
        ranking=_ranking(system, store) if checkpoint is None else None,
        budgets=budgets,
    )


def _budgets(system: System, store: Store) -> dict[str, int] | None:
    """Return the budgets of weights, where the system has a target and they are allotted."""
    if not has_step(system, "allocate"):
        return None
    stage = system.stage("allocate")
    return read_budgets(store.folder(stage)) if store.record(stage) else None


def _ranking(system: System, store: Store) -> list[int] | None:
    """Return the layers in the order of their sensitivity, where the system has it and it is built."""
    if not has_step(system, "sensitivity"):
        return None
    stage = system.stage("sensitivity")
    return read_order(store.folder(stage)) if store.record(stage) else None


def plan_text(system: System, store: Store) -> str:
    """Return the plan as text."""
    lines = [f"{system.campaign.edition}, recipe {system.recipe.name}: {system.recipe.description}", ""]
    rows = plan_rows(system, store)
    width = max(len(row["stage"]) for row in rows)
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes']:>15,} bytes"
        lines.append(f"  {row['stage']:<{width}}  {row['key'][:12]}  {row['state']:<14}{size}".rstrip())
    if not system.campaign.made_here:
        names = ", ".join(model_name(system.campaign, system.recipe, pair.name) for pair in system.campaign.pairs)
        lines += ["", f"Uploaded as: {names}"]
    return "\n".join(lines + _size_lines(system, store) + _memory_lines(system) + _cost_lines(system, store)) + "\n"


def _cost_lines(system: System, store: Store) -> list[str]:
    """Return what the steps will take on this machine and on two kinds of cards, as lines; the miniature needs none."""
    known, expected = base_model(system), expected_model(system, store)
    if system.campaign.made_here or known is None or expected is None:
        return []
    host = processor(given_processors(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    campaign = system.campaign
    window = campaign.model.window_seconds
    works = step_works(known[0], system.recipe, len(campaign.pairs), expected.total_bytes, window)
    disk = 2 * parameter_count(known[0])
    most = {}
    for work in works.values():
        disk += work.disk_bytes
        most[work.step] = disk + work.scratch_bytes
    largest = max(most, key=most.__getitem__)
    while_it_runs = f", {in_unit(most[largest], GIB)} GiB while {largest} runs" if most[largest] > disk else ""
    return [
        "",
        "Time, memory and disk, by counts from shapes and assumed rates (docs/hardware.md):",
        *(f"  {line}" for line in cost_lines(works, [host, *CARDS], host)),
        f"Disk with the base model, corpora left out: {in_unit(disk, GIB)} GiB{while_it_runs}.",
    ]


def _memory_lines(system: System) -> list[str]:
    """Return what calibration and recovery take, as lines, where the system has them."""
    known = base_model(system)
    if known is None:
        return []
    lines = []
    if has_step(system, "calibrate"):
        options, size = system.recipe.quantize.moments, moments_size(known[0])
        assert options is not None, "a system that calibrates says on what"
        traced = options.gradient_utterances if options.fisher else 0
        counted = options.utterances or 1
        memory, disk = (in_unit(size, GIB) for size in (size.memory_bytes, size.disk_bytes))
        activations = f"{in_unit(size.activation_bytes(counted, min(traced, counted)), GIB)} GiB"
        activations += "" if options.utterances else " an utterance"
        lines += [
            f"calibrate holds one layer at a time: at most {memory} GiB of memory or of a GPU.",
            f"On disk {disk} GiB of moments, meanwhile at most {activations} of activations.",
        ]
    if has_step(system, "recover"):
        memory = in_unit(recovery_bytes(known[0]), GIB)
        lines.append(f"recover holds the whole model in float32: about {memory} GiB of memory or of a GPU.")
    return ["", *lines] if lines else []


def _size_lines(system: System, store: Store) -> list[str]:
    """Return what the packed model will weigh against the limit, as lines."""
    expected = expected_model(system, store)
    if expected is None:
        return []
    lines = ["", "Packed model, expected:"]
    # Before budgets are allotted every weight has the same bits, which may miss the target by a few bytes.
    total_bytes = target_bytes(system) if expected.provisional else None
    lines += [f"  {line}" for line in against_limit(total_bytes or expected.total_bytes, system.campaign.size_limit)]
    if expected.provisional:
        lines.append("That is the target; the exact size is known once budgets are allotted.")
    if system.recipe.quantize.ranked and not system.ranks_layers:
        ranked = system.recipe.quantize.ranked
        lines.append(f"It meets the limit as it is: no {ranked.role} is stored as {ranked.codec.name}, none is ranked.")
    if not expected.other_bytes:
        lines.append("The tokenizer counts 0 bytes until the model's folder is there.")
    return lines
