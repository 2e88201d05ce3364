"""Compute the batches and losses of one training step of the base model that has no encoder.

The prompt names the language before the audio, so each recording of a batch is trained with one language, drawn again
every time. Recognition is trained at the audio's positions inside the decoder: letters after `letter_layer` layers,
words after `word_layer`; in the first phase the layers above are not computed. The audio linear keeps its filters: at
the rate that the rest is trained with, they would be noise before anything is learned from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Gemma4UnifiedForConditionalGeneration, GemmaTokenizer, PreTrainedModel

from submission.miniature.curriculum import Features, TrainingExample, record_features
from submission.miniature.evaluation import BATCH_SIZE, Translate
from submission.miniature.gemma4 import (
    AUDIO,
    END,
    FRAME_SAMPLES,
    PAD,
    DecoderShape,
    build_gemma_model,
    make_feature_extractor,
    make_gemma_config,
    prompt_parts,
    save_gemma_checkpoint,
    train_gemma_tokenizer,
)
from submission.miniature.language import Sentence
from submission.miniature.model import LANGUAGES, token_id
from submission.miniature.training import JointModel, SpokenSymbols, batches_by_length, ctc_loss
from submission.runtime.families.family import generate
from submission.text.segments import SAMPLE_RATE

HIDDEN_FRAMES = 4
"""While translation is trained, up to so many neighbouring frames are silenced, twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFrames:
    """The frames of one recording as they are."""

    window_samples: int

    def __call__(self, wave: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the frame count and float16 [frames, samples]; no frames for more than a window."""
        if len(wave) > self.window_samples:
            return 0, np.zeros((0, FRAME_SAMPLES), np.float16)
        frames = in_frames(wave)
        return len(frames), frames.astype(np.float16)


def in_frames(wave: np.ndarray) -> np.ndarray:
    """Return a recording in whole frames, [frames, samples]; the last is filled up with zeros."""
    return np.pad(wave, (0, -len(wave) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBatch:
    """Recordings of similar length as sequences of the decoder, each with one language's prompt."""

    ids: torch.Tensor
    """int64 [batch, length], padded behind."""
    frames: torch.Tensor
    """float32 [frames of all recordings, samples]"""
    counts: torch.Tensor
    """int64 [batch]: frames of each recording."""
    starts: torch.Tensor
    """int64 [batch]: where they begin in the sequence."""
    predicting: torch.Tensor
    """int64 [tokens]: places in the flattened batch whose next token is predicted."""
    labels: torch.Tensor
    """int64 [tokens]"""


class FrameSet:
    """Everything that batches are made from: frames, words and letters, token ids."""

    def __init__(self, examples: Sequence[TrainingExample], features: Features, tokenizer: GemmaTokenizer) -> None:
        self.features = features
        self.frames: np.ndarray | None = None  # opened by the process that reads it: sending a mapping would copy it
        self.spoken = SpokenSymbols.of(examples)
        self.pad, self.audio = token_id(tokenizer, PAD), token_id(tokenizer, AUDIO)
        end = token_id(tokenizer, END)
        self.targets = [
            [[*tokenizer(example.targets[code], add_special_tokens=False)["input_ids"], end] for code in LANGUAGES]
            for example in examples
        ]
        self.prompts = [prompt_parts(tokenizer, name) for name in LANGUAGES.values()]

    def batches(self, size: int, seed: int) -> list[np.ndarray]:
        """Return one epoch as index arrays of `size` recordings of similar length, in random order."""
        return batches_by_length(self.features.counts, size, seed)

    def batch(self, indices: np.ndarray, rng: np.random.Generator, *, listening: bool) -> FrameBatch:
        """Return a batch: recordings cut into frames at a random offset, each with a language drawn at random.

        listening: the sequences end with the audio, and nothing is silenced.
        """
        pieces = [self._shifted(index, rng) for index in indices]
        rows: list[list[int]] = []
        marks: list[list[int]] = []
        labels: list[int] = []
        languages = rng.integers(len(LANGUAGES), size=len(indices))
        for index, piece, language in zip(indices, pieces, languages, strict=True):
            before, after = self.prompts[language]
            row = [*before, *[self.audio] * len(piece)]
            if not listening:
                silence_moments(piece, rng)
                target = self.targets[index][language]
                first = len(row) + len(after) - 1
                row += [*after, *target[:-1]]
                marks.append([first + offset for offset in range(len(target))])
                labels += target
            rows.append(row)
        length = max(map(len, rows))
        return FrameBatch(
            ids=torch.tensor([row + [self.pad] * (length - len(row)) for row in rows]),
            frames=torch.from_numpy(np.concatenate(pieces)),
            counts=torch.tensor([len(piece) for piece in pieces]),
            starts=torch.tensor([len(self.prompts[language][0]) for language in languages]),
            predicting=torch.tensor([row * length + place for row, places in enumerate(marks) for place in places]),
            labels=torch.tensor(labels),
        )

    def _shifted(self, index: int, rng: np.random.Generator) -> np.ndarray:
        if self.frames is None:
            self.frames = self.features.open()
        end = int(self.features.ends[index])
        wave = np.asarray(self.frames[end - int(self.features.counts[index]) : end], np.float32).reshape(-1)
        return in_frames(wave[int(rng.integers(FRAME_SAMPLES)) :])


def silence_moments(frames: np.ndarray, rng: np.random.Generator) -> None:
    """Overwrite some neighbouring frames with zeros, twice, in place."""
    for _ in range(2):
        moments = int(rng.integers(HIDDEN_FRAMES + 1))
        start = int(rng.integers(max(len(frames) - moments, 1)))
        frames[start : start + moments] = 0


def decoder_states(
    model: Gemma4UnifiedForConditionalGeneration, batch: FrameBatch, audio: int, layers: int
) -> list[torch.Tensor]:
    """Return the inputs of the first layer and the outputs of the first `layers`, float32 [batch, length, width].

    The same steps as the model's forward, which computes all layers. Padding lies behind, so no mask hides it.
    """
    decoder, config = model.model.language_model, model.config.get_text_config()
    here = batch.ids == audio
    embedded = decoder.embed_tokens(batch.ids.masked_fill(here, config.pad_token_id))
    embedded = embedded.masked_scatter(here[..., None], model.model.embed_audio(batch.frames))
    positions = torch.arange(batch.ids.shape[1])[None]
    causal = torch.ones(positions.shape[1], positions.shape[1], dtype=torch.bool).tril()
    seen = {"full_attention": causal, "sliding_attention": causal.triu(1 - config.sliding_window)}
    lowest = torch.finfo(torch.float32).min
    masks = {kind: torch.zeros(mask.shape).masked_fill(~mask, lowest)[None, None] for kind, mask in seen.items()}
    rotations = {kind: decoder.rotary_emb(embedded, positions, kind) for kind in seen}
    states = [embedded]
    for layer, kind in zip(decoder.layers[:layers], config.layer_types, strict=False):
        states.append(
            layer(
                states[-1],
                shared_kv_states={},
                position_embeddings=rotations[kind],
                attention_mask=masks[kind],
                position_ids=positions,
            )
        )
    return states


def frame_translation_loss(
    model: Gemma4UnifiedForConditionalGeneration, states: torch.Tensor, batch: FrameBatch
) -> torch.Tensor:
    """Return the cross-entropy per target token, given the last layer's output."""
    hidden = model.model.language_model.norm(states.flatten(0, 1)[batch.predicting])
    cap = model.config.get_text_config().final_logit_softcapping
    return F.cross_entropy(torch.tanh(model.lm_head(hidden) / cap) * cap, batch.labels)


class DecoderLearner:
    """How the forge trains a model without an encoder: recognition trains the decoder's lower half first."""

    def __init__(self, shape: DecoderShape, found: Sequence[Sentence]) -> None:
        """found: sentences whose translations the tokenizer is trained on."""
        texts = [sentence.targets[code] for sentence in found for code in sorted(sentence.targets)]
        self.shape = shape
        self.tokenizer = train_gemma_tokenizer(texts, shape.vocabulary)
        self.config = make_gemma_config(self.tokenizer, shape)
        self.config._attn_implementation = "eager"

    def training_set(self, examples: Sequence[TrainingExample], path: Path, workers: int) -> FrameSet:
        """Record the examples, write their frames to `path`, and return what batches are made from."""
        extraction = RawFrames(window_samples=self.shape.window_seconds * SAMPLE_RATE)
        return FrameSet(examples, record_features(examples, extraction, path, workers), self.tokenizer)

    def joint_model(self, training_set: FrameSet, seed: int) -> JointModel:
        """Return the model with its first weights and the heads of the first phase; the audio linear is fixed."""
        model = build_gemma_model(self.config, seed)
        model.model.embed_audio.requires_grad_(False)
        return JointModel(model, self.shape.hidden, training_set.spoken, seed)

    def losses(
        self,
        joint: JointModel,
        training_set: FrameSet,
        indices: np.ndarray,
        rng: np.random.Generator,
        *,
        listening: bool,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of recognition and, unless only that is trained, of translation."""
        shape, batch = self.shape, training_set.batch(indices, rng, listening=listening)
        model = joint.model
        assert isinstance(model, Gemma4UnifiedForConditionalGeneration)
        states = decoder_states(model, batch, training_set.audio, shape.word_layer if listening else shape.layers)
        heard = batch.starts[:, None] + torch.arange(int(batch.counts.max()))
        heard = heard.clamp(max=batch.ids.shape[1] - 1)  # of shorter recordings what lies behind them, uncounted
        rows = torch.arange(len(heard))[:, None]
        symbols = {
            "words": (joint.word_head, shape.word_layer, training_set.spoken.words),
            "letters": (joint.letter_head, shape.letter_layer, training_set.spoken.letters),
        }
        losses = {}
        for name, (head, layer, numbers) in symbols.items():
            vectors = F.rms_norm(states[layer][rows, heard], (shape.hidden,), eps=1e-6)
            losses[name] = ctc_loss(head(vectors), batch.counts, [numbers[index] for index in indices])
        if not listening:
            losses["translation"] = frame_translation_loss(model, states[-1], batch)
        return losses

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write a checkpoint with everything that belongs to it."""
        assert isinstance(model, Gemma4UnifiedForConditionalGeneration)
        save_gemma_checkpoint(model, self.tokenizer, self.shape, folder)

    def translator(self, folder: Path) -> Translate:
        """Return what translates recordings with the checkpoint of a folder, by the stock model and tokenizer."""
        model = Gemma4UnifiedForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        tokenizer = GemmaTokenizer.from_pretrained(folder)

        def translate_all(waves: Sequence[np.ndarray], target_language: str) -> list[str]:
            order = sorted(range(len(waves)), key=lambda index: len(waves[index]))
            found: dict[int, str] = {}
            for start in range(0, len(order), BATCH_SIZE):
                chosen = order[start : start + BATCH_SIZE]
                inputs = stock_inputs(tokenizer, [waves[index] for index in chosen], target_language)
                with torch.inference_mode():
                    output = generate(model, **inputs, max_new_tokens=64)
                texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                found.update(zip(chosen, texts, strict=True))
            return [found[index].strip() for index in range(len(waves))]

        return translate_all


def stock_inputs(
    tokenizer: GemmaTokenizer, waves: Sequence[np.ndarray], target_language: str
) -> dict[str, torch.Tensor]:
    """Return what the family's processor makes of recordings and the chat template's prompt, padded in front."""
    features = make_feature_extractor()(list(waves), return_tensors="pt")
    before, after = prompt_parts(tokenizer, target_language)
    audio, pad = token_id(tokenizer, AUDIO), token_id(tokenizer, PAD)
    rows = [[*before, *[audio] * int(mask.sum()), *after] for mask in features["input_features_mask"]]
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != pad).long(), **features}
