"""Moments of every weight of a checkpoint, on utterances with source and translation.

The whole model is in memory, in float32, on the processor or one GPU; second moments are taken for as many inputs at a
time as `GROUP_BYTES` holds, with a pass over the utterances for each group, and each is written once it is done. One
pass more, of the backward kind, measures gradients. A killed run resumes: files that are there are not made again.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from quantize.calibration.awq import choose_utterances
from quantize.calibration.moments import (
    ObservedWeight,
    Run,
    collect_gradient_moments,
    collect_input_moments,
    input_path,
    mixed,
    output_path,
    read_importance,
    read_second_moment,
    write_importance,
)
from quantize.packing.pack import read_tensor
from quantize.solvers.feedback import Moments, equal_rate_importance, factorize
from submission.errors import UserError
from submission.model.checkpoint import Checkpoint, read_checkpoint
from submission.model.families import family_of, tensors
from submission.model.moments_size import input_keys, moments_size
from submission.progress import progress
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_model
from submission.runtime.loss import TargetBatch, make_batch
from submission.runtime.prompt import Example
from submission.store.digests import canonical_json, write_text
from submission.system.recipe import MomentsOptions
from submission.text.corpus import read_corpus

MOMENTS = "moments.json"
"""The report of a calibration: which input each weight reads, and what was measured on."""
BATCH_SIZE = 4
GROUP_BYTES = 4 << 30
"""Second moments that are held at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsBatch:
    """A batch and how much of each of its rows is no padding."""

    targets: TargetBatch
    lengths: dict[str, list[int]]
    """Stack -> positions of each row."""


class MomentsFolder:
    """The moments of a finished calibration, as solvers read them by the name of a weight."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        report = json.loads((folder / MOMENTS).read_text(encoding="utf-8"))
        self.inputs: dict[str, str] = report["inputs"]
        """Weight name -> key of the second moment of its inputs."""
        self.fisher: bool = report["fisher"]
        """Whether importances are the Fisher information; otherwise constants have no unit."""

    def read(self, name: str) -> Moments:
        """Return the moments of a weight; UserError for one that was not measured."""
        if name not in self.inputs:
            raise UserError(str(self._folder), f"has no moments of {name}", "calibrate again")
        key = self.inputs[name]
        stored = input_path(self._folder, key).is_file()  # an embedding has none without gradients
        return Moments(
            second_moment=functools.partial(read_second_moment, self._folder, key) if stored else None,
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
    prompts: pair -> rendered prompt. The same arguments give the same bytes on one machine and number of threads.
    Raises UserError, before any audio is read, for a checkpoint that is incomplete or packed, that does not fit in
    memory, and for more utterances than there are.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint.codecs:
        raise UserError(str(folder), "is packed already", "name the checkpoint at full precision")
    check_memory(checkpoint, device)
    corpus_file = corpus / f"{options.source}.jsonl"
    chosen = choose_utterances(read_corpus(corpus_file), options, str(corpus_file), key="quantize.moments")
    model, processor = load_model(folder, torch.float32, device)
    spoken = {pair.partition("-")[2]: prompts[pair] for pair in options.pairs}
    examples = load_examples(chosen, data, processor, spoken, end_token, label="calibrate: audio features")
    pad = processor.tokenizer.pad_token_id
    weights = observed_weights(model, checkpoint)
    run = run_of(model, checkpoint)
    for group in _groups(weights, out):
        batches = _batches(model, checkpoint, examples, pad, label=f"calibrate: inputs of {len(group)} weights")
        collect_input_moments(group, run, batches, out)
    gradient_examples = drawn(examples, options.gradient_utterances, options.seed)
    counts = token_counts(checkpoint, examples)
    if options.fisher:
        if not all(_done(weight, out) for weight in weights):
            batches = _batches(model, checkpoint, gradient_examples, pad, label="calibrate: gradients")
            generator = torch.Generator(device=device).manual_seed(options.seed)
            collect_gradient_moments(model, weights, run, batches, out, generator=generator, token_counts=counts)
    else:
        write_relative_importance(checkpoint, weights, counts, out)
    report = {
        **asdict(options),
        "utterances": len(examples),
        "gradient_utterances": len(gradient_examples) if options.fisher else 0,
        "inputs": {weight.name: weight.input_key for weight in weights},
        "target_tokens": sum(len(example.input_ids) - example.prompt_tokens for example in examples),
    }
    write_text(out / MOMENTS, canonical_json(report))


def check_memory(checkpoint: Checkpoint, device: str) -> None:
    """Raise UserError where the model in float32 with its activations does not fit in the device's free memory."""
    needed, free = moments_size(checkpoint.config).memory_bytes, free_bytes(device)
    if needed > free:
        what = f"measuring moments takes {needed / 2**30:.1f} GiB for the model, {device} has {free / 2**30:.1f} free"
        fix = "run this step on a machine or GPU with more memory, or leave quantize.moments out (data-free)"
        raise UserError(str(checkpoint.folder), what, fix)


