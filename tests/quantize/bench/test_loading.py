from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quantize.bench.loading import _read, bench_loading, loading_text
from quantize.packing.pack import pack_checkpoint
from quantize.rehearsal.random_checkpoint import make_checkpoint
from submission.errors import UserError
from submission.model.codecs import Affine
from submission.model.forecast import resolve_codecs

CONFIG = {
    "model_type": "qwen2_audio",
    "architectures": ["Qwen2AudioForConditionalGeneration"],
    "dtype": "bfloat16",
    "audio_config": {
        "model_type": "qwen2_audio_encoder",
        "d_model": 128,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 256,
        "encoder_layers": 1,
        "max_source_positions": 100,
        "num_mel_bins": 80,
    },
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 1024,
        "intermediate_size": 1024,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "vocab_size": 60_000,
    },
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    make_checkpoint(folder / "plain", CONFIG)
    (folder / "packed").mkdir()
    codecs = resolve_codecs(CONFIG, {"*": Affine(bits=4, group_size=128)})
    pack_checkpoint(folder / "plain", folder / "packed", codecs, solver="hqq")
    return folder / "plain", folder / "packed"


def test_a_packed_model_takes_a_share_of_the_memory_and_every_figure_is_there(pair):
    record = bench_loading(*pair, runs=1)
    assert record["layers"] == 1
    assert record["files_bytes"]["plain"] > 3.7 * record["files_bytes"]["packed"]
    for state in ("warm", "cold"):
        part = record[state]
        assert part["passed"]["resident_bytes"] and 0.2 < part["ratios"]["resident_bytes"] < 0.35
        # Every page of every weight is counted.
        assert part["plain"]["resident_bytes"] > record["files_bytes"]["plain"]
        assert 0 < part["packed"]["mapped_seconds"] <= part["packed"]["seconds"]
    assert json.loads(json.dumps(record)) == record
    assert "memory" in loading_text(record)


def test_folders_of_the_wrong_kind_are_refused_before_anything_is_loaded(pair):
    plain, packed = pair
    for wrong in ((packed, packed), (plain, plain), (packed, plain)):
        with pytest.raises(UserError, match="is the other kind of model"):
            bench_loading(*wrong)


@pytest.mark.parametrize("length", [1, 7, 8, 4097])
def test_a_tensor_of_any_length_and_alignment_can_be_read(length):
    for start in (0, 1, 3):
        _read(torch.zeros(length + 3, dtype=torch.bfloat16)[start : start + length])
