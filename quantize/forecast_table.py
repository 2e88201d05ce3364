"""Render size forecasts, rankings of layers and AWQ results as text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from submission.model.codecs import parse_codec
from submission.model.families import family_of
from submission.model.forecast import Forecast, Step, further_steps
from submission.model.sizes import GB, GIB, against_limit, in_unit
from submission.system.system import System
from submission.text_table import aligned

NO_TOKENIZER = "The tokenizer counts 0 until a model folder is named (--data or --checkpoint)."
PROVISIONAL = "The total is the target's. Until `allocate` has run, all weights with a budget have equal bits here."
TIED = "The head is the embedding: one weight, stored and counted once."
MOST_STEPS = 16
"""Further steps that a table shows."""


def forecast_record(system: System, forecast: Forecast) -> dict[str, Any]:
    """Return a forecast as JSON values."""
    return {
        "recipe": system.recipe.name,
        "campaign": system.campaign.name,
        "roles": [
            {
                "role": role.role,
                "codecs": list(role.codecs),
                "tensors": role.tensors,
                "parameters": role.parameters,
                "bytes": role.size_bytes,
            }
            for role in forecast.roles
        ],
        "header_bytes": forecast.header_bytes,
        "config_bytes": forecast.config_bytes,
        "other_bytes": forecast.other_bytes,
        "weights_bytes": forecast.weights_bytes,
        "total_bytes": forecast.total_bytes,
        "provisional": forecast.provisional,
        "limit_bytes": system.campaign.size_limit_bytes,
        "parameters": forecast.parameters,
        "codecs": {name: codec.name for name, codec in forecast.codecs.items()},
        "steps": [
            {
                "role": step.role,
                "layers": step.layers,
                "codec": step.codec,
                "change": step.change,
                "saved_bytes": step.saved_bytes,
            }
            for step in further_steps(forecast)
        ],
    }


def forecast_table(system: System, forecast: Forecast) -> str:
    """Return a forecast as a table by role, its total against the limit, and what further steps would save."""
    rows = [("role", "stored as", "tensors", "parameters", "bytes", "GB", "GiB")]
    for role in forecast.roles:
        counts = (f"{role.tensors:,}", f"{role.parameters:,}")
        rows.append((role.role, ", ".join(role.codecs), *counts, *_units(role.size_bytes, forecast)))
    for name, size in (
        ("header", forecast.header_bytes),
        ("config.json", forecast.config_bytes),
        ("tokenizer and others", forecast.other_bytes),
    ):
        rows.append((name, "", "", "", *_units(size, forecast)))
    rows.append(("total", "", "", f"{forecast.parameters:,}", *_units(forecast.total_bytes, forecast)))
    lines = [aligned(rows, left=(0, 1))]
    if not forecast.other_bytes:
        lines.append(NO_TOKENIZER)
    if family_of(forecast.config).tied_weights(forecast.config):
        lines.append(TIED)
    if system.recipe.quantize.drop:
        lines.append(f"left out (quantize.drop): {', '.join(system.recipe.quantize.drop)}")
    if forecast.provisional:
        lines.append(PROVISIONAL)
    lines += ["", *against_limit(forecast.total_bytes, system.campaign.size_limit)]
    if steps := further_steps(forecast):
        lines += ["", "One step further would save", steps_table(steps[:MOST_STEPS])]
        if len(steps) > MOST_STEPS:
            lines.append(f"and {len(steps) - MOST_STEPS} that save less (--json)")
    return "\n".join(lines)


def steps_table(steps: Sequence[Step]) -> str:
    """Return steps as a table, the largest saving first."""
    rows = [("role", "layers", "stored as", "change", "bytes", "MB")]
    for step in steps:
        saved = (f"{step.saved_bytes:,}", f"{step.saved_bytes / 1e6:,.3f}")
        rows.append((step.role, step.layers, step.codec, step.change, *saved))
    return aligned(rows, left=(0, 1, 2, 3))


def systems_table(forecasts: Sequence[tuple[System, Forecast]]) -> str:
    """Return the sizes of several systems of one campaign, one a line, and which of them meet the limit."""
    campaign = forecasts[0][0].campaign
    heading = f"meets {campaign.size_limit}" if campaign.size_limit else "limit"
    rows = [("system", "bytes", "GB", "GiB", heading, "bits per parameter", "what it is")]
    for system, forecast in forecasts:
        meets = ("yes" if campaign.meets_limit(forecast.total_bytes) else "no") if campaign.size_limit else "none"
        bits = f"{8 * forecast.total_bytes / forecast.parameters:.2f}"
        units = _units(forecast.total_bytes, forecast)
        rows.append((system.recipe.name, *units, meets, bits, system.recipe.description))
    lines = [aligned(rows, left=(0, 6))]
    if not all(forecast.other_bytes for _, forecast in forecasts):
        lines.append(NO_TOKENIZER)
    return "\n".join(lines)


def _units(size: int, forecast: Forecast) -> tuple[str, str, str]:
    """Return a size in bytes, GB and GiB, with as many decimals as the whole model's."""
    decimals = len(in_unit(forecast.total_bytes, GB).partition(".")[2])
    return f"{size:,}", f"{size / GB:.{decimals}f}", f"{size / GIB:.{decimals}f}"


