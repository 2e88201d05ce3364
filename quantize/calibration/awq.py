"""AWQ: choose scales per input channel from activations, to be folded into the weights before they are packed.

Activation-aware weight quantization (Lin et al. 2024) moves the quantization error to the channels that matter less.
Here the model runs over a calibration set, layer by layer (`quantize.calibration.layerwise`); each smoothing group
takes from it mean|x| per channel, over all positions that are no padding, and a sample of positions, on which scales
are searched for (`quantize.calibration.scale_search`). Both are the original model's, as in the original method, so
groups do not depend on each other: the rows of a weight that another group divides keep their codes (within the limits
that `quantize.calibration.folding` states), and the groups' order does not matter.

Cost at 7 billion weights, 20 exponents and 512 sampled positions: 1.4e11 weights solved and 1.5e14 operations for the
products with the sample, besides one forward pass without the head, 1.3e13 operations per thousand positions of the
decoder and 1.3e12 per thousand of the audio encoder. The sample bounds the products; the full second moment of
down_proj's inputs alone would be 11008 x 11008 a layer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quantize.artifact_files import AWQ_REPORT
from quantize.calibration.folding import write_scales
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.scale_search import ScaleChoice, search
from quantize.calibration.utterance_choice import choose_utterances
from quantize.packing.pack import read_tensor
from quantize.solvers.bound import SolveFor, bind_solver
from submission.errors import UserError
from submission.model.codecs import Codec
from submission.model.families import tensors
from submission.model.families.smoothing import SmoothingGroup
from submission.progress import progress
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.loading import load_processor
from submission.runtime.prompt import Example, collate
from submission.store.digests import canonical_json, read_journal, write_text
from submission.system.recipe.quantize_options import AwqOptions
from submission.text.corpus import read_corpus

SAMPLED_POSITIONS = 512
"""On how many positions of each stack the error of a candidate is taken."""

BATCH_SIZE = 8
DTYPE = torch.float32
"""Dtype in which activations are computed."""

JOURNAL = "groups.jsonl"
"""Beside the results while they are made: the groups that are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Inputs of the model for calibration."""

    batches: list[dict[str, torch.Tensor]]
    """As `collate` makes them, padded on the right."""
    positions: dict[str, list[list[int]]]
    """Stack -> for each batch and row of it how many positions are no padding."""

    def count(self, stack: str) -> int:
        """Return how many positions a stack has in all batches."""
        return sum(map(sum, self.positions[stack]))


def calibrate(
    checkpoint: Path,
    codecs: Mapping[str, Codec],
    corpus: Path,
    data: Path,
    out: Path,
    *,
    solver: str,
    options: AwqOptions,
    prompts: Mapping[str, str],
    end_token: str,
    device: str = "cpu",
) -> None:
    """Fill `out` with the artifact of the stage awq: scales.safetensors and awq_report.json.

    codecs: weight name on the hub -> what it will be packed with; corpus: the folder with dev.jsonl, whose audio paths
    are relative to `data`; prompts: pair -> rendered prompt. A killed run resumes from its `out`: groups that
    are done are not searched again. The same arguments give the same bytes.
    Raises UserError, before any audio is read, for a checkpoint that is incomplete or packed, and for more utterances
    than the dev set has.
    """
    model = LayerwiseModel(checkpoint, dtype=DTYPE, device=device)
    chosen = choose_utterances(read_corpus(corpus / "dev.jsonl"), options, str(corpus / "dev.jsonl"))
    processor = load_processor(checkpoint)
    spoken = {pair.partition("-")[2]: prompts[pair] for pair in options.pairs}
    label = "audio features of the calibration set"
    examples = load_examples(chosen, data, processor, spoken, end_token, targets=options.targets, label=label)
    calibration_set = make_calibration_set(model, examples, processor.tokenizer.pad_token_id)
    del examples  # the batches have copies of all features
    journal = out / JOURNAL
    choices = choose_scales(
        model,
        calibration_set,
        codecs,
        bind_solver(solver),
        exponents=options.exponents,
        seed=options.seed,
        journal=journal,
    )
    write_scales(out, all_scales(model, choices))
    calibration = {**asdict(options), "utterances": len(chosen), "solver": solver}
    write_text(out / AWQ_REPORT, canonical_json(report(model, calibration_set, codecs, choices, calibration)))
    journal.unlink(missing_ok=True)


def make_calibration_set(model: LayerwiseModel, examples: Sequence[Example], pad_token_id: int) -> CalibrationSet:
    """Return examples in batches, with how much of each row is no padding in each stack."""
    batches = [[examples[index] for index in batch] for batch in form_batches(examples, BATCH_SIZE)]
    return CalibrationSet(
        batches=[collate(batch, pad_token_id, "right", labels=False) for batch in batches],
        positions={
            stack.name: [[stack.positions(e.audio.frames, len(e.input_ids)) for e in batch] for batch in batches]
            for stack in model.family.stacks
        },
    )


class ActivationStatistics:
    """Collects from the inputs of linears the mean magnitude of each channel, and a sample of positions."""

    def __init__(self, stacks: Mapping[str, str], calibration_set: CalibrationSet, seed: int) -> None:
        """stacks: name of each observed weight -> its stack."""
        self._stacks = stacks
        self._calibration_set = calibration_set
        self._drawn = {
            name: draw_positions(calibration_set.positions[name], f"{seed} {name}") for name in set(stacks.values())
        }
        self._totals: dict[str, torch.Tensor] = {}
        self._samples: dict[str, list[torch.Tensor]] = {}

    def __call__(self, weight: str, batch: int, inputs: torch.Tensor) -> None:
        """Add the inputs of a weight in a batch, [rows, tokens, channels], those of padding left out."""
        stack = self._stacks[weight]
        lengths = torch.tensor(self._calibration_set.positions[stack][batch], device=inputs.device)
        kept = inputs[torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]].float()
        assert len(kept) == lengths.sum(), f"{weight}: its inputs are shorter than their positions"
        total = kept.abs().sum(dim=0, dtype=torch.float64)
        self._totals[weight] = self._totals.get(weight, 0) + total
        self._samples.setdefault(weight, []).append(kept[self._drawn[stack][batch].to(inputs.device)])

    def take(self, weight: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return (mean magnitudes, float64 [channels]; sample, float32 [positions, channels]) and forget them.

        None where the weight had no inputs yet. UserError for inputs that are not finite.
        """
        if weight not in self._totals:
            return None
        mean = self._totals.pop(weight) / self._calibration_set.count(self._stacks[weight])
        if not torch.isfinite(mean).all():
            raise UserError(weight, "its inputs are not finite", "the model is damaged: train it again")
        return mean, torch.cat(self._samples.pop(weight))


