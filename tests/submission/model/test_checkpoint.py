from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.model.checkpoint import packed_config, parse_quantization, read_checkpoint
from submission.model.codecs import Affine, Codec
from submission.model.families import stored_dtype, tensors
from submission.model.forecast import resolve_codecs, stored_parts
from submission.model.safetensors_header import file_bytes, header_bytes
from submission.store.digests import canonical_json

CODEC = Affine(bits=3, group_size=64)
CONFIG = {
    "model_type": "qwen2_audio",
    "audio_config": {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "num_mel_bins": 8,
    },
    "text_config": {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    | {"intermediate_size": 32, "vocab_size": 40},
    "dtype": "bfloat16",
}
UP = "language_model.model.layers.0.mlp.up_proj.weight"


def layout(config: dict, codecs: dict[str, Codec]) -> dict:
    return {
        name: part
        for spec in tensors(config)
        for name, part in stored_parts(spec, codecs.get(spec.name), stored_dtype(config)).items()
    }


def write_folder(folder: Path, tensors_of_file: dict, config: dict, file: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    head = header_bytes(tensors_of_file)
    (folder / file).write_bytes(head + bytes(file_bytes(tensors_of_file) - len(head)))
    (folder / "config.json").write_text(canonical_json(config), encoding="utf-8")
    return folder


def packed_folder(folder: Path, change=lambda stored: None) -> Path:
    codecs = resolve_codecs(CONFIG, {"*": CODEC})
    stored = layout(CONFIG, codecs)
    change(stored)
    return write_folder(folder, stored, packed_config(CONFIG, codecs))


def test_a_plain_checkpoint_is_read_whole(tmp_path):
    checkpoint = read_checkpoint(write_folder(tmp_path, layout(CONFIG, {}), CONFIG))
    assert checkpoint.codecs == {}
    assert [checkpoint.located[spec.name].shape for spec in tensors(CONFIG)] == [s.shape for s in tensors(CONFIG)]


def test_shards_and_the_loaded_models_names_are_read_too(tmp_path):
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head", "lm_head"
        ): part
        for name, part in layout(CONFIG, {}).items()
    }
    names = sorted(renamed)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, chosen in files.items():
        write_folder(tmp_path, {name: renamed[name] for name in chosen}, CONFIG, file)
    index = {"weight_map": {name: file for file, chosen in files.items() for name in chosen}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert set(read_checkpoint(tmp_path).located) == {spec.name for spec in tensors(CONFIG)}


def test_a_packed_model_says_which_codec_each_weight_has(tmp_path):
    checkpoint = read_checkpoint(packed_folder(tmp_path))
    assert checkpoint.codecs[UP] == CODEC
    assert checkpoint.located[f"{UP}.codes"].shape == (32, 9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{UP}.scale"), f"1 tensors missing: {UP}.scale"),
        (lambda t: t.update({f"{UP}.norm": ("BF16", (1,))}), f"1 tensors not part of this model: {UP}.norm"),
        (
            lambda t: t.update({f"{UP}.codes": ("U8", (32, 10))}),
            f"{UP}.codes: expected the shape [32, 9], got [32, 10]",
        ),
        (lambda t: t.update({f"{UP}.zero": ("BF16", (32, 1))}), f"{UP}.zero: expected the dtype F16, got BF16"),
    ],
)
def test_a_packed_model_with_a_wrong_tensor_is_refused_by_its_name(tmp_path, change, said):
    with pytest.raises(UserError) as caught:
        read_checkpoint(packed_folder(tmp_path, change))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version: expected 1, got 2"),
        ({"quant_method": "hqq"}, "expected 'packed', got 'hqq'"),
        ({"codecs": {}}, "unknown codec 'affine3g64'"),
        ({"weights": []}, "expected the objects"),
    ],
)
def test_a_malformed_quantization_section_is_refused(change, said):
    section = packed_config(CONFIG, resolve_codecs(CONFIG, {"*": CODEC}))["quantization_config"]
    with pytest.raises(UserError) as caught:
        parse_quantization(section | change)
    assert said in str(caught.value)


def test_a_packed_weight_that_the_model_lacks_is_refused(tmp_path):
    codecs = resolve_codecs(CONFIG, {"*": CODEC}) | {"language_model.model.layers.9.mlp.up_proj.weight": CODEC}
    with pytest.raises(UserError, match="names weights that the model lacks"):
        read_checkpoint(write_folder(tmp_path, layout(CONFIG, {}), packed_config(CONFIG, codecs)))


def test_a_packed_norm_is_refused(tmp_path):
    config = packed_config(CONFIG, {"language_model.model.norm.weight": CODEC})
    with pytest.raises(UserError, match="norm is never packed"):
        read_checkpoint(write_folder(tmp_path, layout(CONFIG, {}), config))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_checkpoint(tmp_path / "none")


def test_an_index_that_leaves_its_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(canonical_json(CONFIG), encoding="utf-8")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}', encoding="utf-8")
    with pytest.raises(UserError, match="which is no file of this folder"):
        read_checkpoint(tmp_path)


def test_an_adapter_beside_the_weights_is_refused_by_every_reader_of_models(tmp_path):
    shutil.copytree(Path(__file__).parents[3] / "submission/miniature/base", tmp_path / "model")
    assert read_checkpoint(tmp_path / "model").located
    (tmp_path / "model" / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds a PEFT adapter \(adapter_config.json\).*; merge it into the weights"):
        read_checkpoint(tmp_path / "model")
