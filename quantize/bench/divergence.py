"""What packing costs a system: increase of cross-entropy and Kullback-Leibler divergence on dev, per target token.

Run from the repository's root, after packing:

    python -m quantize.bench.divergence --recipe frontier

Both are paired by utterance with the merged checkpoint, so that their standard errors are those of the difference: an
increase of a few thousandths of a nat is seen beside a loss whose own standard error is ten times that. stdout has one
JSON object a system.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from submission.cli import add_system_arguments, open_systems, run
from submission.model.forecast import uploaded_bytes
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.families import RUNTIMES
from submission.runtime.loading import load_model
from submission.runtime.loss import make_batch, ratio, standard_error, target_tokens
from submission.runtime.prompt import Example, render_prompt
from submission.text.corpus import read_corpus

if TYPE_CHECKING:
    from submission.store.store import Store
    from submission.system.system import System

BATCH_SIZE = 8


def measure_divergence(
    reference: PreTrainedModel, model: PreTrainedModel, examples: Sequence[Example], pad_token_id: int
) -> dict[str, float]:
    """Return increase and divergence of a model against a reference with their standard errors, nats per target token.

    Both models run on each batch, so that logits of one batch alone are in memory.
    """
    sums = torch.zeros(2, len(examples), dtype=torch.float64)
    for indices, before, after, ids, rows in _log_probabilities(reference, model, examples, pad_token_id):
        increase = (before - after).gather(1, ids[:, None]).squeeze(1)
        divergence = (before.exp() * (before - after)).sum(dim=1)
        for place, values in enumerate((increase, divergence)):
            sums[place, indices] = torch.zeros(len(indices), dtype=torch.float64).index_add_(0, rows, values.double())
    found, tokens = {}, target_tokens(examples)
    for name, values in zip(("increase", "divergence"), sums, strict=True):
        found[name], residuals = ratio(values, tokens)
        found[f"{name}_standard_error"] = standard_error(residuals)
    return found


@torch.inference_mode()
def _log_probabilities(
    reference: PreTrainedModel, model: PreTrainedModel, examples: Sequence[Example], pad_token_id: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield of each batch its indices, log-probabilities [targets, vocabulary] of both models, tokens and rows."""
    for indices in form_batches(examples, BATCH_SIZE):
        batch = make_batch([examples[index] for index in indices], pad_token_id, "cpu")
        both = []
        for each in (reference, model):
            states = each.base_model(**batch.inputs, use_cache=False).last_hidden_state
            logits = RUNTIMES[each.config.model_type].logits(each, batch.pick(states))
            both.append(logits.float().log_softmax(dim=-1))
        yield indices, both[0], both[1], batch.ids, batch.rows


def _measure_system(system: System, store: Store) -> dict[str, Any]:
    campaign, merged = system.campaign, store.need(system.stage("merge"))
    packed = store.need(system.model_stage()) / "model"
    reference, processor = load_model(merged, torch.float32)
    prompts = {pair.target: render_prompt(campaign.prompt, pair.target_language) for pair in campaign.pairs}
    utterances = read_corpus(store.need(system.stage("corpus")) / "dev.jsonl")
    end_token, label = campaign.model.end_token, f"{system.recipe.name}: dev set"
    examples = load_examples(utterances, system.data_path(store), processor, prompts, end_token, label=label)
    model, _ = load_model(packed, torch.float32)
    figures = measure_divergence(reference, model, examples, processor.tokenizer.pad_token_id)
    size = uploaded_bytes(packed)
    return {"recipe": system.recipe.name, "bytes": size, **{k: float(f"{v:.4g}") for k, v in figures.items()}}


def divergence(args: argparse.Namespace) -> None:
    """Print a JSON object for each system."""
    for system, store in open_systems(args):
        print(json.dumps(_measure_system(system, store)), flush=True)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this bench's command."""
    parser = argparse.ArgumentParser(prog="python -m quantize.bench.divergence", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_system_arguments(parser)
    parser.set_defaults(verb=divergence)
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
