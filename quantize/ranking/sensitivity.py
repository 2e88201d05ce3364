"""Rank layers by the change of loss when each in turn is stored with a coarser codec (Diet-KIT, section 4.4).

The base is the system whose weights are stored by the recipe's rules, without any override. Against it, teacher-forced
cross-entropy per target token over the whole dev set, of every pair, is taken with one layer after the other stored as
the ranked override names; `quantize.ranking.sweep` does all of them in one run. Swapped weights are quantized from the
checkpoint's own, as in the system that will be packed, not from those of the base.

The base is packed by the code that packs systems, into a scratch folder below `out` that is removed at the end: what is
measured is what would be shipped, nothing of full size is ever in memory, and packing resumes too.

A journal records the sums of every finished batch. Under `torchrun` or `accelerate launch`, processes share the
batches: each calls `analyse` with the same folder, keeps a journal of its own there, and the first one merges them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from quantize.packing.pack import encode, pack_checkpoint, read_tensor
from quantize.ranking.chart import draw_ranking
from quantize.ranking.sweep import Swaps, sweep_batch
from quantize.solvers.bound import bind_solver
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Codec
from submission.model.families import family_of, read_config, tensors
from submission.model.forecast import resolve_codecs, role_matches
from submission.model.ranking import RANKING
from submission.progress import progress
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.loading import load_model, load_processor
from submission.runtime.loss import make_batch, ratio, standard_error, target_tokens
from submission.runtime.packed import PackedLinear, PackedTensor
from submission.runtime.prompt import Example
from submission.store.digests import canonical_json, read_journal, write_text
from submission.store.launch import Launch, assigned_device, process_group
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from submission.text.corpus import Utterance, read_corpus

DEV = "dev.jsonl"
BATCH_SIZE = 8
SCRATCH = "base"
"""Below the stage's folder while it is built: the packed base model, and the journal of its packing."""


