"""Moments of every weight of a checkpoint, on utterances with source and translation, layer by layer.

The artifact has a file for each input that weights share, the Cholesky factor of its second moment, and one for each
weight, the importance of its rows. Activations between the layers are in files below `SCRATCH` until all is measured. A
killed run resumes: what is complete there is not made again. Processes that a launcher started share the batches.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from quantize.artifact_files import MOMENTS
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.layerwise_moments import LayerwiseMoments, MomentsBatch
from quantize.calibration.moment_files import (
    read_diagonal,
    read_factor,
    read_importance,
    write_factor,
    write_importance,
)
from quantize.calibration.moments import ObservedWeight, Positions, mixed
from quantize.calibration.tied_weights import combined_moments
from quantize.calibration.utterance_choice import choose_utterances
from quantize.packing.pack import read_tensor
from quantize.solvers.feedback import Moments, equal_rate_importance, factorize
from submission.errors import UserError
from submission.model.checkpoint import Checkpoint
from submission.model.families import family_of, tensors
from submission.model.moments_size import BATCH_SIZE, input_keys, moments_size
from submission.progress import progress
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_processor
from submission.runtime.loss import make_batch
from submission.runtime.prompt import Example
from submission.store.digests import canonical_json, write_text
from submission.store.launch import Launch, process_group, processes_here
from submission.system.recipe.quantize_options import MomentsOptions
from submission.text.corpus import read_corpus

"""The report of a calibration: which input each weight reads, and what was measured on."""
SCRATCH = "activations"
"""Below the stage's folder while it is built: states between the layers, and gradients."""


