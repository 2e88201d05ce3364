"""Gemma 4 Unified at run time: inputs and logits as the library's own, packed, with a tied and scaled embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForMultimodalLM,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedProcessor,
)
from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor

from evaluate.decoding.audio_batches import make_segment_audio
from evaluate.decoding.generation import translator
from quantize.calibration.folding import Folding
from quantize.calibration.layerwise import LayerwiseModel
from quantize.packing.pack import pack_checkpoint
from quantize.ranking.sensitivity import encode_swaps, swapped_codecs
from quantize.ranking.sweep import sweep_batch
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config, tensors
from submission.model.forecast import companion_files, forecast, resolve_codecs
from submission.runtime.loading import load_for_inference, load_model, load_processor
from submission.runtime.loss import make_batch, measure_losses
from submission.runtime.packed import PackedEmbedding, PackedLinear, ScaledEmbedding
from submission.runtime.prompt import build_inputs, collate, encode, extract_features
from submission.system.recipe.decoding_options import DecodeOptions
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from tests.support.finetuning import DECODER_OPTIONS
from tests.support.tiny_gemma import TEMPLATE, write_gemma
from train.batches import collate_targets
from train.bench.full_size import make_batch as make_random_batch
from train.model import TargetLoss, load_adapted, target_modules

RULES = {"linears": Affine(bits=4, group_size=32), "embedding": Affine(bits=8, group_size=32)}
GERMAN = "Translate the speech into German"
END = "<turn|>"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_gemma(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def packed(base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack_checkpoint(base, out, resolve_codecs(read_config(base), RULES), solver="hqq")
    return out


@pytest.fixture(scope="module")
def processor(base):
    return load_processor(base)


def load_tensor(folder: Path, name: str) -> torch.Tensor:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return file.get_tensor(name)


def waveform(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def examples(processor):
    targets = ("der Hund schläft", "die Katze")
    audio = [extract_features(processor, waveform(samples)) for samples in (5_000, 19_200)]
    return [encode(processor, a, GERMAN, target, END) for a, target in zip(audio, targets, strict=True)]


class StockProcessor(Gemma4UnifiedProcessor):
    """The library's own, which does not check for its parts for images: they need torchvision, and are not called."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)


def stock_processor(processor) -> Gemma4UnifiedProcessor:
    extractor = Gemma4UnifiedAudioFeatureExtractor()
    return StockProcessor(extractor, None, processor.tokenizer, None, chat_template=TEMPLATE)


def stock_inputs(processor, samples):
    turns = [
        [{"role": "user", "content": [{"type": "text", "text": GERMAN}, {"type": "audio", "audio": waveform(n)}]}]
        for n in samples
    ]
    return stock_processor(processor).apply_chat_template(
        turns,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        enable_thinking=False,
        processor_kwargs={"padding": True},
    )


@pytest.mark.parametrize("samples", [(640,), (1,), (5_000, 19_200), (19_200, 5_000, 641)])
def test_inputs_are_those_of_the_stock_processor_token_for_token_and_sample_for_sample(processor, samples):
    stock = stock_inputs(processor, samples)
    ours = build_inputs(processor, [waveform(n) for n in samples], [GERMAN] * len(samples))
    assert ours.keys() == stock.keys() - {"mm_token_type_ids"}
    for name, tensor in ours.items():
        assert torch.equal(tensor.to(stock[name].dtype), stock[name]), name


def test_the_text_comes_before_the_audio_and_thinking_is_off(processor):
    example = encode(processor, extract_features(processor, waveform(1_281)), GERMAN)
    text = processor.tokenizer.decode(example.input_ids)
    audio = f"<|audio>{'<|audio|>' * 3}<audio|>"
    assert text == f"<bos><|turn>user\n{GERMAN}{audio}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"


def test_a_prompt_with_an_audio_token_of_its_own_is_refused(processor):
    with pytest.raises(UserError, match="expected 1"):
        encode(processor, extract_features(processor, waveform(640)), "say <|audio|> now")


def test_logits_through_our_loading_equal_those_of_transformers_and_of_its_inputs(base, processor):
    model, _ = load_model(base, "float32")
    stock = Gemma4UnifiedForConditionalGeneration.from_pretrained(base, dtype=torch.float32).eval()
    ours = build_inputs(processor, [waveform(5_000), waveform(19_200)], [GERMAN] * 2)
    with torch.inference_mode():
        expected = stock(**stock_inputs(processor, (5_000, 19_200))).logits
        assert torch.equal(model(**ours).logits, expected)


