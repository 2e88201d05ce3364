from __future__ import annotations

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantize.packing.pack import pack_checkpoint
from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime import weight_form
from submission.runtime.loading import load_for_inference, load_model
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor, plain_bytes
from submission.runtime.prompt import build_inputs
from submission.store.digests import tree_digest
from tests.support.tiny_qwen import build_checkpoint

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


def test_saving_a_packed_model_gives_the_same_weights_file(packed, tmp_path):
    model, processor = load_model(packed, "bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    processor.save_pretrained(tmp_path / "saved")
    again, _ = load_model(tmp_path / "saved", "float32")
    assert isinstance(again.lm_head, PackedLinear)


def test_a_saved_model_says_again_what_loads_it(packed, tmp_path):
    model, _ = load_model(packed, "bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/config.json").read_bytes() == (packed / "config.json").read_bytes()
    deepcopy(model).save_pretrained(tmp_path / "copied")
    assert (tmp_path / "copied/config.json").read_bytes() == (packed / "config.json").read_bytes()
    model.dequantize()
    model.save_pretrained(tmp_path / "plain")
    assert "transformers_weights" not in read_config(tmp_path / "plain")


@pytest.mark.parametrize("loader", ["AutoModel", "AutoModelForMultimodalLM", "Qwen2AudioForConditionalGeneration"])
def test_without_the_runtime_stock_loading_fails_and_says_what_to_import(packed, tmp_path, loader):
    code = f"import sys, transformers; transformers.{loader}.from_pretrained(sys.argv[1])"
    # -I: neither the working folder nor PYTHONPATH, so that the repository is out of reach.
    command = [sys.executable, "-I", "-c", code, str(packed)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    assert "run `import submission.runtime` before from_pretrained" in ended.stderr.splitlines()[-1]


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
    with pytest.raises(UserError, match="truncated"):
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


def stock_model(folder: Path, **kwargs):
    from transformers import Qwen2AudioForConditionalGeneration

    import submission.runtime  # noqa: F401  what makes the line below work

    kwargs.setdefault("dtype", torch.float32)
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, local_files_only=True, **kwargs)


def split(folder: Path, pieces: int = 3) -> list[Path]:
    """Cut a model folder's one file into shards with an index; a weight's parts come to lie in different ones."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = [folder / f"model-{n + 1:05d}-of-{pieces:05d}.safetensors" for n in range(pieces)]
    for n, path in enumerate(shards):
        save_file({name: weights[name] for name in names[n::pieces]}, path, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shards[i % pieces].name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return shards


@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=str)
def test_a_packed_model_takes_a_device_map(packed, device_map):
    model, processor = load_model(packed, "float32")
    mapped = stock_model(packed, device_map=device_map)
    assert torch.equal(logits(mapped, inputs(processor)), logits(model, inputs(processor)))
    assert {tensor.device.type for tensor in mapped.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])
def test_a_packed_model_in_many_shards_is_the_model_in_one(packed, copy, tmp_path, stock):
    split(copy)
    model = stock_model(copy, dtype=torch.bfloat16) if stock else load_model(copy, "bfloat16")[0]
    model.save_pretrained(tmp_path / "one")
    assert (tmp_path / "one/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()


def test_saving_into_many_shards_and_back_gives_the_same_bytes(packed, tmp_path):
    stock_model(packed, dtype=torch.bfloat16).save_pretrained(tmp_path / "many", max_shard_size="300KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    stock_model(tmp_path / "many", dtype=torch.bfloat16).save_pretrained(tmp_path / "one")
    assert (tmp_path / "one/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()


def test_saving_gives_the_same_configuration(packed, tmp_path):
    stock_model(packed, dtype=torch.bfloat16).save_pretrained(tmp_path / "once")
    assert (tmp_path / "once/config.json").read_bytes() == (packed / "config.json").read_bytes()
    stock_model(tmp_path / "once", dtype=torch.bfloat16).save_pretrained(tmp_path / "twice")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")


def test_a_configuration_as_on_the_hub_is_filled_in_once(copy, tmp_path):
    config = read_config(copy)
    config["torch_dtype"] = config.pop("dtype")
    del config["transformers_version"], config["text_config"]["rope_parameters"], config["text_config"]["layer_types"]
    config["text_config"]["rope_theta"] = 10000
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stock_model(copy, dtype="auto").save_pretrained(tmp_path / "once")
    stock_model(tmp_path / "once", dtype="auto").save_pretrained(tmp_path / "twice")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")
    assert read_config(tmp_path / "once")["quantization_config"] == config["quantization_config"]
    assert read_config(tmp_path / "once")["dtype"] == "bfloat16"


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


def refused(folder: Path, stock: bool) -> str:
    with pytest.raises(UserError) as caught:
        stock_model(folder) if stock else load_model(folder, "float32")
    return str(caught.value)


both_ways = pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])


@both_ways
def test_an_unknown_codec_is_refused(copy, stock):
    config = read_config(copy)
    config["quantization_config"]["codecs"]["affine4g64"]["kind"] = "afine"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = refused(copy, stock)
    assert "quantization_config.codecs.affine4g64.kind: unknown codec 'afine'" in said and "affine" in said


@both_ways
def test_a_truncated_shard_is_refused(copy, stock):
    shard = split(copy)[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    said = refused(copy, stock)
    assert shard.name in said and "truncated" in said


@both_ways
def test_a_missing_shard_is_refused(copy, stock):
    shard = split(copy)[1]
    shard.unlink()
    said = refused(copy, stock)
    assert shard.name in said and "No such file" in said


def narrowed(name: str, weight: torch.Tensor) -> torch.Tensor:
    return (weight[:, :126] if "down_proj" in name else weight[:126]).clone()


@both_ways
def test_a_code_behind_the_end_of_a_row_is_refused(base, tmp_path, stock):
    base = shutil.copytree(base, tmp_path / "base")
    config = read_config(base)
    config["text_config"]["intermediate_size"] = 126  # of 3 bits each: the last byte of a row has bits to spare
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    change(base, lambda w: w.update({n: narrowed(n, t) for n, t in w.items() if ".mlp." in n}))
    (tmp_path / "packed").mkdir()
    codecs = resolve_codecs(config, {"*": affine(4, 64), "mlp.down": affine(3, 64)})
    pack_checkpoint(base, tmp_path / "packed", codecs, solver="hqq")
    load_model(tmp_path / "packed", "float32")
    down = "language_model.model.layers.1.mlp.down_proj.weight.codes"
    change(tmp_path / "packed", lambda w: w[down][3].__setitem__(-1, 0xFF))
    said = refused(tmp_path / "packed", stock)
    assert "layers.1.mlp.down_proj.weight.codes: hold more than the weight's columns" in said


@both_ways
@pytest.mark.parametrize("part", ["scale_range", "zero_range"])
def test_a_range_of_scales_in_8_bits_that_is_not_finite_is_refused(base, tmp_path, stock, part):
    codec = Affine(bits=4, group_size=64, meta_bits=8)
    pack_checkpoint(base, tmp_path, resolve_codecs(read_config(base), {"*": codec}), solver="hqq")
    change(tmp_path, lambda w: w[f"{UP}.{part}"][2].fill_(float("nan")))
    assert f"up_proj.weight.{part}: holds a number that is not finite" in refused(tmp_path, stock)