class MomentsFolder:
    """The moments of a finished calibration, as solvers read them by the name of a weight."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        report = json.loads((folder / MOMENTS).read_text(encoding="utf-8"))
        self.inputs: dict[str, str] = report["inputs"]
        """Weight name -> key of the second moment of its inputs."""
        self.fisher: bool = report["fisher"]
        """Whether importances are the Fisher information; otherwise constants have no unit."""
        self._tied: dict[str, str] = report["tied"]
        """Head -> the embedding that is its weight."""

    def read(self, name: str) -> Moments:
        """Return the moments of a weight, of all its uses where it is tied; UserError for one that was not measured."""
        if name not in self.inputs:
            raise UserError(str(self._folder), f"has no moments of {name}", "calibrate again")
        heads = [head for head, weight in self._tied.items() if weight == name]
        uses = [self._read_use(use) for use in (name, *heads)]
        return combined_moments(uses) if heads else uses[0]

    def _read_use(self, name: str) -> Moments:
        key = self.inputs[name]
        return Moments(
            stored_factor=functools.partial(read_factor, self._folder, key),
            stored_diagonal=functools.partial(read_diagonal, self._folder, key),
            importance=read_importance(self._folder, name),
        )


def calibrate(
    folder: Path,
    corpus: Path,
    data: Path,
    out: Path,
    *,
    options: MomentsOptions,
    prompts: Mapping[str, str],
    end_token: str,
    device: str = "cpu",
) -> None:
    """Fill `out` with the artifact of the stage calibrate: a file for each second moment and importance, moments.json.

    folder: the checkpoint; corpus: the folder with train.jsonl and dev.jsonl, whose audio paths are relative to `data`;
    prompts: pair -> rendered prompt. Launched processes all call this with the same arguments, the device apart, and
    share the batches. The same arguments give the same bytes on one machine, with one number of threads and processes.
    Raises UserError, before any audio is read, for a checkpoint that is incomplete or packed, that does not fit in
    memory, and for more utterances than there are; in every process, where it does in one.
    """
    with process_group() as launch:
        with launch.refused_by_all():
            model = LayerwiseModel(folder, dtype=torch.float32, device=device)
            check_memory(model.checkpoint, device, processes_here())
        with launch.refused_by_all():
            processor = load_processor(folder)
            corpus_file = corpus / f"{options.source}.jsonl"
            chosen = choose_utterances(read_corpus(corpus_file), options, str(corpus_file), key="quantize.moments")
            spoken = {pair.partition("-")[2]: prompts[pair] for pair in options.pairs}
            examples = load_examples(chosen, data, processor, spoken, end_token, label="calibrate: audio features")
            traced = drawn(len(examples), options.gradient_utterances, options.seed) if options.fisher else []
            if launch.rank == 0:
                _check_disk(model.checkpoint, len(examples), len(traced), out, launch.processes)
        report = _describe(model, examples, traced, options)
        counts = token_counts(model.checkpoint, examples)
        others = [number for number in range(len(examples)) if number not in traced]
        first, rest = (
            make_batches(model.checkpoint, [examples[number] for number in numbers], processor.tokenizer.pad_token_id)
            for numbers in (traced, others)
        )
        del examples  # the batches have copies of all features
        _measure(model, first, rest, counts, out, options=options, device=device, launch=launch)
        if launch.rank == 0:
            write_text(out / MOMENTS, canonical_json(report))


def _describe(
    model: LayerwiseModel, examples: Sequence[Example], traced: Sequence[int], options: MomentsOptions
) -> dict[str, Any]:
    """Return the report as JSON values; traced: the numbers of the examples on which gradients are measured."""
    return {
        **asdict(options),
        "utterances": len(examples),
        "gradient_utterances": len(traced),
        "inputs": input_keys(model.checkpoint.config),
        "tied": model.family.tied_weights(model.checkpoint.config),
        "target_tokens": sum(len(example.input_ids) - example.prompt_tokens for example in examples),
    }


def _measure(
    model: LayerwiseModel,
    traced: list[MomentsBatch],
    rest: list[MomentsBatch],
    counts: torch.Tensor,
    out: Path,
    *,
    options: MomentsOptions,
    device: str,
    launch: Launch,
) -> None:
    """Write all moments; traced: the batches on which gradients are measured too; counts: of tokens."""
    weights = observed_weights(model)
    passes = LayerwiseMoments(
        model,
        weights,
        positions_of(model.checkpoint),
        traced + rest,
        gradient_batches=len(traced),
        out=out,
        scratch=out / SCRATCH,
        launch=launch,
    )
    passes.forward()
    passes.head(torch.Generator(device=device).manual_seed(options.seed))
    if options.fisher:
        passes.backward(counts)
    else:
        write_relative_importance(model.checkpoint, weights[launch.rank :: launch.processes], counts, out)
    launch.barrier()
    if launch.rank == 0:
        passes.store.clear()


def check_memory(checkpoint: Checkpoint, device: str, processes: int = 1) -> None:
    """Raise UserError where the largest part of the model does not fit in the device's free memory.

    processes: how many of them are on this machine; they share the memory of processors, and have a GPU each.
    """
    needed, free = moments_size(checkpoint.config).memory_bytes, free_bytes(device)
    sharing = processes if device == "cpu" else 1
    if needed * sharing > free:
        each = f" in each of {sharing} processes" if sharing > 1 else ""
        what = f"measuring moments takes {needed / 2**30:.1f} GiB{each}, {device} has {free / 2**30:.1f} free"
        fewer = "start fewer processes, " if sharing > 1 else ""
        fix = fewer + "run this step on a machine or GPU with more memory, or leave quantize.moments out (data-free)"
        raise UserError(str(checkpoint.folder), what, fix)


def _check_disk(checkpoint: Checkpoint, utterances: int, traced: int, out: Path, processes: int) -> None:
    """Raise UserError where moments and activations do not fit on the disk, less what a killed run has there."""
    size = moments_size(checkpoint.config)
    found = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    most = size.disk_bytes + size.activation_bytes(utterances, traced) + (processes - 1) * size.sum_bytes
    needed, free = most - found, shutil.disk_usage(out).free
    if needed > free:
        what = f"moments and activations take {needed / 2**30:.1f} GiB of disk, {free / 2**30:.1f} are free"
        raise UserError(str(out), what, "free disk space, or write fewer quantize.moments.gradient_utterances")


def free_bytes(device: str) -> int:
    """Return the memory that is free on a device."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise AssertionError("/proc/meminfo names no MemAvailable")


