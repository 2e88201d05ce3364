"""AWQ: scales per input channel, taken from activations, folded into the weights before they are packed.

Activation-aware weight quantization (Lin et al. 2024) lets what quantization loses fall on the channels that matter
less. Here the model reads a calibration set, layer by layer (`quantize.calibration.layerwise`); each smoothing group takes from it
mean|x| per channel, over all positions that are no padding, and a sample of positions, on which scales are searched for
(`quantize.calibration.scale_search`). Both are the original model's, as in the original method, so groups do not depend on each other:
the rows of a weight that another group divides keep their codes (`quantize.calibration.folding` says within what), and the groups'
order does not matter.

Cost at 7 billion weights, 20 exponents and 512 sampled positions: 1.4e11 weights solved and 1.5e14 operations for the
products with the sample, besides one forward pass without the head, 1.3e13 operations per thousand positions of the
decoder and 1.3e12 per thousand of the audio encoder. The sample bounds the products; the full second moment of
down_proj's inputs alone would be 11008 x 11008 a layer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quantize.calibration.folding import write_scales
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.scale_search import Choice, search
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
from submission.system.recipe import AwqOptions
from submission.text.corpus import Utterance, read_corpus

SAMPLED_POSITIONS = 512
"""On how many positions of each stack the error of a candidate is taken."""

BATCH_SIZE = 8
DTYPE = torch.float32
"""What activations are computed in."""

JOURNAL = "groups.jsonl"
"""Beside the results while they are made: which groups are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the model reads to be calibrated."""

    batches: list[dict[str, torch.Tensor]]
    """As `collate` makes them, padded on the right."""
    positions: dict[str, list[list[int]]]
    """Stack -> for each batch and row of it how many positions are no padding."""

    def count(self, stack: str) -> int:
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
    """Fill `out` with what the stage awq makes of a checkpoint: scales.safetensors and report.json.

    codecs: weight name on the hub -> what it will be packed with; corpus: the folder with dev.jsonl, whose audio paths
    are relative to `data`; prompts: pair -> what the model is told. A killed run's `out` is gone on with: groups that
    are done are not searched again. The same arguments give the same bytes.
    Raises UserError, before any audio is read, for a checkpoint that is incomplete or packed, and for more utterances
    than the dev set has.
    """
    model = LayerwiseModel(checkpoint, dtype=DTYPE, device=device)
    chosen = choose_utterances(read_corpus(corpus / "dev.jsonl"), options, str(corpus / "dev.jsonl"))
    processor = load_processor(checkpoint)
    spoken = {pair.partition("-")[2]: prompts[pair] for pair in options.pairs}
    label = "hear the calibration set"
    examples = load_examples(chosen, data, processor, spoken, end_token, targets=options.targets, label=label)
    reading = read(model, examples, processor.tokenizer.pad_token_id)
    del examples  # the batches have copies of all that was heard
    journal = out / JOURNAL
    choices = choose_scales(
        model,
        reading,
        codecs,
        bind_solver(solver),
        exponents=options.exponents,
        seed=options.seed,
        journal=journal,
    )
    write_scales(out, all_scales(model, choices))
    calibration = {**asdict(options), "utterances": len(chosen), "solver": solver}
    write_text(out / "report.json", canonical_json(report(model, reading, codecs, choices, calibration)))
    journal.unlink(missing_ok=True)


def choose_utterances(utterances: Iterable[Utterance], options: AwqOptions, where: str) -> list[Utterance]:
    """Return what the model is calibrated on, in the corpus's order: each stretch of audio once.

    Each takes the translation of one of the pairs, in turn (of the next one that it has). A smaller number of
    utterances is part of a larger one. Raises UserError where a pair or that number is not there.
    """
    places: dict[tuple[str, int, int], dict[str, Utterance]] = {}
    for u in utterances:
        pair = f"{u.source_lang}-{u.target_lang}"
        if pair in options.pairs:
            places.setdefault((u.audio, u.start, u.end), {})[pair] = u
    for pair in options.pairs:
        if not any(pair in translations for translations in places.values()):
            raise UserError(where, f"has no utterance of {pair}", "leave the pair out of quantize.awq.pairs")
    if options.utterances > len(places):
        what = f"asks for {options.utterances} utterances, {where} has {len(places)}"
        raise UserError("quantize.awq.utterances", what, "write 0 for all there are")
    order = list(range(len(places)))
    random.Random(f"{options.seed}").shuffle(order)
    drawn = sorted(order[: options.utterances or len(order)])
    found, chosen = list(places.values()), []
    for turn, number in enumerate(drawn):
        turned = options.pairs[turn % len(options.pairs) :] + options.pairs
        chosen.append(next(found[number][pair] for pair in turned if pair in found[number]))
    return chosen


def read(model: LayerwiseModel, examples: Sequence[Example], pad_token_id: int) -> Reading:
    """Return examples in batches, with how much of each row is no padding in each stack."""
    batches = [[examples[index] for index in batch] for batch in form_batches(examples, BATCH_SIZE)]
    return Reading(
        batches=[collate(batch, pad_token_id, "right", labels=False) for batch in batches],
        positions={
            stack.name: [
                [stack.positions(int(e.audio.feature_mask.sum()), len(e.input_ids)) for e in batch] for batch in batches
            ]
            for stack in model.architecture.stacks
        },
    )


class Observer:
    """Takes from what linears take in: the mean magnitude of each channel, and a sample of positions."""

    def __init__(self, stacks: Mapping[str, str], reading: Reading, seed: int) -> None:
        """stacks: name of each watched weight -> its stack."""
        self._stacks = stacks
        self._reading = reading
        self._drawn = {name: draw_positions(reading.positions[name], f"{seed} {name}") for name in set(stacks.values())}
        self._totals: dict[str, torch.Tensor] = {}
        self._samples: dict[str, list[torch.Tensor]] = {}

    def __call__(self, weight: str, batch: int, inputs: torch.Tensor) -> None:
        stack = self._stacks[weight]
        lengths = torch.tensor(self._reading.positions[stack][batch], device=inputs.device)
        heard = inputs[torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]].float()
        assert len(heard) == lengths.sum(), f"{weight}: its inputs are shorter than their positions"
        total = heard.abs().sum(dim=0, dtype=torch.float64)
        self._totals[weight] = self._totals.get(weight, 0) + total
        self._samples.setdefault(weight, []).append(heard[self._drawn[stack][batch].to(inputs.device)])

    def take(self, weight: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return (mean magnitudes, float64 [channels]; sample, float32 [positions, channels]) and forget them.

        None where the weight has not been shown anything yet. UserError for inputs that are not finite.
        """
        if weight not in self._totals:
            return None
        mean = self._totals.pop(weight) / self._reading.count(self._stacks[weight])
        if not torch.isfinite(mean).all():
            raise UserError(weight, "takes in numbers that are not finite", "the model is damaged: train it again")
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
    reading: Reading,
    codecs: Mapping[str, Codec],
    solve_for: SolveFor,
    *,
    exponents: int,
    seed: int,
    journal: Path,
) -> dict[str, Choice]:
    """Return what was found for every smoothing group of which a codec packs a target, by the group's name.

    journal: a file that notes each group as it is done; what an earlier run noted there is taken over.
    """
    groups = [g for g in _groups(model) if any(target in codecs for target in g.targets)]
    found = {name: Choice(**fields) for name, fields in read_journal(journal)}
    choices = {g.name: found[g.name] for g in groups if g.name in found}
    waiting = {g.targets[0]: g for g in groups if g.name not in choices}
    observer = Observer({target: g.stack for target, g in waiting.items()}, reading, seed)
    with progress("calibrate", model.parts, "parts") as tick, journal.open("a", encoding="utf-8", newline="\n") as file:
        for _ in model.run(reading.batches, list(waiting), observer) if waiting else ():
            for target, group in list(waiting.items()):
                if (taken := observer.take(target)) is None:
                    continue
                choice = _search_group(model, group, *taken, codecs, solve_for, exponents)
                file.write(json.dumps([group.name, asdict(choice)], sort_keys=True) + "\n")
                file.flush()
                choices[group.name] = choice
                del waiting[target]
            tick(1)
            if not waiting:
                break
    assert not waiting, f"{sorted(waiting)[:1]} was not reached"
    return {g.name: choices[g.name] for g in groups}


