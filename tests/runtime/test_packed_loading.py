"""Loading a packed model directly gives what stock `from_pretrained` gives, in both families."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from quantize.packing.pack import pack_checkpoint
from submission.miniature.model import SMALL
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_weights
from submission.store.digests import tree_digest
from tests.support.tiny_gemma import write_gemma
from tests.support.tiny_qwen import build_checkpoint

LINEARS = {"linears": Affine(bits=4, group_size=32)}
EMBEDDING = {"embedding": Affine(bits=8, group_size=32)}
CONVERSIONS = "_weight_conversions"
"""Where the library keeps how it renamed what it read; without it a model is saved by the names on the hub."""
WHICH = [f"{family} {name}" for family in ("qwen2_audio", "gemma4_unified") for name in ("linears", "all")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Packed models by name: of both families, with the embedding packed or not, which in Gemma 4 is the head too."""
    bases = {
        "qwen2_audio": build_checkpoint(tmp_path_factory.mktemp("qwen"), ["the cat", "die Katze"], SMALL, 1),
        "gemma4_unified": write_gemma(tmp_path_factory.mktemp("gemma")),
    }
    made = {}
    for family, base in bases.items():
        for name, rules in (("linears", LINEARS), ("all", LINEARS | EMBEDDING)):
            out = made[f"{family} {name}"] = tmp_path_factory.mktemp("packed")
            pack_checkpoint(base, out, resolve_codecs(read_config(base), rules), solver="hqq")
    return made


def stock(folder: Path, dtype: torch.dtype):
    model_class = runtime_of(read_config(folder)).model_class
    return model_class.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def tensors_of(model) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer, also those that no file holds, by each of its names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def shared_names(tensors: dict[str, torch.Tensor]) -> list[list[str]]:
    """Return the names of tensors that are one object."""
    by_object = sorted(tensors, key=lambda name: (id(tensors[name]), name))
    return sorted(list(names) for _, names in groupby(by_object, key=lambda name: id(tensors[name])))


def described(model) -> dict[str, Any]:
    """Return what is known of a model besides its tensors."""
    return {
        "modules": {name: (type(module), set(vars(module)) - {CONVERSIONS}) for name, module in model.named_modules()},
        "training": {module.training for module in model.modules()},
        "config": model.config.to_dict(),
        "folder": str(model.config.name_or_path),
        "generation": model.generation_config.to_dict(),
        "tied": model.all_tied_weights_keys,
        "quantizer": (type(model.hf_quantizer), model.is_quantized, model.quantization_method),
        "state": {name: (t.dtype, t.shape, t.requires_grad) for name, t in tensors_of(model).items()},
        "shared": shared_names(tensors_of(model)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("which", WHICH)
def test_the_model_is_that_of_stock_loading(folders, which, dtype):
    ours, theirs = load_weights(folders[which], dtype), stock(folders[which], dtype)
    expected, found = tensors_of(theirs), tensors_of(ours)
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])]
    assert described(ours) == described(theirs)


@pytest.mark.parametrize("which", WHICH)
def test_the_model_is_saved_as_after_stock_loading(folders, which, tmp_path):
    load_weights(folders[which], torch.bfloat16).save_pretrained(tmp_path / "ours")
    stock(folders[which], torch.bfloat16).save_pretrained(tmp_path / "theirs")
    assert tree_digest(tmp_path / "ours") == tree_digest(tmp_path / "theirs")


def test_buffers_that_no_file_holds_are_computed(folders):
    model = load_weights(folders["qwen2_audio all"], "float32")
    inverse = model.get_buffer("model.language_model.rotary_emb.inv_freq")
    size = 2 * len(inverse)
    base = model.config.text_config.rope_parameters["rope_theta"]
    assert torch.allclose(inverse, base ** -(torch.arange(0, size, 2) / size))
    assert not [name for name, tensor in tensors_of(model).items() if tensor.is_meta]


def test_settings_of_generation_come_from_the_folder(folders, tmp_path):
    folder = Path(shutil.copytree(folders["qwen2_audio all"], tmp_path / "copy"))
    GenerationConfig(top_k=7, do_sample=True).save_pretrained(folder)
    model = load_weights(folder, "float32")
    assert model.generation_config.top_k == 7
    assert model.generation_config.to_dict() == stock(folder, torch.float32).generation_config.to_dict()


def test_files_may_use_the_names_of_the_loaded_model(folders, tmp_path):
    folder = Path(shutil.copytree(folders["qwen2_audio all"], tmp_path / "copy"))
    path, module_name = folder / "model.safetensors", family_of(read_config(folder)).module_name
    stored = load_file(path)
    save_file({module_name(name): tensor for name, tensor in stored.items()}, path, metadata={"format": "pt"})
    assert read_checkpoint(folder).located.keys() == stored.keys()
    ours, before = load_weights(folder, "float32"), load_weights(folders["qwen2_audio all"], "float32")
    assert all(torch.equal(tensor, tensors_of(before)[name]) for name, tensor in tensors_of(ours).items())