def draw_positions(lengths: Sequence[Sequence[int]], seed: str) -> list[torch.Tensor]:
    """Return for each batch which of its positions are sampled, int64, numbered row by row without padding."""
    ends = torch.tensor([sum(rows) for rows in lengths]).cumsum(0)
    total = int(ends[-1])
    drawn = torch.tensor(sorted(random.Random(seed).sample(range(total), min(SAMPLED_POSITIONS, total))))
    starts = [0, *ends[:-1].tolist()]
    return [drawn[(drawn >= start) & (drawn < end)] - start for start, end in zip(starts, ends.tolist(), strict=True)]


def choose_scales(
    model: LayerwiseModel,
    calibration_set: CalibrationSet,
    codecs: Mapping[str, Codec],
    solve_for: SolveFor,
    *,
    exponents: int,
    seed: int,
    journal: Path,
) -> dict[str, ScaleChoice]:
    """Return the choice for every smoothing group of which a codec packs a target, by the group's name.

    journal: a file that records each finished group; those that an earlier run recorded are not searched again.
    """
    groups = [g for g in _groups(model) if any(target in codecs for target in g.targets)]
    found = {name: ScaleChoice(**fields) for name, fields in read_journal(journal)}
    choices = {g.name: found[g.name] for g in groups if g.name in found}
    remaining = {g.targets[0]: g for g in groups if g.name not in choices}
    observer = ActivationStatistics({target: g.stack for target, g in remaining.items()}, calibration_set, seed)
    with progress("calibrate", model.parts, "parts") as tick, journal.open("a", encoding="utf-8", newline="\n") as file:
        for _ in model.run(calibration_set.batches, list(remaining), observer) if remaining else ():
            for target, group in list(remaining.items()):
                if (taken := observer.take(target)) is None:
                    continue
                choice = _search_group(model, group, *taken, codecs, solve_for, exponents)
                file.write(json.dumps([group.name, asdict(choice)], sort_keys=True) + "\n")
                file.flush()
                choices[group.name] = choice
                del remaining[target]
            tick(1)
            if not remaining:
                break
    assert not remaining, f"{sorted(remaining)[:1]} was not reached"
    return {g.name: choices[g.name] for g in groups}


def _groups(model: LayerwiseModel) -> list[SmoothingGroup]:
    return model.family.smoothing_groups(model.checkpoint.config)


def _search_group(
    model: LayerwiseModel,
    group: SmoothingGroup,
    mean: torch.Tensor,
    sample: torch.Tensor,
    codecs: Mapping[str, Codec],
    solve_for: SolveFor,
    exponents: int,
) -> ScaleChoice:
    """Return the best scales for one group, whose weights are read from the checkpoint, one at a time."""

    def tensor(name: str) -> torch.Tensor:
        return read_tensor(model.checkpoint.located[name], name).to(model.device)

    sources = [tensor(name) for name in group.sources]
    targets = ((name, tensor(name).float(), codecs[name]) for name in group.targets if name in codecs)
    return search(mean, sample, sources, targets, solve_for, exponents)


def all_scales(model: LayerwiseModel, choices: Mapping[str, ScaleChoice]) -> dict[str, torch.Tensor]:
    """Return the effective scales of every group of the model, ones where none were chosen."""
    shapes = {spec.name: spec.shape for spec in tensors(model.checkpoint.config)}
    return {
        g.name: torch.tensor(choices[g.name].scales) if g.name in choices else torch.ones(shapes[g.sources[0]][0])
        for g in _groups(model)
    }


def report(
    model: LayerwiseModel,
    calibration_set: CalibrationSet,
    codecs: Mapping[str, Codec],
    choices: Mapping[str, ScaleChoice],
    calibration: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report of a calibration: its utterances and positions, and the errors of each group."""
    positions = {stack.name: calibration_set.count(stack.name) for stack in model.family.stacks}
    sampled = {name: min(SAMPLED_POSITIONS, count) for name, count in positions.items()}
    groups = {}
    for name, choice in choices.items():
        scales = choice.scales
        groups[name] = {
            "exponent": choice.exponent,
            "relative_error": _before_after(sum(choice.before.values()), sum(choice.after.values())),
            "scales": {"least": _rounded(min(scales)), "greatest": _rounded(max(scales))},
            "targets": {
                target: {"codec": codecs[target].name} | _before_after(choice.before[target], choice.after[target])
                for target in choice.before
            },
        }
    return {
        "calibration": {**calibration, "positions": positions, "sampled_positions": sampled},
        "groups": groups,
        "unscaled": [g.name for g in _groups(model) if g.name not in choices],
    }


def _before_after(before: float, after: float) -> dict[str, float]:
    return {"before": _rounded(before), "after": _rounded(after)}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
