"""Write a rehearsal's figures as text: each command's time and memory, beside what its step takes at full size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from submission.counting import counted
from submission.model.costs.devices import CARDS, processor
from submission.model.costs.durations import duration_text, step_seconds
from submission.model.costs.steps import StepWork, step_works
from submission.model.families import shipped_config
from submission.model.forecast import forecast
from submission.model.sizes import GIB
from submission.system.campaign import read_campaign
from submission.system.pipeline import STEPS
from submission.system.recipe.recipe_files import read_recipe
from submission.text_table import aligned

CAMPAIGN, RECIPE = "iwslt26", "primary"


def full_size_works() -> dict[str, StepWork]:
    """Return what the steps of the campaign's primary system do at full size, by name."""
    campaign, recipe = read_campaign(CAMPAIGN), read_recipe(RECIPE, CAMPAIGN)
    config, quantize = shipped_config(campaign.model.name), recipe.quantize
    assert config is not None, f"no configuration of {campaign.model.name} ships"
    limit = campaign.size_limit_bytes
    packed = forecast(config, quantize.codecs, quantize.overrides, limit_bytes=limit).total_bytes
    return step_works(config, recipe, len(campaign.pairs), packed, campaign.model.window_seconds)


def rehearsal_text(record: Mapping[str, Any]) -> str:
    """Return a rehearsal's figures as text."""
    machine, rates = record["machine"], record["rates"]
    host = processor(machine["cores"], machine["memory_bytes"], rates["flops_per_second"], rates["bytes_per_second"])
    works = {step.command: full_size_works().get(step.name) for step in STEPS}
    rows = [["command", "recipe", "took", "CPU", "peak", "| full size: here", *(c.name for c in CARDS), "memory"]]
    for run in record["commands"]:
        row = [
            run["command"],
            run["recipe"],
            f"{run['seconds']:.1f} s",
            f"{run['cpu_seconds']:.1f} s",
            f"{run['peak_bytes'] / GIB:.2f} GiB",
        ]
        work = works.get(run["command"])
        if work is not None:
            seconds = (step_seconds(work, device, host) for device in (host, *CARDS))
            row += [*map(duration_text, seconds), f"{work.memory_bytes / GIB:.1f} GiB"]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    killed = record["killed"]
    hit = sum(entry["killed"] for entry in killed)
    return "\n".join(
        [
            aligned(rows, left=(0, 1)),
            "",
            f"model: {record['parameters']:,} parameters ({record['width']}, {counted(record['layers'], 'layer')}); "
            f"made in {record['making_seconds']:.0f} s",
            "both systems verified, shown, archived and decoded again; findings of verify: "
            f"{', '.join(record['findings']) or 'none'}",
            f"from the store, every step found: {record['from_store_seconds']:.0f} s",
            f"killed: {hit} of {len(killed)} commands with SIGKILL midway, run again to the same bytes"
            if killed
            else "killed: not rehearsed",
            f"all of it: {record['seconds'] / 60:.1f} min, {record['cpu_seconds'] / 60:.1f} min of processors, on "
            f"{machine['processor']}, {counted(machine['cores'], 'core')}, "
            f"{rates['flops_per_second'] / 1e9:.0f} GFLOP/s in bfloat16, {rates['bytes_per_second'] / 1e9:.1f} GB/s; "
            f"load {record['load'][0]:.1f} to {record['load'][1]:.1f}",
        ]
    )
