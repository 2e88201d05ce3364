"""Check and measure on one GPU all that a campaign does there, from random weights, and extrapolate to the campaign.

Each part is a command of its own with a limit of time, so that one that fails or hangs does not cost the others: the
tests that need a GPU, the proof of the kernels, decoding and a training step at full size, and the steps of
quantization on a few layers. What they measure replaces the assumed rates of `submission/model/costs/`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluate.rehearsal.rehearsal_text import full_size_works
from submission.benchmarking import describe_machine
from submission.model.costs.durations import duration_text
from submission.model.costs.operations import TEXT_TOKENS_PER_SECOND
from submission.model.costs.steps import BLIND_HOURS, DEV_UTTERANCES
from submission.store.digests import canonical_json, write_text

CAMPAIGN = "iwslt26"
TRAIN_STEPS = 6
LAYERS, PAIRS = 32, 2
"""Of the campaign: layers of its model's decoder, and language pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPart:
    """One part of the check."""

    name: str
    words: tuple[str, ...]
    """What follows `python -m`; `OUT` stands for the file of its figures."""
    limit_seconds: int


GPU_TESTS = (
    "tests/runtime/test_int8_kernels.py",
    "tests/evaluate/bench/test_bench.py",
    "tests/quantize/test_awq.py",
    "tests/quantize/solvers/test_solver.py",
    "tests/runtime/test_kernels.py",
    "tests/runtime/test_packed.py",
    "tests/runtime/test_weight_form.py",
)
"""All test files with the marker `gpu` but that of the training step at full size, which is a part of its own."""

PARTS = (
    CheckPart(name="tests", words=("pytest", "-q", "-m", "gpu", *GPU_TESTS), limit_seconds=120),
    CheckPart(name="kernels", words=("evaluate", "bench", "kernels", "--out", "OUT"), limit_seconds=30),
    CheckPart(name="decoding", words=("evaluate", "bench", "gpu", "--out", "OUT"), limit_seconds=140),
    CheckPart(
        name="training",
        words=("train", "bench", "--full-size", "--campaign", CAMPAIGN, "--steps", str(TRAIN_STEPS), "--json"),
        limit_seconds=90,
    ),
    CheckPart(name="layers", words=("quantize", "bench", "layers", "--out", "OUT"), limit_seconds=100),
)
"""The limits sum up to eight minutes."""


def run_part(part: CheckPart, folder: Path) -> dict[str, Any]:
    """Run a part; return whether it passed, its seconds, its figures (None without) and the end of what it printed."""
    out = folder / f"{part.name}.json"
    words = [str(out) if word == "OUT" else word for word in part.words]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=part.limit_seconds
        )
        status, printed, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        status, printed, errors = None, _text(error.stdout), f"ended after its {part.limit_seconds} s"
    figures = _figures(out, printed)
    return {
        "name": part.name,
        "command": f"python -m {' '.join(words)}",
        "passed": status == 0,
        "seconds": round(time.monotonic() - begun, 1),
        "figures": figures,
        "printed": "\n".join([*printed.splitlines()[-8:], *errors.splitlines()[-8:]])
        if figures is None or status
        else "",
    }


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _figures(out: Path, printed: str) -> dict[str, Any] | None:
    """Return what a part measured: from its file, or printed as JSON."""
    try:
        found = json.loads(out.read_text(encoding="utf-8") if out.is_file() else printed)
    except ValueError:
        return None
    if "benches" not in found:
        return dict(found)
    (bench,) = found["benches"].values()
    return dict(bench)


def gpu_check(out: Path, card: str | None, parts: Sequence[CheckPart] = PARTS) -> dict[str, Any]:
    """Run the parts on a card, write `gpu_check.json` and `gpu_check.md` into `out`, and return the figures.

    card: its name; None where there is none, of which the figures then say that nothing was measured.
    """
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    results = []
    for part in parts if card is not None else ():
        print(f"gpu_check: {part.name}, at most {part.limit_seconds} s", file=sys.stderr, flush=True)
        results.append(run_part(part, out))
    record = {
        "card": card,
        "parts": results,
        "seconds": round(time.monotonic() - begun, 1),
        "machine": describe_machine(),
    }
    write_text(out / "gpu_check.json", canonical_json(record))
    write_text(out / "gpu_check.md", check_text(record))
    return record


def measured_lines(parts: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return what the campaign's steps take at full size by the rates that were measured, as lines.

    parts: name -> figures, of those that have any.
    """
    training, decoding, layers = (parts.get(name) for name in ("training", "decoding", "layers"))
    works, lines = full_size_works(), []
    if training:
        seconds = works["finetune"].flops / training["flops_per_second"]
        share = training["share_of_peak"]
        of_peak = f", {share:.0%} of the card's peak in bf16" if share else ""
        lines.append(f"- finetune: {duration_text(seconds)} at {training['tokens_per_second']:.0f} tokens/s{of_peak}")
    if decoding:
        batch, rate = max(decoding["packed"]["tokens_per_second"].items(), key=lambda entry: int(entry[0]))
        tokens = PAIRS * BLIND_HOURS * 3600 * TEXT_TOKENS_PER_SECOND
        lines.append(f"- decode, prompts left out: {duration_text(tokens / rate)} at batch {batch}, packed")
    if layers:
        few = layers["layers"]
        grown = LAYERS * (LAYERS + 1) / (few * (few + 1))  # L layers cost about L (L + 1) / 2 runs of one
        sweep = layers["sweep_seconds_per_utterance"] * grown * DEV_UTTERANCES * PAIRS
        lines.append(f"- sensitivity: {duration_text(sweep)}, by the sweep of {few} layers")
        lines.append(f"- awq: {duration_text(works['awq'].solved / layers['hqq_per_second'])} for its solutions alone")
        lines.append(f"- pack: {duration_text(works['pack'].solved / layers['packed_per_second'])}, on the processor")
    return lines or ["Nothing was measured."]


def check_text(record: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    if record["card"] is None:
        return "# GPU check\n\nNo GPU here: torch sees no CUDA device, and nothing was measured.\n"
    lines = [f"# GPU check: {record['card']}", "", f"All parts in {record['seconds']:.0f} s.", ""]
    lines += ["| part | passed | seconds | command |", "|---|---|---:|---|"]
    for part in record["parts"]:
        passed = "yes" if part["passed"] else "**no**"
        lines.append(f"| {part['name']} | {passed} | {part['seconds']:.0f} | `{part['command']}` |")
    for part in record["parts"]:
        lines += ["", f"## {part['name']}", ""]
        figures = part["figures"] or {}
        shown = figures.get("text") or "\n".join(f"{k}: {v}" for k, v in figures.items())
        lines += ["```", *(shown or part["printed"]).splitlines(), "```"]
        if figures and part["printed"]:
            lines += ["", "Printed:", "", "```", *part["printed"].splitlines(), "```"]
    figures = {part["name"]: part["figures"] for part in record["parts"] if part["figures"]}
    lines += ["", "## The whole campaign", "", *measured_lines(figures)]
    return "\n".join(lines) + "\n"