def observed_weights(model: LayerwiseModel) -> list[ObservedWeight]:
    """Return every weight that can be packed, and tied heads, by their names on the hub.

    Those that read one input share its key.
    """
    config = model.checkpoint.config
    kinds: dict[str, Literal["embedding", "linear", "head"]] = {"embedding": "embedding", "lm_head": "head"}
    roles = {spec.name: spec.role for spec in tensors(config)}  # a tied head is not among the stored
    weights = []
    for name, key in input_keys(config).items():
        module = model.module(name.removesuffix(".weight"))
        kind = kinds.get(roles.get(name, "lm_head"), "linear")
        scale = runtime_of(config).lookup_scale(module) if isinstance(module, nn.Embedding) else 1.0
        weights.append(ObservedWeight(name=name, module=module, input_key=key, kind=kind, lookup_scale=scale))
    return weights


def positions_of(checkpoint: Checkpoint) -> Positions:
    """Return which positions of a `MomentsBatch` are no padding."""
    audio_token = runtime_of(checkpoint.config).audio_token(checkpoint.config)
    stacks = stack_names(checkpoint)

    def positions(batch: MomentsBatch, weight: ObservedWeight, shape: tuple[int, ...]) -> torch.Tensor | None:
        if weight.kind == "head":
            return None  # it is called with the states that predict targets
        inputs = batch.targets.inputs
        if weight.kind == "embedding":  # audio takes the place of what the embedding puts out for its token
            return inputs["attention_mask"].bool() & (inputs["input_ids"] != audio_token)
        lengths = torch.tensor(batch.lengths[stacks[weight.name]])
        return torch.arange(shape[1]) < lengths[:, None]

    return positions


def stack_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return weight name -> the stack whose positions it works on."""
    family = family_of(checkpoint.config)
    found = {target: g.stack for g in family.smoothing_groups(checkpoint.config) for target in g.targets}
    for spec in tensors(checkpoint.config):
        for stack in family.stacks:
            if stack.layers is not None and spec.name.startswith(f"{stack.layers}."):
                found[spec.name] = stack.name
    return found


def drawn(available: int, count: int, seed: int) -> list[int]:
    """Return so many numbers below `available`, or all of them, rising."""
    return sorted(random.Random(f"{seed} gradients").sample(range(available), min(count, available)))


def token_counts(checkpoint: Checkpoint, examples: Sequence[Example]) -> torch.Tensor:
    """Return how often each token is read, int64 [vocabulary], but for those in whose place audio stands."""
    (rows,) = (spec.shape[0] for spec in tensors(checkpoint.config) if spec.role == "embedding")
    counts = sum(torch.bincount(torch.as_tensor(e.input_ids), minlength=rows) for e in examples)
    assert isinstance(counts, torch.Tensor), "there are examples"
    counts[runtime_of(checkpoint.config).audio_token(checkpoint.config)] = 0
    return counts


def write_relative_importance(
    checkpoint: Checkpoint, weights: Sequence[ObservedWeight], counts: torch.Tensor, out: Path
) -> None:
    """Write importances where no gradients are measured: about the same bits for every weight at one constant.

    The rows of embedding and head keep their ratios: how often tokens are read, and E[p (1 - p)]. The embedding has the
    identity for a factor.
    """
    tied = family_of(checkpoint.config).tied_weights(checkpoint.config)
    with progress("calibrate: importance", len(weights), "weights") as tick:
        for weight in weights:
            stored = tied.get(weight.name, weight.name)
            tensor = read_tensor(checkpoint.located[stored], stored)
            if weight.kind == "embedding":
                write_factor(out, weight.input_key, factorize(None, tensor.shape[1]), 0)
            factor = read_factor(out, weight.input_key)
            importance = equal_rate_importance(tensor, factor)
            if weight.kind == "embedding":
                importance *= mixed(counts.double()) / counts.double().mean()
            if weight.kind == "head":
                ratios = read_importance(out, weight.name).double()
                importance *= ratios / ratios.mean()
            write_importance(out, weight.name, importance, 0)
            tick(1)


def make_batches(checkpoint: Checkpoint, examples: Sequence[Example], pad_token_id: int) -> list[MomentsBatch]:
    """Return examples in batches of like lengths, on the processor."""
    stacks, batches = family_of(checkpoint.config).stacks, []
    for indices in form_batches(examples, BATCH_SIZE):
        batch = [examples[index] for index in indices]
        lengths = {s.name: [s.positions(e.audio.frames, len(e.input_ids)) for e in batch] for s in stacks}
        batches.append(MomentsBatch(targets=make_batch(batch, pad_token_id, "cpu"), lengths=lengths))
    return batches