def _groups(model: LayerwiseModel) -> list[SmoothingGroup]:
    return model.architecture.smoothing_groups(model.checkpoint.config)


def _search_group(
    model: LayerwiseModel,
    group: SmoothingGroup,
    mean: torch.Tensor,
    sample: torch.Tensor,
    codecs: Mapping[str, Codec],
    solve_for: SolveFor,
    exponents: int,
) -> Choice:
    """Return what is best for one group, whose weights are read from the checkpoint, one at a time."""

    def tensor(name: str) -> torch.Tensor:
        return read_tensor(model.checkpoint.located[name], name).to(model.device)

    sources = [tensor(name) for name in group.sources]
    targets = ((name, tensor(name).float(), codecs[name]) for name in group.targets if name in codecs)
    return search(mean, sample, sources, targets, solve_for, exponents)


def all_scales(model: LayerwiseModel, choices: Mapping[str, Choice]) -> dict[str, torch.Tensor]:
    """Return the effective scales of every group of the architecture, ones where none were chosen."""
    shapes = {spec.name: spec.shape for spec in tensors(model.checkpoint.config)}
    return {
        g.name: torch.tensor(choices[g.name].scales) if g.name in choices else torch.ones(shapes[g.sources[0]][0])
        for g in _groups(model)
    }


def report(
    model: LayerwiseModel,
    reading: Reading,
    codecs: Mapping[str, Codec],
    choices: Mapping[str, Choice],
    calibration: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a person may ask of a calibration: what was read, and what each group gained."""
    positions = {stack.name: reading.count(stack.name) for stack in model.architecture.stacks}
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
