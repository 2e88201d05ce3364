from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantize.stream import pack_checkpoint
from submission.architectures import read_config
from submission.codecs import Affine, Codec
from submission.errors import UserError
from submission.forecast import resolve_codecs
from submission.miniature.model import PROMPT, SMALL, build_checkpoint
from submission.runtime.loading import load_model
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor
from submission.runtime.prompt import build_inputs

UP = "language_model.model.layers.0.mlp.up_proj.weight"


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


RULES = {"*": affine(4, 64), "embedding": affine(2, 64), "mlp": affine(3, 48), "audio.mlp": affine(8, 128)}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def packed(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack_checkpoint(base, folder, resolve_codecs(read_config(base), RULES), solver="hqq")
    return folder


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def inputs(processor, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Two utterances of noise."""
    generator = np.random.default_rng(0)
    waves = [generator.standard_normal(n).astype(np.float32) * 0.1 for n in (16_000, 40_000)]
    batch = build_inputs(processor, waves, [PROMPT.format(target_language="German")] * 2)
    return batch | {"input_features": batch["input_features"].to(dtype)}


def logits(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch).logits


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


def test_a_packed_model_can_be_turned_into_a_plain_one(packed):
    model, processor = load_model(packed, "float32")
    expected = logits(model, inputs(processor))
    model.dequantize()
    assert not [m for m in model.modules() if isinstance(m, PackedTensor)]
    assert torch.equal(logits(model, inputs(processor)), expected)


def test_saving_a_packed_model_gives_the_same_weights_file(packed, tmp_path):
    model, processor = load_model(packed, "bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    processor.save_pretrained(tmp_path / "saved")
    again, _ = load_model(tmp_path / "saved", "float32")
    assert isinstance(again.lm_head, PackedLinear)


def test_a_plain_checkpoint_loads_too(base):
    model, processor = load_model(base, "float32")
    assert logits(model, inputs(processor)).dtype == torch.float32


def change(folder: Path, edit) -> None:
    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda w: w.pop(f"{UP}.scale"), f"1 tensors missing: {UP}.scale"),
        (lambda w: w.update({f"{UP}.g": torch.ones(1)}), f"1 tensors not part of this model: {UP}.g"),
        (lambda w: w.update({f"{UP}.codes": w[f"{UP}.codes"][:, 1:].clone()}), f"{UP}.codes: expected the shape"),
        (lambda w: w[f"{UP}.scale"].fill_(float("nan")), "up_proj.weight.scale: holds a number that is not finite"),
    ],
)
@pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])
def test_a_malformed_packed_model_is_refused_by_its_tensor(copy, edit, said, stock):
    from transformers import Qwen2AudioForConditionalGeneration

    change(copy, edit)
    with pytest.raises(UserError) as caught:
        if stock:
            Qwen2AudioForConditionalGeneration.from_pretrained(copy, dtype=torch.float32)
        else:
            load_model(copy, "float32")
    assert said in str(caught.value)


def test_a_truncated_file_is_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cut short"):
        load_model(copy, "float32")


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_model_without_its_tokenizer_or_feature_extractor_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"has no .*{name}"):
        load_model(copy, "float32")


def test_a_tokenizer_that_is_damaged_is_refused(copy):
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="processor cannot be loaded"):
        load_model(copy, "float32")


def test_an_unknown_dtype_is_refused(packed):
    with pytest.raises(UserError, match="unknown dtype 'int4'"):
        load_model(packed, "int4")
