"""Two layers of the published shapes, one of each kind, and the whole vocabulary: our logits are the library's.

    python -m pytest -m slow tests/runtime/test_real_shapes.py

Weights are random, 1.5 billion of them: 4 GB of disk, 7 GiB of memory, minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM, PreTrainedModel

from quantize.calibration.layerwise import LayerwiseModel
from quantize.packing.pack import pack_checkpoint
from quantize.rehearsal.random_checkpoint import make_checkpoint
from submission.model.checkpoint import WEIGHTS
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config, shipped_config, tensors
from submission.model.forecast import resolve_codecs
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_weights
from submission.runtime.loss import make_batch
from submission.runtime.packed import PackedEmbedding, PackedLinear
from submission.runtime.prompt import Example

pytestmark = pytest.mark.slow
DTYPE = torch.bfloat16
RULES = {"*": Affine(bits=4, group_size=128)}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real-shapes")
    whole = shipped_config("gemma-4-12B-it")
    make_checkpoint(folder, family_of(whole).with_layers(whole, 2))
    yield folder
    (folder / "model-00001-of-00001.safetensors").unlink()


@pytest.fixture(scope="module")
def inputs(base) -> dict[str, torch.Tensor]:
    """Two utterances of different lengths: text, audio, text."""
    config, generator = read_config(base), torch.Generator().manual_seed(0)
    runtime, examples = runtime_of(config), []
    for seconds in (0.2, 0.4):
        audio = runtime.noise(config, seconds, generator)
        text = torch.randint(family_of(config).ordinary_tokens(config), (8,), generator=generator)
        ids = torch.cat([text[:4], torch.full((audio.positions,), runtime.audio_token(config)), text[4:]])
        examples.append(Example(input_ids=ids, prompt_tokens=len(ids) - 4, audio=audio))
    return make_batch(examples, 0, "cpu").inputs


def stock(folder: Path) -> PreTrainedModel:
    return AutoModelForMultimodalLM.from_pretrained(folder, dtype=DTYPE).eval()


def ours(folder: Path) -> PreTrainedModel:
    return load_weights(folder, DTYPE)


@torch.inference_mode()
def logits_of(load: Callable[[Path], PreTrainedModel], folder: Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a model that is in memory for this call alone."""
    return load(folder)(**inputs, use_cache=False).logits


def test_both_kinds_of_layers_and_the_whole_vocabulary_are_there(base):
    shapes = {spec.name.rpartition("layers.")[2]: spec.shape for spec in tensors(read_config(base))}
    assert shapes["model.language_model.embed_tokens.weight"] == (262_144, 3840)
    assert shapes["0.self_attn.v_proj.weight"] == (2048, 3840) and "1.self_attn.v_proj.weight" not in shapes
    assert shapes["1.self_attn.q_proj.weight"] == (8192, 3840) and shapes["1.self_attn.k_proj.weight"] == (512, 3840)


def test_a_plain_checkpoint_gives_the_librarys_logits(base, inputs):
    expected = logits_of(stock, base, inputs)
    assert expected.shape[-1] == 262_144 and expected.std() > 0
    assert torch.equal(logits_of(ours, base, inputs), expected)


@torch.no_grad()
def test_layer_by_layer_gives_the_librarys_logits(base, inputs):
    model, outputs = LayerwiseModel(base, dtype=DTYPE, device="cpu"), []
    for output in model.run([inputs], [], lambda *_: None):
        outputs = [states.clone() for states in output.states]
    with model.behind() as finish:
        states = finish(inputs, {"text": outputs[0]})
    with model.head() as logits:
        found = logits(states)
    assert torch.equal(found, logits_of(stock, base, inputs))


def test_a_packed_model_gives_the_logits_of_the_weights_that_it_stands_for(base, inputs, tmp_path):
    """Through our loading, through the stock class, and as the plain model that transformers makes of it."""
    pack_checkpoint(base, tmp_path, resolve_codecs(read_config(base), RULES), solver="hqq")
    found = logits_of(stock, tmp_path, inputs)
    assert torch.equal(logits_of(ours, tmp_path, inputs), found)
    model = stock(tmp_path)
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    assert isinstance(model.get_input_embeddings(), PackedEmbedding)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    plain = logits_of(lambda _: model.dequantize(), tmp_path, inputs)
    torch.testing.assert_close(found, plain, rtol=0, atol=0.02 * float(plain.std()))
    (tmp_path / WEIGHTS).unlink()
