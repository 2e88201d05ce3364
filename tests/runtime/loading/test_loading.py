"""Loading packed models and plain ones, by `load_model` and by stock `from_pretrained`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.runtime import weight_form
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_for_inference, load_model
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor, plain_bytes
from tests.runtime.loading.support import inputs, logits, stock_model
from tests.support.launching import HANG_SECONDS


def with_dequantized_weights(base: Path, packed_model, dtype: str):
    """The plain model, its weights replaced in memory by those that the packed model stands for."""
    model, _ = load_model(base, dtype)
    for name, module in packed_model.named_modules():
        if isinstance(module, PackedTensor):
            parameter = model.get_parameter(name)
            parameter.data.copy_(module.dequantize(parameter.dtype))
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_packed_model_gives_the_logits_of_its_dequantized_weights(base, packed, dtype):
    model, processor = load_model(packed, dtype)
    batch = inputs(processor, getattr(torch, dtype))
    assert torch.equal(logits(model, batch), logits(with_dequantized_weights(base, model, dtype), batch))


def test_stock_from_pretrained_loads_a_packed_model(packed):
    from transformers import Qwen2AudioForConditionalGeneration

    import submission.runtime  # noqa: F401  what makes the line below work

    stock = Qwen2AudioForConditionalGeneration.from_pretrained(packed, dtype=torch.float32, local_files_only=True)
    model, processor = load_model(packed, "float32")
    assert torch.equal(logits(stock, inputs(processor)), logits(model, inputs(processor)))


def test_every_weight_that_the_configuration_names_is_a_packed_layer(packed):
    model, _ = load_model(packed, "float32")
    layers = [m for m in model.modules() if isinstance(m, (PackedLinear, PackedEmbedding))]
    assert len(layers) == len(read_config(packed)["quantization_config"]["weights"])
    assert isinstance(model.get_input_embeddings(), PackedEmbedding)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert not model.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_packed_parts_keep_their_dtypes_whatever_the_model_computes_in(packed, dtype):
    stored = load_file(packed / "model.safetensors")
    model, _ = load_model(packed, dtype)
    assert model.dtype == getattr(torch, dtype)
    head = model.lm_head.weight
    assert (head.codes.dtype, head.scale.dtype, head.zero.dtype) == (torch.uint8, torch.float16, torch.float16)
    assert torch.equal(head.scale, stored["language_model.lm_head.weight.scale"])
    assert torch.equal(head.codes, stored["language_model.lm_head.weight.codes"])


def test_a_packed_model_generates(packed):
    model, processor = load_model(packed, "float32")
    batch = inputs(processor)
    with torch.inference_mode():
        made = model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert made.shape == (2, batch["input_ids"].shape[1] + 4)


def test_a_stock_loaded_model_takes_whole_windows_after_it_has_decoded_short_audio(packed):
    model, family = stock_model(packed), runtime_of(read_config(packed))
    whole = inputs(family.read_processor(packed))
    short = family.shorten(whole)
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with torch.inference_mode():
        before = model.generate(**whole, **settings)
        with family.shortened_window(model)(short):
            within = model.generate(**short, **settings)
        after = model.generate(**whole, **settings)
    assert short["input_features"].shape[-1] < whole["input_features"].shape[-1]
    assert torch.equal(before, after) and torch.equal(before, within)


def packed_tensors(model) -> list[PackedTensor]:
    return [module for module in model.modules() if isinstance(module, PackedTensor)]


def test_for_inference_a_small_model_without_kernels_becomes_a_plain_one_of_the_same_numbers(packed, monkeypatch):
    model, processor = load_model(packed, "float32")
    batch = inputs(processor)
    small, _ = load_for_inference(packed, "float32")
    assert packed_tensors(model) and not packed_tensors(small)
    assert torch.equal(logits(small, batch), logits(model, batch))
    monkeypatch.setattr(weight_form, "SMALL_BYTES", plain_bytes(model) - 1)
    large, _ = load_for_inference(packed, "float32")
    assert len(packed_tensors(large)) == len(packed_tensors(model))
    assert torch.equal(logits(large, batch), logits(model, batch))


def test_for_inference_a_model_in_bfloat16_stays_packed_and_a_checkpoint_what_it_is(base, packed):
    model, _ = load_for_inference(packed, "bfloat16")
    assert any(module.prepacked for module in model.modules() if isinstance(module, PackedTensor))
    plain, _ = load_for_inference(base, "float32")
    assert plain_bytes(plain) == 0 and plain.dtype == torch.float32


def test_a_packed_model_can_be_turned_into_a_plain_one(packed):
    model, processor = load_model(packed, "float32")
    expected = logits(model, inputs(processor))
    model.dequantize()
    assert not [m for m in model.modules() if isinstance(m, PackedTensor)]
    assert torch.equal(logits(model, inputs(processor)), expected)


@pytest.mark.parametrize("loader", ["AutoModel", "AutoModelForMultimodalLM", "Qwen2AudioForConditionalGeneration"])
def test_without_the_runtime_stock_loading_fails_and_says_what_to_import(packed, tmp_path, loader):
    code = f"import sys, transformers; transformers.{loader}.from_pretrained(sys.argv[1])"
    # -I: neither the working folder nor PYTHONPATH, so that the repository is out of reach.
    command = [sys.executable, "-I", "-c", code, str(packed)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert ended.returncode != 0
    assert "run `import submission.runtime` before from_pretrained" in ended.stderr.splitlines()[-1]


def test_a_plain_checkpoint_loads_too(base):
    model, processor = load_model(base, "float32")
    assert logits(model, inputs(processor)).dtype == torch.float32


@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=str)
def test_a_packed_model_takes_a_device_map(packed, device_map):
    model, processor = load_model(packed, "float32")
    mapped = stock_model(packed, device_map=device_map)
    assert torch.equal(logits(mapped, inputs(processor)), logits(model, inputs(processor)))
    assert {tensor.device.type for tensor in mapped.state_dict().values()} == {"cpu"}


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux lists the maps")
def test_the_file_of_a_packed_model_is_mapped_into_memory(packed):
    model = stock_model(packed, dtype=torch.bfloat16)
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(packed) in line]
    spans = [tuple(int(end, 16) for end in span.split("-")) for span in maps]
    for name, module in model.named_modules():
        for part in module.parts.values() if isinstance(module, PackedTensor) else ():
            assert any(begin <= part.data_ptr() < end for begin, end in spans), name


def test_only_the_rows_that_are_looked_up_are_unpacked(packed, monkeypatch):
    model, _ = load_model(packed, "float32")
    decoded, decode = [], Affine.decode

    def counting(self, parts, shape, dtype, rows=None):
        decoded.append(shape[0] if rows is None else len(rows))
        return decode(self, parts, shape, dtype, rows)

    monkeypatch.setattr(Affine, "decode", counting)
    embedding = model.get_input_embeddings()
    rows = embedding(torch.tensor([[5, 7, 5], [0, 1, 2]]))
    assert decoded == [6] and rows.shape == (2, 3, embedding.embedding_dim)
    assert torch.equal(rows[0, 0], embedding.weight.dequantize(torch.float32)[5])


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "auto"], ids=str)
def test_the_dtype_can_be_given_as_the_library_takes_it(packed, option, dtype):
    from transformers import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(packed, **{option: dtype})
    assert model.dtype == torch.bfloat16 and model.lm_head.weight.dtype == torch.bfloat16
    assert model.lm_head.weight.codes.dtype == torch.uint8
