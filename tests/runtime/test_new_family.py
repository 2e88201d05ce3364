"""The seam: a second family, from the two files of docs/extending/family.md, goes through the whole program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluate.decoding.audio_batches import make_segment_audio
from evaluate.decoding.generation import translator
from quantize.calibration.folding import Folding
from quantize.calibration.layerwise import LayerwiseModel
from quantize.packing.pack import pack_checkpoint
from quantize.ranking.sensitivity import encode_swaps, swapped_codecs
from quantize.ranking.sweep import sweep_batch
from quantize.rehearsal.random_checkpoint import with_layers
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import FAMILIES, family_of, read_config, tensors
from submission.model.forecast import companion_files, forecast, resolve_codecs
from submission.runtime.families import RUNTIMES
from submission.runtime.loading import load_for_inference, load_model
from submission.runtime.loss import make_batch, measure_losses
from submission.runtime.packed import PackedEmbedding, PackedLinear, prepack_linears
from submission.runtime.prompt import build_inputs, collate, encode, extract_features, render_prompt, window_samples
from submission.runtime.quantizer import packed_layer
from submission.system.campaign import read_campaign
from submission.system.recipe.decoding_options import DecodeOptions
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from submission.text.corpus import Utterance
from tests.support.family_page import code_blocks, load_module
from tests.support.finetuning import DECODER_OPTIONS
from tests.support.toy_model import ToySpeechForConditionalGeneration, register_with_transformers, write_checkpoint
from train.batches import collate_targets, feature_bytes
from train.bench.full_size import make_batch as make_random_batch
from train.model import TargetLoss, load_adapted, target_modules

RULES = {"linears": Affine(bits=4, group_size=64), "embedding": Affine(bits=4, group_size=32)}
HEAD, EMBEDDING = "lm_head.weight", "model.decoder.embed_tokens.weight"
GERMAN = "translate to German"


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_with_transformers()
    with pytest.MonkeyPatch.context() as patch:
        shapes = load_module("submission/model/families/toy_speech.py")
        patch.setitem(FAMILIES, "toy_speech", shapes.FAMILY)
        runtime = load_module("submission/runtime/families/toy_speech.py")
        patch.setitem(RUNTIMES, "toy_speech", runtime.RUNTIME)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def packed(base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack_checkpoint(base, out, resolve_codecs(read_config(base), RULES), solver="hqq")
    return out


def waveform(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def examples(processor):
    targets = ("der Hund schläft", "die Katze")
    audio = [extract_features(processor, waveform(samples)) for samples in (5_000, 9_600)]
    return [encode(processor, a, GERMAN, target, "<end>") for a, target in zip(audio, targets, strict=True)]


def test_the_arithmetic_gives_the_tensors_of_the_class_and_a_tied_head_is_stored_once(base):
    config = read_config(base)
    with torch.device("meta"):
        model = ToySpeechForConditionalGeneration(ToySpeechForConditionalGeneration.config_class.from_dict(config))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    family = family_of(config)
    tied = family.tied_weights(config)
    assert tied == {HEAD: EMBEDDING}
    assert {family.module_name(spec.name): spec.shape for spec in tensors(config)} == {
        name: shape for name, shape in shapes.items() if name not in tied
    }
    assert read_checkpoint(base).located.keys() == {spec.name for spec in tensors(config)}


def test_the_two_sides_are_registered_under_the_same_names():
    assert FAMILIES.keys() == RUNTIMES.keys()
    for name in FAMILIES:
        assert FAMILIES[name].name == RUNTIMES[name].name == name
        assert set(FAMILIES[name].droppable_roles) <= set(FAMILIES[name].roles)


def test_the_forecast_is_exact(base, packed):
    other = sum(path.stat().st_size for path in companion_files(base))
    expected = forecast(read_config(base), RULES, other_bytes=other)
    assert sum(path.stat().st_size for path in packed.iterdir()) == expected.total_bytes
    assert expected.parameters == sum(
        p.numel() for p in ToySpeechForConditionalGeneration.from_pretrained(base).parameters()
    )


def test_fewer_layers_are_rehearsed(base):
    assert {spec.layer for spec in tensors(with_layers(read_config(base), 1))} == {None, 0}


def test_one_packed_weight_serves_look_ups_and_logits(packed):
    model, _ = load_model(packed, "float32")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, PackedEmbedding) and isinstance(head, PackedLinear)
    assert head.weight is embedding.weight
    states = torch.randn(3, 64)
    torch.testing.assert_close(head(states), states @ embedding(torch.arange(64)).T)


def test_a_packed_model_saved_again_holds_the_tied_weight_once(packed, tmp_path):
    model, processor = load_model(packed, "float32")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert read_checkpoint(tmp_path).located.keys() == read_checkpoint(packed).located.keys()
    again, _ = load_model(tmp_path, "float32")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_derived_class_of_embedding_is_never_replaced_by_a_plain_look_up():
    class Scaled(torch.nn.Embedding):
        pass

    with pytest.raises(TypeError, match="no packed counterpart of Scaled"):
        packed_layer(Scaled(64, 64), Affine(bits=4, group_size=64), torch.float32)


def test_the_dequantized_model_computes_the_same(packed):
    model, processor = load_model(packed, "float32")
    inputs = collate(examples(processor), processor.tokenizer.pad_token_id, "right", labels=False)
    with torch.inference_mode():
        expected = model(**inputs).logits
        torch.testing.assert_close(model.dequantize()(**inputs).logits, expected)


def test_a_batch_is_padded_and_the_audio_follows_the_text(packed):
    _, processor = load_model(packed, "float32")
    first, second = examples(processor)
    assert (first.audio.positions, second.audio.positions) == (8, 15)
    audio = processor.tokenizer.convert_tokens_to_ids("<audio>")
    assert first.input_ids.tolist()[3:12] == [audio] * 8 + [processor.tokenizer.convert_tokens_to_ids("<turn>")]
    batch = collate_targets([first, second], processor.tokenizer.pad_token_id)
    assert batch["audio_frames"].shape == (2, 15, 640) and batch["audio_frames_mask"].sum(dim=1).tolist() == [8, 15]
    left = build_inputs(processor, [waveform(5_000), waveform(9_600)], [GERMAN] * 2)
    assert left["attention_mask"][0, 0] == 0 and "labels" not in left
    with pytest.raises(UserError, match="18 s"):
        extract_features(processor, waveform(window_samples(processor) + 1))


def test_features_to_keep_are_counted_by_length(packed):
    _, processor = load_model(packed, "float32")
    fields = {"id": "a/0", "audio": "a.wav", "start": 0, "end": 5_000, "source": "", "target": "", "recording": "a.wav"}
    utterance = Utterance(**fields, source_lang="en", target_lang="de")
    assert feature_bytes([utterance], processor) == examples(processor)[0].audio.tensors["audio_frames"].nbytes


def test_the_loss_does_not_depend_on_the_batch_and_training_has_the_same(base):
    model, processor = load_model(base, "float32")
    pad = processor.tokenizer.pad_token_id
    apart, together = (
        measure_losses(model, examples(processor), pad, batch_size=size, label="loss") for size in (1, 2)
    )
    torch.testing.assert_close(apart.sums, together.sums, rtol=1e-5, atol=0)
    batch = collate_targets(examples(processor), pad)
    with torch.no_grad():
        trained = TargetLoss(model)(model, batch, batch.pop("labels"))
    assert float(trained) == pytest.approx(float(together.sums.sum() / together.tokens.sum()), rel=1e-5)


def test_adapters_are_trained_on_linears_and_never_on_a_tied_embedding(base):
    config = read_config(base)
    assert len(target_modules(config, ("attn", "mlp"))) == 2 * 7
    with pytest.raises(UserError, match="names no linear"):
        target_modules(config, ("embedding",))
    model = load_adapted(base, DECODER_OPTIONS)
    batch = make_random_batch(config, 2, torch.Generator().manual_seed(0))
    TargetLoss(model.get_base_model())(model, batch, batch.pop("labels")).backward()
    assert all((p.grad is not None) == (".lora_" in name) for name, p in model.named_parameters())


def test_calibration_runs_layer_by_layer_and_folding_changes_nothing(base, tmp_path):
    config = read_config(base)
    model = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    _, processor = load_model(base, "float32")
    batch = collate(examples(processor), processor.tokenizer.pad_token_id, "right", labels=False)
    parts = [(part.stack, part.layer) for part in model.run([batch], [], lambda weight, number, inputs: None)]
    assert parts == [("text", None), ("text", 0), ("text", 1)]
    shapes = {spec.name: spec.shape for spec in tensors(config)}
    groups = family_of(config).smoothing_groups(config)
    scales = {group.name: torch.full((shapes[group.sources[0]][0],), 2.0) for group in groups}
    pack_checkpoint(base, tmp_path, {}, solver="hqq", folding=Folding(scales, config, ()))
    plain, folded = (load_model(folder, "float32")[0] for folder in (base, tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(folded(**batch).logits, plain(**batch).logits, rtol=1e-4, atol=1e-4)


def test_layers_are_ranked(base, packed):
    ranked = Override(role="mlp", layers="sensitivity", count=1, codec=Affine(bits=2, group_size=64))
    chosen = QuantizeOptions(solver="hqq", codecs=RULES, overrides=(ranked,))
    model, processor = load_model(packed, "float32")
    swaps = encode_swaps(base, model, swapped_codecs(read_config(base), chosen), "hqq")
    assert swaps.stack == "model.decoder.layers" and sorted(swaps.by_layer) == [0, 1]
    batch = make_batch(examples(processor), processor.tokenizer.pad_token_id, "cpu")
    sums = sweep_batch(model, swaps, batch)
    with torch.inference_mode(), swaps.apply(model, 1):
        pad = processor.tokenizer.pad_token_id
        expected = measure_losses(model, examples(processor), pad, batch_size=2, label="loss").sums
    torch.testing.assert_close(sums[2].sort().values, expected.sort().values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_few_tokens_are_generated(packed, dtype):
    model, processor = load_for_inference(packed, dtype)
    settings = DecodeOptions(batch_size=2, num_beams=1, max_new_tokens=4, dtype=dtype)
    with translator(model, processor, GERMAN, settings, "<end>") as prompted:
        utterances = [make_segment_audio(processor, str(n), waveform(n)) for n in (5_000, 9_600)]
        made = prompted.generate(utterances)
        alone = prompted.generate(utterances[:1])
    assert [one.tokens <= 4 for one in made] == [True, True]
    assert dtype != "float32" or alone[0] == made[0]
    assert prepack_linears(model) >= 0


def test_the_campaign_of_the_page_is_read_and_its_prompt_is_the_familys(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(code_blocks()["submission/campaigns/toy.toml"], encoding="utf-8")
    campaign = read_campaign(str(path))
    assert campaign.model.architecture == "toy_speech"
    assert render_prompt(campaign.prompt, campaign.pairs[0].target_language) == GERMAN
