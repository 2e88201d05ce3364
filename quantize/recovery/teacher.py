"""Next-token distributions of the original model on utterances, kept on disk, and divergences from them.

Of each distribution the most probable tokens are kept with their log-probabilities, and what the others have together:
the divergence takes these as one outcome, and is exact where the vocabulary has no more tokens than are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from submission.progress import progress
from submission.runtime.examples import form_batches
from submission.runtime.loss import make_batch, target_tokens
from submission.runtime.prompt import Example
from submission.store.digests import write_bytes

KEPT_TOKENS = 512
"""Of each distribution, where the vocabulary has more."""
BATCH_SIZE = 2


class Teacher:
    """Distributions of the original model at the targets of examples, in their order."""

    def __init__(self, path: Path, examples: Sequence[Example]) -> None:
        """path: as `write_teacher` made it of these examples."""
        kept = load_file(path)
        self._ids, self._log_probabilities = kept["ids"], kept["log_probabilities"]
        ends = target_tokens(examples).cumsum(0).tolist()
        self._spans = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]

    def divergences(self, logits: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """Return the divergence of logits from the teacher, float32 [targets], with gradients; nats.

        logits: float32 [targets, vocabulary], of the examples with these indices one after the other.
        """
        ids = torch.cat([self._ids[self._spans[index]] for index in indices]).to(logits.device, torch.int64)
        kept = torch.cat([self._log_probabilities[self._spans[index]] for index in indices]).to(logits.device)
        return divergences(logits, ids, kept)


def divergences(logits: torch.Tensor, ids: torch.Tensor, log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of logits from distributions, float32 [n].

    logits: [n, vocabulary]; ids: int64 [n, kept], tokens; log_probabilities: [n, kept], theirs. All other tokens
    together are one outcome.
    """
    total = logits.logsumexp(dim=1, keepdim=True)
    probabilities = log_probabilities.exp()
    found = (probabilities * (log_probabilities - (logits.gather(1, ids) - total))).sum(dim=1)
    if ids.shape[1] < logits.shape[1]:
        rest = (1 - probabilities.sum(dim=1)).clamp_min(0)
        others = logits.scatter(1, ids, float("-inf")).logsumexp(dim=1) - total.squeeze(1)
        found = found + torch.xlogy(rest, rest) - rest * others
    return found


@torch.inference_mode()
def write_teacher(model: PreTrainedModel, logits_of: Any, examples: Sequence[Example], pad: int, path: Path) -> None:
    """Write the distributions of a model at the targets of examples, aside and then into place."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = [(torch.empty(0), torch.empty(0))] * len(examples)
    with progress("recover: original model", len(examples), "utterances") as tick:
        for indices in form_batches(examples, BATCH_SIZE):
            batch = make_batch([examples[index] for index in indices], pad, model.device)
            states = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
            log_probabilities = logits_of(model, batch.pick(states)).float().log_softmax(dim=1)
            values, ids = log_probabilities.topk(min(KEPT_TOKENS, log_probabilities.shape[1]), dim=1)
            for place, index in enumerate(indices):
                here = batch.rows == place
                found[index] = (ids[here].to("cpu", torch.int32), values[here].cpu())
            tick(len(indices))
    tensors = {"ids": torch.cat([ids for ids, _ in found]), "log_probabilities": torch.cat([kept for _, kept in found])}
    write_bytes(path, save(tensors))
