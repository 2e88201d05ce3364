"""Compute teacher-forced cross-entropy per target token, as sums over utterances, with its standard error.

The model reads audio, prompt and reference translation; the loss is that of each token of the
translation and the end token after it. Only the states that predict these go through the head: over a vocabulary of
156,032 the logits of all positions of a batch would take gigabytes.

Means are ratios of two sums over utterances, the loss and the tokens, both of which vary. Their standard error is that
of a ratio in a simple random sample (Cochran 1977, Sampling Techniques, section 2.11); the utterance is the unit, since
the tokens of one depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from submission.progress import progress
from submission.runtime.examples import form_batches
from submission.runtime.families import RUNTIMES
from submission.runtime.prompt import IGNORED, Example, collate

LOGITS = 1 << 26
"""Logits that are held at a time: 256 MiB in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The loss of a model on each utterance of a corpus."""

    sums: torch.Tensor
    """float64 [utterances]: negative log-likelihood of the target, in nats."""
    tokens: torch.Tensor
    """int64 [utterances]: target tokens, the end token with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure per target token."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetBatch:
    """A right-padded batch and the positions of its target tokens."""

    inputs: dict[str, torch.Tensor]
    """Inputs of the model, without labels."""
    rows: torch.Tensor
    """int64 [targets]: the utterance of each target token within the batch."""
    positions: torch.Tensor
    """int64 [targets]: the position whose state predicts it, the one before it."""
    ids: torch.Tensor
    """int64 [targets]: the token."""

    def pick(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states that predict targets, [targets, width], of all, [batch, tokens, width]."""
        assert states.shape[:2] == self.inputs["input_ids"].shape, "the model has other positions than its input ids"
        return states[self.rows, self.positions]

    def sum_by_utterance(self, losses: torch.Tensor) -> torch.Tensor:
        """Return the sum over each utterance, float64 [batch], of losses [targets], in the same order anywhere."""
        sums = torch.zeros(len(self.inputs["input_ids"]), dtype=torch.float64)
        return sums.index_add_(0, self.rows.cpu(), losses.double().cpu())


def make_batch(examples: Sequence[Example], pad_token_id: int, device: torch.device | str) -> TargetBatch:
    """Return examples with their targets as one batch on a device."""
    inputs = {name: part.to(device) for name, part in collate(examples, pad_token_id, "right", labels=True).items()}
    labels = inputs.pop("labels")[:, 1:]
    rows, positions = (labels != IGNORED).nonzero(as_tuple=True)
    return TargetBatch(inputs=inputs, rows=rows, positions=positions, ids=labels[rows, positions])


def target_losses(model: PreTrainedModel, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each target token in nats, float32 [targets].

    model: plain or packed; states: [targets, width], as they enter its head; ids: int64 [targets].
    """
    logits_of = RUNTIMES[model.config.model_type].logits
    step = max(1, LOGITS // model.get_output_embeddings().out_features)
    losses = [
        F.cross_entropy(logits_of(model, states[i : i + step]).float(), ids[i : i + step], reduction="none")
        for i in range(0, len(ids), step)
    ]
    return torch.cat(losses) if losses else torch.zeros(0, device=states.device)


@torch.inference_mode()
def measure_losses(
    model: PreTrainedModel, examples: Sequence[Example], pad_token_id: int, *, batch_size: int, label: str
) -> Losses:
    """Return the loss of a model, plain or packed, on examples with targets, in their order.

    batch_size changes the speed and, but for rounding, not the result; label: the name on the progress line.
    """
    sums = torch.zeros(len(examples), dtype=torch.float64)
    with progress(label, len(examples), "utterances") as tick:
        for indices in form_batches(examples, batch_size):
            batch = make_batch([examples[index] for index in indices], pad_token_id, model.device)
            states = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
            losses = target_losses(model, batch.pick(states), batch.ids)
            sums[indices] = batch.sum_by_utterance(losses)
            tick(len(indices))
    return Losses(sums=sums, tokens=target_tokens(examples))


def target_tokens(examples: Sequence[Example]) -> torch.Tensor:
    """Return the number of target tokens of each example, int64 [examples]."""
    return torch.tensor([len(example.input_ids) - example.prompt_tokens for example in examples])


def mean_loss(losses: Losses) -> Estimate:
    """Return the cross-entropy per target token, in nats."""
    return _estimate(losses.sums, losses.tokens)


def difference(changed: Losses, base: Losses) -> Estimate:
    """Return the loss per target token of `changed` less that of `base`, paired by utterance.

    Raises ValueError where the two are not of the same utterances.
    """
    if not torch.equal(changed.tokens, base.tokens):
        raise ValueError("losses to compare have other target tokens: they are not of the same utterances")
    return _estimate(changed.sums - base.sums, base.tokens)


def _estimate(sums: torch.Tensor, tokens: torch.Tensor) -> Estimate:
    value, residuals = ratio(sums, tokens)
    return Estimate(value=value, standard_error=standard_error(residuals))


def ratio(sums: torch.Tensor, tokens: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the sum of sums over the sum of tokens, r, and the contribution of each utterance to its error.

    sums: float64 [utterances]; tokens: int64 [utterances]. The residuals, float64 [utterances], are
    (sums - r * tokens) / sum of tokens; those of several ratios over the same utterances may be added or averaged
    before `standard_error`. Raises ValueError where there are no tokens.
    """
    total = int(tokens.sum())
    if not total:
        raise ValueError("no target tokens: the loss per token is not defined")
    value = float(sums.sum()) / total
    return value, (sums - value * tokens) / total


def standard_error(residuals: torch.Tensor) -> float:
    """Return the square root of n / (n - 1) * the sum of squares, for residuals float64 [n] as `ratio` gives them.

    Raises ValueError for fewer than two.
    """
    count = len(residuals)
    if count < 2:
        raise ValueError(f"{count} utterances: a standard error takes at least two")
    return float((residuals.square().sum() * count / (count - 1)).sqrt())
