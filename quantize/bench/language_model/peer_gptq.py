"""Weights of a language model after GPTQ by llm-compressor (vLLM project), dequantized, for `bench_lm` to measure.

A script of its own, since llm-compressor wants another version of transformers than the build: it runs in the
environment `peer` and imports nothing of the project.

    python -m quantize.bench.language_model.peer_gptq --model FOLDER --calibration FILE --bits 4 --out FILE

`--model` is a Hugging Face checkpoint; `--calibration` has int64 `ids` [sequences, tokens]. Every linear is calibrated
in the library's sequential pipeline, layer by layer on the outputs of the quantized layers before, with columns in the
order of their activations; the embedding, for which GPTQ is not defined there, is rounded to nearest. Scales are stored
in float16, one a group of neighbouring columns, and so they are applied here. The file has the quantized weights in
float32 by their names in the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

GROUP_SIZE = 64
"""A divisor of all widths of SmolLM2, which the library requires; 128 is none of 576."""
SCALE_BITS = 16


def stored_bits(bits: int) -> float:
    """Return the bits that a weight takes with its share of the scale, codes being symmetric."""
    return bits + SCALE_BITS / GROUP_SIZE


def quantize_checkpoint(folder: Path, calibration: Path, bits: int, *, linears_only: bool) -> dict[str, Any]:
    """Return the weights that were quantized, float32, by name.

    linears_only: leaves embedding and head as they are.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    ids = load_file(calibration)["ids"]
    batches: Any = DataLoader([{"input_ids": sequence} for sequence in ids], batch_size=1)  # type: ignore[arg-type]
    options = QuantizationArgs(num_bits=bits, strategy="group", group_size=GROUP_SIZE, symmetric=True, observer="mse")
    linears = QuantizationScheme(targets=["Linear"], weights=options)
    recipe = GPTQModifier(config_groups={"linears": linears}, ignore=["lm_head"] if linears_only else [])
    oneshot(model=model, dataset=batches, recipe=recipe, num_calibration_samples=len(ids), pipeline="sequential")
    if not linears_only:
        embedding = QuantizationScheme(targets=["Embedding"], weights=options)
        oneshot(model=model, recipe=QuantizationModifier(config_groups={"embedding": embedding}), pipeline="datafree")
    found = {}
    for name, module in model.named_modules():
        if getattr(module, "quantization_scheme", None) is not None:
            scale = module.weight_scale.detach().half().float()
            weight = fake_quantize(
                module.weight.detach(), scale, module.weight_zero_point, module.quantization_scheme.weights
            )
            if not weight.isfinite().all():
                raise RuntimeError(f"llm-compressor left {name} without finite scales: another version is needed")
            found[f"{name}.weight"] = weight.float().contiguous()
    return found


def main() -> None:
    """Write the weights."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(prog="python -m quantize.bench.language_model.peer_gptq", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", type=Path, required=True, help="checkpoint")
    parser.add_argument("--calibration", type=Path, required=True, help="safetensors file with `ids`")
    parser.add_argument("--bits", type=int, required=True, help="width of a code")
    parser.add_argument("--linears-only", action="store_true", help="leave embedding and head as they are")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args()
    arguments = options.model, options.calibration, options.bits
    save_file(quantize_checkpoint(*arguments, linears_only=options.linears_only), options.out)


if __name__ == "__main__":
    main()