def analyse(
    checkpoint: Path,
    corpus: Path,
    data: Path,
    out: Path,
    *,
    options: QuantizeOptions,
    prompts: Mapping[str, str],
    end_token: str,
    dtype: str,
    device: str | None = None,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Fill `out` with ranking.json, sensitivity.svg and sensitivity.png; a killed run resumes there.

    checkpoint: at full precision; corpus: the folder that holds dev.jsonl; data: what its audio paths are relative to.
    options: their rules are the base, their override by sensitivity is what is tried. prompts: pair -> rendered prompt.
    dtype: what the model computes in. device: where; None takes a GPU if there is one.
    Raises UserError, before any weight is read, for a role that is in no layer, an override that changes nothing, and a
    pair of which the dev set has fewer than two utterances.
    """
    codecs = swapped_codecs(read_config(checkpoint), options)
    utterances = read_corpus(corpus / DEV)
    pairs = _pairs(utterances, prompts, corpus / DEV)
    with process_group() as launch:
        if launch.rank == 0:
            pack_base(checkpoint, out / SCRATCH, options)
        launch.barrier()
        by_language = {_target_of(pair): prompt for pair, prompt in prompts.items()}
        processor = load_processor(checkpoint)
        examples = load_examples(utterances, data, processor, by_language, end_token, label="sensitivity: dev set")
        batches = form_batches(examples, batch_size)
        head = {"batch_size": batch_size, "layers": sorted(codecs), "utterances": len(utterances)}

        def load() -> tuple[PreTrainedModel, Swaps]:
            model, _ = load_model(out / SCRATCH / "model", dtype, device or assigned_device())
            return model, encode_swaps(checkpoint, model, codecs, options.solver)

        _sweep_share(launch, out, head, examples, batches, processor.tokenizer.pad_token_id, load)
        launch.barrier()
        if launch.rank == 0:
            sums = _merge(_read_journals(out, head), batches, len(codecs))
            figures = rank_layers(sums, target_tokens(examples), pairs, _stretches(utterances), sorted(codecs))
            _finish(out, _describe(options, dtype) | figures)


def swapped_codecs(config: dict[str, Any], options: QuantizeOptions) -> dict[int, dict[str, Codec]]:
    """Return layer -> name of a weight -> its other codec, for the layers in which the ranked override's role occurs.

    Raises UserError where the role is in no layer, or has the override's codec already.
    """
    ranked = options.ranked
    assert ranked is not None, "the recipe has no ranked override"
    base = resolve_codecs(config, options.codecs)
    # Refuses what is in no layer.
    resolve_codecs(config, options.codecs, [Override(role=ranked.role, layers="first", count=1, codec=ranked.codec)])
    named = (spec for spec in tensors(config) if role_matches(spec.role, ranked.role))
    layers = sorted({spec.layer for spec in named if spec.layer is not None})
    swapped = {}
    for layer in layers:
        override = Override(role=ranked.role, layers=(layer,), codec=ranked.codec)
        tried = resolve_codecs(config, options.codecs, [override])
        swapped[layer] = {name: codec for name, codec in tried.items() if base.get(name) != codec}
    if not any(swapped.values()):
        what = f"{ranked.role!r} is stored as {ranked.codec.name} already, so no layer changes"
        raise UserError("quantize.overrides: codec", what, "choose another codec than quantize.codecs gives the role")
    return swapped


def pack_base(checkpoint: Path, scratch: Path, options: QuantizeOptions) -> Path:
    """Return the folder of the packed model of the rules alone, `scratch`/model; a killed run resumes there."""
    (scratch / "model").mkdir(parents=True, exist_ok=True)
    codecs = resolve_codecs(read_config(checkpoint), options.codecs)
    pack_checkpoint(checkpoint, scratch / "model", codecs, solver=options.solver, journal=scratch / "packed.jsonl")
    return scratch / "model"


def encode_swaps(
    checkpoint: Path, model: PreTrainedModel, codecs: Mapping[int, Mapping[str, Codec]], solver: str
) -> Swaps:
    """Return the layers of a loaded model to try, packed, from the checkpoint's own weights.

    codecs: layer -> name of a weight on the hub -> codec.
    """
    opened = read_checkpoint(checkpoint)
    family = family_of(opened.config)
    paths = [family.module_name(stack.layers) for stack in family.stacks if stack.layers is not None]
    stacks: set[str] = set()
    by_layer: dict[int, dict[str, PackedLinear]] = {layer: {} for layer in codecs}
    with progress("sensitivity: other codecs", sum(map(len, codecs.values())), "weights") as tick:
        for layer, named in codecs.items():
            for name, codec in named.items():
                weight = read_tensor(opened.located[name], name)
                parts = encode(name, weight, codec, bind_solver(solver))
                path = family.module_name(name).removesuffix(".weight")
                linear = model.get_submodule(path)
                assert isinstance(linear, (nn.Linear, PackedLinear))  # a base may be packed already
                packed = PackedTensor(
                    codec, tuple(weight.shape), dtype=linear.weight.dtype, device=linear.weight.device
                )
                packed.load_state_dict({stored.removeprefix(f"{name}."): part for stored, part in parts.items()})
                stack = next(stack for stack in paths if path.startswith(f"{stack}.{layer}."))
                stacks.add(stack)
                by_layer[layer][path.removeprefix(f"{stack}.{layer}.")] = PackedLinear(packed, linear.bias)
                tick(1)
    (stack,) = stacks
    return Swaps(stack=stack, by_layer=by_layer)


def rank_layers(
    sums: torch.Tensor,
    tokens: torch.Tensor,
    pairs: Sequence[str],
    stretches: Sequence[int],
    layers: Sequence[int],
) -> dict[str, Any]:
    """Return the ranking as JSON values: base loss, change of loss of each layer, and their order.

    sums: float64 [1 + layers, utterances], the base's first; tokens: int64 [utterances]; pairs: each utterance's;
    stretches: the number of the stretch of audio that each utterance translates, from 0.
    The mean is over the pairs, each with the same weight. Utterances of one stretch of audio are not independent of
    each other, so their residuals are added before the mean's standard error is taken.
    Raises UserError for a loss that is not finite.
    """
    figures = []
    for row, values in enumerate([sums[0], *(sums[1:] - sums[0])]):
        figures.append(_figures(values, tokens, pairs, stretches))
        if not math.isfinite(figures[-1]["mean"]["value"]):
            where = f"sensitivity: layer {layers[row - 1]}" if row else "sensitivity: base"
            raise UserError(where, "its loss is not finite", "let the model compute in another dtype (decode.dtype)")
    entries = [{"layer": layer, **figure} for layer, figure in zip(layers, figures[1:], strict=True)]
    of_pair = {pair: torch.tensor([p == pair for p in pairs]) for pair in sorted(set(pairs))}
    return {
        "pairs": {
            pair: {"utterances": int(mask.sum()), "target_tokens": int(tokens[mask].sum())}
            for pair, mask in of_pair.items()
        },
        "base": figures[0],
        "layers": entries,
        "order": [entry["layer"] for entry in sorted(entries, key=lambda e: (e["mean"]["value"], e["layer"]))],
    }


def _figures(
    values: torch.Tensor, tokens: torch.Tensor, pairs: Sequence[str], stretches: Sequence[int]
) -> dict[str, Any]:
    """Return the figure per target token with its standard error: of each pair and of their mean."""
    names, figures = sorted(set(pairs)), {}
    together = torch.zeros(max(stretches) + 1, dtype=torch.float64)
    for name in names:
        mask = torch.tensor([pair == name for pair in pairs])
        value, residuals = ratio(values[mask], tokens[mask])
        figures[name] = {"value": value, "standard_error": standard_error(residuals)}
        together.index_add_(0, torch.tensor(stretches)[mask], residuals / len(names))
    mean = sum(figure["value"] for figure in figures.values()) / len(names)
    return {"pairs": figures, "mean": {"value": mean, "standard_error": standard_error(together)}}


def _describe(options: QuantizeOptions, dtype: str) -> dict[str, Any]:
    assert options.ranked is not None
    return {
        "role": options.ranked.role,
        "codec": options.ranked.codec.to_dict(),
        "solver": options.solver,
        "dtype": dtype,
        "unit": "nats per target token",
    }


def _pairs(utterances: Sequence[Utterance], prompts: Mapping[str, str], path: Path) -> list[str]:
    """Return the pair of each utterance; UserError where a pair has too few, or an utterance's is none of them."""
    by_target = {_target_of(pair): pair for pair in prompts}
    for u in utterances:
        if u.target_lang not in by_target:
            what = f"utterance {u.id} is translated to {u.target_lang!r}, expected one of {sorted(by_target)}"
            raise UserError(str(path), what, "make the corpus again for this campaign")
    pairs = [by_target[u.target_lang] for u in utterances]
    for pair in prompts:
        if pairs.count(pair) < 2:
            what = f"{pairs.count(pair)} utterances of {pair}, expected at least 2"
            raise UserError(str(path), what, "add ACL 60/60 dev in this language to the data folder")
    return pairs


def _target_of(pair: str) -> str:
    return pair.rpartition("-")[2]


def _stretches(utterances: Sequence[Utterance]) -> list[int]:
    """Return for each utterance the number of its stretch of audio, in the order in which they come first."""
    numbers: dict[tuple[str, int, int], int] = {}
    return [numbers.setdefault(u.stretch, len(numbers)) for u in utterances]


def _sweep_share(
    launch: Launch,
    out: Path,
    head: dict[str, Any],
    examples: Sequence[Example],
    batches: Sequence[list[int]],
    pad_token_id: int,
    load: Callable[[], tuple[PreTrainedModel, Swaps]],
) -> None:
    """Sweep this process's share of the batches, but for those that a journal has; load: called if any are left."""
    # Reading a journal replaces it, to remove a torn line: the first process reads, before any appends to its own.
    done = launch.broadcast(list(_read_journals(out, head)) if launch.rank == 0 else [])
    left = [number for number in range(len(batches))[launch.rank :: launch.processes] if number not in done]
    with _journal(out, launch.rank, head) as note:
        if not left:
            return
        model, swaps = load()
        with progress("sensitivity", sum(len(batches[number]) for number in left), "utterances") as tick:
            for number in left:
                batch = make_batch([examples[index] for index in batches[number]], pad_token_id, model.device)
                note(number, sweep_batch(model, swaps, batch))
                tick(len(batches[number]))


# --- the journals: one a process, a line with the sums of each batch that it finished ---


@contextmanager
def _journal(out: Path, rank: int, head: dict[str, Any]) -> Iterator[Callable[[int, torch.Tensor], None]]:
    """Open a process's journal; yield the function that records a batch's sums, [1 + layers, utterances]."""
    path = out / f"losses.{rank}.jsonl"
    if read_journal(path)[:1] != [head]:
        write_text(path, json.dumps(head, sort_keys=True) + "\n")
    with path.open("a", encoding="utf-8", newline="\n") as file:

        def note(number: int, sums: torch.Tensor) -> None:
            file.write(json.dumps([number, sums.tolist()]) + "\n")
            file.flush()

        yield note


def _read_journals(out: Path, head: dict[str, Any]) -> dict[int, list[list[float]]]:
    """Return batch number -> its sums, of every journal with the same head."""
    journals = [read_journal(path) for path in sorted(out.glob("losses.*.jsonl"))]
    return {number: sums for lines in journals if lines[:1] == [head] for number, sums in lines[1:]}


def _merge(noted: Mapping[int, list[list[float]]], batches: Sequence[Sequence[int]], layers: int) -> torch.Tensor:
    """Return the sums of all utterances in their order, float64 [1 + layers, utterances]."""
    sums = torch.full((1 + layers, sum(map(len, batches))), math.nan, dtype=torch.float64)
    for number, indices in enumerate(batches):
        sums[:, indices] = torch.tensor(noted[number], dtype=torch.float64)
    return sums


def _finish(out: Path, ranking: dict[str, Any]) -> None:
    """Write the artifact and remove intermediate files."""
    write_text(out / RANKING, canonical_json(ranking))
    draw_ranking(ranking, out)
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    for path in out.glob("losses.*.jsonl"):
        path.unlink()
