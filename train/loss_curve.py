"""Write the course of a fine-tuning as a table and a picture: loss on train and dev, BLEU on dev, by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from submission.store.digests import write_text

BLEU = "eval_bleu_"
"""Beginning of the names under which BLEU is logged; the target language follows."""


def _bleu_names(history: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({name for entry in history for name in entry if name.startswith(BLEU)})


def write_table(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write a CSV of one line a step: step, loss, learning_rate, grad_norm, dev_loss, dev_bleu_<language>."""
    names = ("loss", "learning_rate", "grad_norm", "eval_loss", *_bleu_names(history))
    steps: dict[int, dict[str, Any]] = {}
    for entry in history:
        steps.setdefault(entry["step"], {}).update({name: entry[name] for name in names if name in entry})
    rows = [",".join(("step", *(name.replace("eval_", "dev_") for name in names)))]
    for step, values in sorted(steps.items()):
        if values:
            rows.append(",".join((str(step), *(str(values.get(name, "")) for name in names))))
    write_text(path, "".join(row + "\n" for row in rows))


def _points(history: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(entry["step"], entry[name]) for entry in history if name in entry]
    return [step for step, _ in found], [value for _, value in found]


def write_plots(folder: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Write curve.svg and curve.png; the same bytes for the same history."""
    bleu = _bleu_names(history)
    with rc_context({"svg.hashsalt": "train.loss_curve", "svg.fonttype": "path"}):
        figure = Figure(figsize=(7, 5.5 if bleu else 3.5), layout="constrained")
        axes = figure.subplots(2 if bleu else 1, 1, sharex=True, squeeze=False)[:, 0]
        axes[0].plot(*_points(history, "loss"), color="tab:blue", linewidth=1.2, label="train")
        axes[0].plot(*_points(history, "eval_loss"), "o-", color="tab:orange", markersize=4, label="dev")
        axes[0].set_ylabel("cross-entropy per token (nats)")
        axes[0].set_ylim(bottom=0)
        axes[0].set_title(title)
        axes[0].legend()
        if bleu:
            for name in bleu:
                axes[1].plot(*_points(history, name), "o-", markersize=4, label=name.removeprefix(BLEU))
            axes[1].set_ylabel("BLEU on dev")
            axes[1].set_ylim(0, 100)
            axes[1].legend(title="target")
        axes[-1].set_xlabel("step")
        for axis in axes:
            axis.grid(alpha=0.3)
        figure.savefig(folder / "curve.svg", metadata={"Date": None})
        figure.savefig(folder / "curve.png", dpi=120, metadata={"Software": None})