def ranking_table(ranking: dict[str, Any]) -> str:
    """Return a ranking of layers, as ranking.json holds it, as a table: the least sensitive first."""
    pairs = sorted(ranking["pairs"])

    def cell(figure: dict[str, float]) -> str:
        return f"{figure['value']:+.5f} ± {figure['standard_error']:.5f}"

    by_layer = {entry["layer"]: entry for entry in ranking["layers"]}
    rows = [("layer", "mean of pairs", *pairs)]
    for layer in ranking["order"]:
        figures = by_layer[layer]["pairs"]
        rows.append((str(layer), cell(by_layer[layer]["mean"]), *(cell(figures[pair]) for pair in pairs)))
    base = ", ".join(f"{pair} {ranking['base']['pairs'][pair]['value']:.4f}" for pair in pairs)
    codec = parse_codec(ranking["codec"], "ranking.json: codec").name
    head = f"Change of cross-entropy, {ranking['role']} of one layer as {codec}, {ranking['unit']}; base: {base}"
    return f"{head}\n{aligned(rows, left=())}"


def awq_table(report: dict[str, Any]) -> str:
    """Return what AWQ chose, as awq_report.json holds it, as a table: a line a group of weights that share a scale."""
    rows = [("group", "exponent", "error before", "after", "change")]
    for name, group in report["groups"].items():
        before, after = (group["relative_error"][when] for when in ("before", "after"))
        change = f"{100 * (after / before - 1):+.1f} %" if before else ""
        rows.append((name, f"{group['exponent']:g}", f"{before:.5f}", f"{after:.5f}", change))
    calibration = report["calibration"]
    read = "source and target" if calibration["targets"] else "source"
    used = f"{calibration['utterances']} utterances of {', '.join(calibration['pairs'])} ({read})"
    head = f"Relative squared error of outputs on {used}"
    return f"{head}\n{aligned(rows)}"


def moments_line(report: dict[str, Any]) -> str:
    """Return what moments were measured on, as moments.json holds it."""
    gradients = f"gradients on {report['gradient_utterances']}" if report["fisher"] else "no gradients"
    pairs, inputs = ", ".join(report["pairs"]), len(set(report["inputs"].values()))
    what = f"{report['utterances']} utterances of {report['source']} ({pairs}), {gradients}"
    return f"{len(report['inputs'])} weights with {inputs} different inputs, on {what}"


def recovery_line(report: dict[str, Any]) -> str:
    """Return what a recovery changed, as recovery_report.json holds it."""
    before, after = (report[f"divergence_{when}"] for when in ("before", "after"))
    figures = " -> ".join(f"{each['value']:.4g} ± {each['standard_error']:.2g}" for each in (before, after))
    what = f"{report['numbers']:,} numbers tuned on {report['utterances']} utterances in {report['steps']} steps"
    held_out = f"divergence on {report['held_out_utterances']} held out {figures} nats per token"
    return f"{what}; {held_out}; model: {report['kept']}"


def allocation_lines(report: dict[str, Any]) -> list[str]:
    """Return what an allocation comes to, as budgets.json holds it."""
    total, target = report["total_bytes"], report["target_bytes"]
    lines = [
        f"model folder: {total:,} bytes of {target:,}, {100 * total / target:.3f} %",
        f"{len(report['budgets'])} weights with a budget: {report['bits_per_weight']:.3f} bits each, all parts counted",
    ]
    if report["predicted_divergence"] is not None:
        predicted = f"{report['predicted_divergence']:.4f} nats per target token"
        lines.append(
            f"predicted divergence from the unpacked model: {predicted}, to second order; "
            "measured, 1.4 to 3 times that at 3 bits and more, up to 6 times at 2"
        )
    return lines
