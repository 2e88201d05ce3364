"""Compare the sensitivity sweep with the naive one: ratios of alternating runs in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from quantize.ranking.sensitivity import encode_swaps, pack_base, swapped_codecs
from quantize.ranking.sweep import Swaps, sweep_batch
from submission.miniature.model import PROMPT
from submission.model.codecs.affine import Affine
from submission.model.families import read_config
from submission.runtime.examples import form_batches
from submission.runtime.loading import load_model
from submission.runtime.loss import make_batch, measure_losses, target_tokens
from submission.runtime.prompt import Example, encode, extract_features, render_prompt, window_samples
from submission.system.data_folder import SHIPPED
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from submission.text.segments import SAMPLE_RATE

OPTIONS = QuantizeOptions(
    solver="hqq",
    codecs={"linears": Affine(bits=4, group_size=128), "embedding": Affine(bits=2, group_size=128)},
    overrides=(Override(role="mlp", layers="sensitivity", count="fit", codec=Affine(bits=3, group_size=128)),),
)
"""The paper's system 10: groups of 128, and every MLP in turn at 3 bits."""


def bench_sweep(
    checkpoint: Path = SHIPPED["base"],
    *,
    utterances: int = 32,
    batch_size: int = 8,
    runs: int = 3,
    dtype: str = "float32",
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Return the seconds of the sweep ("ours") and of swapping each layer and running the whole model ("naive").

    Both read the same noise of 2 to 7 seconds with random targets of 10 to 40 tokens, in the same batches, and run in
    turn after one batch each. Seconds and the ratio of neighbouring runs are medians. The largest difference is that
    of the changes of loss per target token of any layer and utterance.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model, processor = load_model(pack_base(checkpoint, Path(scratch), OPTIONS), dtype, device)
        swaps = encode_swaps(checkpoint, model, swapped_codecs(read_config(checkpoint), OPTIONS), OPTIONS.solver)
    examples, pad = _examples(processor, utterances, seed), processor.tokenizer.pad_token_id
    sweeps = {"ours": _sweep, "naive": _sweep_naively}
    seconds: dict[str, list[float]] = {name: [] for name in sweeps}
    sums: dict[str, torch.Tensor] = {name: work(model, swaps, examples[:2], pad, 2) for name, work in sweeps.items()}
    for _ in range(runs):
        for name, work in sweeps.items():
            started = time.perf_counter()
            sums[name] = work(model, swaps, examples, pad, batch_size)
            seconds[name].append(time.perf_counter() - started)
    changes = {name: (s[1:] - s[0]) / target_tokens(examples) for name, s in sums.items()}
    return {
        "model": checkpoint.name,
        "layers": len(swaps.by_layer),
        "utterances": utterances,
        "batch_size": batch_size,
        "dtype": dtype,
        "device": device,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "ratio": statistics.median(a / b for a, b in zip(seconds["ours"], seconds["naive"], strict=True)),
        "largest_difference": float((changes["ours"] - changes["naive"]).abs().max()),
        "largest_change": float(changes["naive"].abs().max()),
    }


def _sweep(
    model: PreTrainedModel, swaps: Swaps, examples: Sequence[Example], pad_token_id: int, batch_size: int
) -> torch.Tensor:
    """Return the summed losses, float64 [1 + layers, utterances]."""
    sums = torch.zeros(1 + len(swaps.by_layer), len(examples), dtype=torch.float64)
    for indices in form_batches(examples, batch_size):
        batch = make_batch([examples[index] for index in indices], pad_token_id, model.device)
        sums[:, indices] = sweep_batch(model, swaps, batch)
    return sums


def _sweep_naively(
    model: PreTrainedModel, swaps: Swaps, examples: Sequence[Example], pad_token_id: int, batch_size: int
) -> torch.Tensor:
    def measure() -> torch.Tensor:
        return measure_losses(model, examples, pad_token_id, batch_size=batch_size, label="naive sweep").sums

    rows = [measure()]
    for layer in sorted(swaps.by_layer):
        with swaps.apply(model, layer):
            rows.append(measure())
    return torch.stack(rows)


def _examples(processor: ProcessorMixin, utterances: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    ordinary = len(processor.tokenizer) - len(processor.tokenizer.all_special_ids)
    examples = []
    for _ in range(utterances):
        samples = min(int(rng.integers(2 * SAMPLE_RATE, 7 * SAMPLE_RATE)), window_samples(processor))
        audio = extract_features(processor, (0.1 * rng.standard_normal(samples)).astype(np.float32))
        prompt = encode(processor, audio, render_prompt(PROMPT, "German"))
        targets = torch.from_numpy(rng.integers(0, ordinary, int(rng.integers(10, 41))))
        ids = torch.cat([prompt.input_ids, targets])
        examples.append(Example(audio=audio, input_ids=ids, prompt_tokens=prompt.prompt_tokens))
    return examples