def free_bytes(device: str) -> int:
    """Return the memory that is free on a device."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise AssertionError("/proc/meminfo names no MemAvailable")


def observed_weights(model: PreTrainedModel, checkpoint: Checkpoint) -> list[ObservedWeight]:
    """Return every weight that can be packed, by its name on the hub; those that read one input share its key."""
    family = family_of(checkpoint.config)
    keys = input_keys(checkpoint.config)
    kinds = {"embedding": "embedding", "lm_head": "head"}
    return [
        ObservedWeight(
            name=spec.name,
            module=model.get_submodule(family.module_name(spec.name).removesuffix(".weight")),
            input_key=keys[spec.name],
            kind=kinds.get(spec.role, "linear"),  # type: ignore[arg-type]
        )
        for spec in tensors(checkpoint.config)
        if spec.packable
    ]


def run_of(model: PreTrainedModel, checkpoint: Checkpoint) -> Run:
    """Return how the model is run on a `MomentsBatch`, and which positions of it are no padding."""
    runtime = runtime_of(checkpoint.config)
    audio_token = runtime.audio_token(checkpoint.config)
    stacks = stack_names(checkpoint)

    def logits(batch: MomentsBatch) -> torch.Tensor:
        states = model.base_model(**batch.targets.inputs, use_cache=False).last_hidden_state
        return runtime.logits(model, batch.targets.pick(states))

    def positions(batch: MomentsBatch, weight: ObservedWeight, shape: tuple[int, ...]) -> torch.Tensor | None:
        if weight.kind == "head":
            return None  # it is called with the states that predict targets
        inputs = batch.targets.inputs
        if weight.kind == "embedding":  # audio takes the place of what the embedding puts out for its token
            return inputs["attention_mask"].bool() & (inputs["input_ids"] != audio_token)
        lengths = torch.tensor(batch.lengths[stacks[weight.name]], device=inputs["input_ids"].device)
        return torch.arange(shape[1], device=lengths.device) < lengths[:, None]

    return Run(logits=logits, positions=positions)


def stack_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return weight name -> the stack whose positions it works on."""
    family = family_of(checkpoint.config)
    found = {target: g.stack for g in family.smoothing_groups(checkpoint.config) for target in g.targets}
    for spec in tensors(checkpoint.config):
        for stack in family.stacks:
            if stack.layers is not None and spec.name.startswith(f"{stack.layers}."):
                found[spec.name] = stack.name
    return found


def drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return so many of the examples, or all of them, in their order."""
    chosen = sorted(random.Random(f"{seed} gradients").sample(range(len(examples)), min(count, len(examples))))
    return [examples[index] for index in chosen]


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

    The rows of embedding and head keep their ratios: how often tokens are read, and E[p (1 - p)].
    """
    with progress("calibrate: importance", len(weights), "weights") as tick:
        for weight in weights:
            tensor = read_tensor(checkpoint.located[weight.name], weight.name)
            path = input_path(out, weight.input_key)
            moment = read_second_moment(out, weight.input_key) if path.is_file() else None
            importance = equal_rate_importance(tensor, factorize(moment, tensor.shape[1]))
            if weight.kind == "embedding":
                importance *= mixed(counts.double()) / counts.double().mean()
            if weight.kind == "head":
                ratios = read_importance(out, weight.name).double()
                importance *= ratios / ratios.mean()
            write_importance(out, weight.name, importance, 0)
            tick(1)


def _groups(weights: Sequence[ObservedWeight], out: Path) -> Iterator[list[ObservedWeight]]:
    """Yield weights whose second moments are held at the same time, leaving out inputs that are measured already."""
    group: list[ObservedWeight] = []
    size, seen = 0, set()
    for weight in weights:
        if weight.kind == "embedding" or weight.input_key in seen or input_path(out, weight.input_key).is_file():
            continue
        seen.add(weight.input_key)
        width = weight.columns
        if group and size + 4 * width**2 > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(weight)
        size += 4 * width**2
    if group:
        yield group


def _done(weight: ObservedWeight, out: Path) -> bool:
    return output_path(out, weight.name).is_file()


def _batches(
    model: PreTrainedModel, checkpoint: Checkpoint, examples: Sequence[Example], pad: int, *, label: str
) -> Iterator[MomentsBatch]:
    stacks = family_of(checkpoint.config).stacks
    with progress(label, len(examples), "utterances") as tick:
        for indices in form_batches(examples, BATCH_SIZE):
            batch = [examples[index] for index in indices]
            lengths = {s.name: [s.positions(e.audio.frames, len(e.input_ids)) for e in batch] for s in stacks}
            yield MomentsBatch(targets=make_batch(batch, pad, model.device), lengths=lengths)
            tick(len(batch))