def test_a_saved_checkpoint_has_the_tensors_of_the_hub(base):
    located = read_checkpoint(base).located
    assert {name: place.shape for name, place in located.items()} == {
        s.name: s.shape for s in tensors(read_config(base))
    }
    assert not any("lm_head" in name for name in located)


def test_the_forecast_is_exact_and_every_tensor_counts_once(base, packed):
    other = sum(path.stat().st_size for path in companion_files(base))
    expected = forecast(read_config(base), RULES, other_bytes=other)
    assert sum(path.stat().st_size for path in packed.iterdir()) == expected.total_bytes
    stock = Gemma4UnifiedForConditionalGeneration.from_pretrained(base)
    buffers = sum(layer.layer_scalar.numel() for layer in stock.model.language_model.layers)
    assert expected.parameters == sum(p.numel() for p in stock.parameters()) + buffers


def test_a_packed_model_loads_by_the_stock_classes(packed):
    classes = (Gemma4UnifiedForConditionalGeneration, AutoModelForMultimodalLM)
    first, second = (kind.from_pretrained(packed, dtype=torch.float32).eval() for kind in classes)
    assert type(first) is type(second)
    inputs = build_inputs(load_processor(packed), [waveform(5_000)], [GERMAN])
    with torch.inference_mode():
        assert torch.equal(first(**inputs).logits, second(**inputs).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_packed_weight_serves_scaled_look_ups_and_logits(base, packed, dtype):
    model, processor = load_model(packed, dtype)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, PackedEmbedding) and isinstance(head, PackedLinear)
    assert head.weight is embedding.weight and embedding.scale == 8
    rows = embedding.weight.dequantize(model.dtype)
    torch.testing.assert_close(embedding(torch.arange(len(rows))), 8 * rows, rtol=0, atol=0)
    original = load_tensor(base, "model.language_model.embed_tokens.weight").to(model.dtype)
    torch.testing.assert_close(rows, original, rtol=0, atol=0.01)
    inputs = collate(examples(processor), processor.tokenizer.pad_token_id, "right", labels=False)
    with torch.inference_mode():
        logits = model(**inputs).logits
        plain = model.dequantize()
        assert type(plain.get_input_embeddings()) is ScaledEmbedding
        torch.testing.assert_close(
            plain(**inputs).logits, logits, rtol=1e-4, atol=1e-2 if dtype == "bfloat16" else 1e-5
        )


def test_a_packed_model_saved_again_is_the_same_and_still_tied(packed, tmp_path):
    model, _ = load_model(packed, "float32")
    model.save_pretrained(tmp_path)
    before, after = (read_checkpoint(folder).located for folder in (packed, tmp_path))
    assert before.keys() == after.keys() and not any("lm_head" in name for name in after)
    again = Gemma4UnifiedForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_system_for_speech_alone_loads_without_the_vision_embedder(base, tmp_path):
    model = Gemma4UnifiedForConditionalGeneration.from_pretrained(base)
    model.config.vision_config, model.model.embed_vision = None, None
    model.save_pretrained(tmp_path)
    for path in companion_files(base):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = read_config(tmp_path)
    family = family_of(config)
    assert config["vision_config"] is None and list(family.config_shape(config, "")) == []
    assert family.sizes(config).items() < family.sizes(read_config(base)).items()
    assert family.settings(config) == family.settings(read_config(base))
    whole, alone = (load_model(folder, "float32") for folder in (base, tmp_path))
    inputs = build_inputs(alone[1], [waveform(5_000)], [GERMAN])
    with torch.inference_mode():
        assert torch.equal(whole[0](**inputs).logits, alone[0](**inputs).logits)


def test_the_closed_description_takes_the_files_and_finds_what_disagrees(base):
    config, family = read_config(base), family_of(read_config(base))
    files = {n: json.loads((base / n).read_text()) for n in family.files if n.endswith("json") and (base / n).is_file()}
    for name, value in files.items():
        assert list(family.files[name].shape(value, "")) == [], name
    assert list(family.disagreements(config, files)) == []
    moved = config | {"audio_token_id": 7}
    assert [where for where, _ in family.disagreements(moved, files)] == ["tokenizer.json"]
    rule = files["tokenizer.json"] | {"normalizer": {"type": "Prepend", "prepend": "x"}}
    assert list(family.files["tokenizer.json"].shape(rule, ""))


