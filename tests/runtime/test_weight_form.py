"""Plain weights where a GPU has room for them, codes where it has none: which, and that the numbers stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from quantize.packing.pack import pack_checkpoint
from submission.miniature.model import SMALL
from submission.model.codecs.affine import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime import weight_form
from submission.runtime.loading import load_weights
from submission.runtime.packed import PackedTensor, plain_bytes
from submission.runtime.weight_form import DECODING_BYTES, free_bytes, has_room, prepare_weights
from tests.support.tiny_qwen import build_checkpoint

GB = 10**9
QWEN2_AUDIO = int(16.7 * GB)
"""Plain weights of all that is packed of Qwen2-Audio-7B."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("form")
    base, out = root / "base", root / "packed"
    build_checkpoint(base, ["a few words"], SMALL, 1)
    out.mkdir()
    codecs = resolve_codecs(read_config(base), {"linears": Affine(bits=4, group_size=64)})
    pack_checkpoint(base, out, codecs, solver="hqq")
    return out


def kept(model: PreTrainedModel) -> list[PackedTensor]:
    return [module for module in model.modules() if isinstance(module, PackedTensor)]


@pytest.mark.parametrize(("free", "room"), [(24 * GB, False), (32 * GB, True), (80 * GB, True), (None, False)])
def test_the_real_model_becomes_plain_on_cards_with_room_beside_decoding(free, room):
    assert has_room(QWEN2_AUDIO, free) == room


def test_with_room_weights_are_decoded_once_and_it_is_said(packed, capsys):
    model = load_weights(packed, "bfloat16")
    expected = [weight.dequantize(torch.bfloat16) for weight in kept(model)]
    plain = plain_bytes(model)
    prepared = prepare_weights(model, plain + DECODING_BYTES)
    assert not kept(prepared)
    found = {p.shape for p in prepared.parameters()}
    assert all(weight.shape in found for weight in expected)
    assert "decoding: weights decoded once" in capsys.readouterr().err


def test_without_room_codes_stay_and_the_kernel_takes_them(packed, capsys):
    model = load_weights(packed, "bfloat16")
    prepared = prepare_weights(model, plain_bytes(model) + DECODING_BYTES - 1)
    assert any(weight.prepacked for weight in kept(prepared))
    told = capsys.readouterr().err
    assert "codes stay packed" in told
    assert "no kernel" not in told


def test_without_room_and_kernel_it_says_that_it_will_be_slow(packed, capsys, monkeypatch):
    monkeypatch.setattr(weight_form, "SMALL_BYTES", 0)
    model = prepare_weights(load_weights(packed, "float32"), 0)
    assert kept(model)
    assert "no kernel passed its proof here" in capsys.readouterr().err


def test_on_a_processor_nothing_is_chosen_by_memory_and_nothing_said(packed, capsys):
    model = load_weights(packed, "bfloat16")
    assert free_bytes(model.device) is None
    assert kept(prepare_weights(model, None))
    assert capsys.readouterr().err == ""


@pytest.mark.gpu
def test_on_a_gpu_both_forms_give_nearly_the_same_logits(packed):
    ids = torch.arange(8, device="cuda")[None]
    logits = []
    for free in (0, None, 1 << 40):
        model = prepare_weights(load_weights(packed, "bfloat16", "cuda"), free)
        with torch.inference_mode():
            logits.append(model(input_ids=ids).logits.float())
    assert torch.allclose(logits[0], logits[2], atol=0.1)