def test_the_loss_does_not_depend_on_the_batch_and_training_has_the_same(base):
    model, processor = load_model(base, "float32")
    pad = processor.tokenizer.pad_token_id
    apart, together = (measure_losses(model, examples(processor), pad, batch_size=n, label="loss") for n in (1, 2))
    torch.testing.assert_close(apart.sums, together.sums, rtol=1e-5, atol=0)
    batch = collate_targets(examples(processor), pad)
    with torch.no_grad():
        trained = TargetLoss(model)(model, batch, batch.pop("labels"))
    assert float(trained) == pytest.approx(float(together.sums.sum() / together.tokens.sum()), rel=1e-5)


def test_adapters_are_trained_on_linears_and_never_on_the_tied_embedding(base):
    config = read_config(base)
    assert len(target_modules(config, ("attn", "mlp"))) == 3 * 7 - 1  # keys of the last layer serve as values
    with pytest.raises(UserError, match="names no linear"):
        target_modules(config, ("embedding",))
    model = load_adapted(base, DECODER_OPTIONS)
    batch = make_random_batch(config, 2, torch.Generator().manual_seed(0))
    TargetLoss(model.get_base_model())(model, batch, batch.pop("labels")).backward()
    assert all((p.grad is not None) == (".lora_" in name) for name, p in model.named_parameters())


def test_layer_by_layer_the_states_are_those_of_the_whole_model_and_folding_changes_nothing(base, tmp_path):
    config = read_config(base)
    layerwise = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    whole, processor = load_model(base, "float32")
    batch = collate(examples(processor), processor.tokenizer.pad_token_id, "right", labels=False)
    parts = list(layerwise.run([batch], [], lambda weight, number, inputs: None))
    assert [(part.stack, part.layer) for part in parts] == [("text", None), ("text", 0), ("text", 1), ("text", 2)]
    with torch.inference_mode(), layerwise.behind() as behind, layerwise.head() as head:
        states = behind(batch, {"text": parts[-1].states[0]})
        torch.testing.assert_close(head(states), whole(**batch).logits, rtol=1e-5, atol=1e-5)
    shapes = {spec.name: spec.shape for spec in tensors(config)}
    groups = family_of(config).smoothing_groups(config)
    scales = {group.name: torch.full((shapes[group.sources[0]][0],), 2.0) for group in groups}
    pack_checkpoint(base, tmp_path, {}, solver="hqq", folding=Folding(scales, config, ()))
    with torch.inference_mode():
        folded = load_model(tmp_path, "float32")[0](**batch).logits
        torch.testing.assert_close(folded, whole(**batch).logits, rtol=1e-4, atol=1e-4)


def test_layers_of_two_shapes_are_ranked(base, packed):
    ranked = Override(role="mlp", layers="sensitivity", count=1, codec=Affine(bits=2, group_size=32))
    chosen = QuantizeOptions(solver="hqq", codecs=RULES, overrides=(ranked,))
    model, processor = load_model(packed, "float32")
    swaps = encode_swaps(base, model, swapped_codecs(read_config(base), chosen), "hqq")
    assert sorted(swaps.by_layer) == [0, 1, 2]
    batch = make_batch(examples(processor), processor.tokenizer.pad_token_id, "cpu")
    sums = sweep_batch(model, swaps, batch)
    with torch.inference_mode(), swaps.apply(model, 2):
        pad = processor.tokenizer.pad_token_id
        expected = measure_losses(model, examples(processor), pad, batch_size=2, label="loss").sums
    torch.testing.assert_close(sums[3].sort().values, expected.sort().values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_few_tokens_are_generated_and_do_not_depend_on_the_batch(packed, dtype):
    model, processor = load_for_inference(packed, dtype)
    settings = DecodeOptions(batch_size=2, num_beams=1, max_new_tokens=4, dtype=dtype)
    with translator(model, processor, GERMAN, settings, END) as prompted:
        utterances = [make_segment_audio(processor, str(n), waveform(n)) for n in (5_000, 19_200)]
        made = prompted.generate(utterances)
        alone = prompted.generate(utterances[:1])
    assert [one.tokens <= 4 for one in made] == [True, True]
    assert dtype != "float32" or alone[0] == made[0]
