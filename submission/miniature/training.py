"""Compute the batches and losses of one training step of the base model that has an encoder.

Two things differ from calling the model on batches that the processor makes, and neither changes the
mathematics:

- The processor pads every recording to the full window. Here a batch is as long as its longest recording; the padding
  is masked either way, and a test checks that both give the same encoder output.
- Both translations of a recording are trained in one pass: the audio comes first in the prompt, so German and Chinese
  continue the same prefix, separated by the attention mask, each with the positions it has alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2AudioForConditionalGeneration,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from submission.miniature.curriculum import Features, TrainingExample, record_features
from submission.miniature.evaluation import Translate, translate
from submission.miniature.language import Sentence
from submission.miniature.model import (
    AUDIO,
    END,
    LANGUAGES,
    PROMPT,
    Shape,
    build_model,
    make_config,
    make_processor,
    save_checkpoint,
    token_id,
    train_tokenizer,
)

BLANK = 0
LETTERS = " 'abcdefghijklmnopqrstuvwxyz0123456789"
FRAME_MULTIPLE = 8
POOL_BATCHES = 24
"""Recordings are sorted by length within so many batches: little padding, still random batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """Recordings of similar length with their words, letters and translations."""

    mel: torch.Tensor
    """float32 [batch, bins, frames]; frames past a recording's end hold its quietest value."""
    frames: torch.Tensor
    """int64 [batch]: frames of each recording."""
    words: list[list[int]]
    """The spoken words' numbers by recording."""
    letters: list[list[int]]
    """The letters of those words and the blanks between them, likewise."""
    prompts: list[list[int]]
    """Token ids of each language's prompt after the audio."""
    targets: list[list[list[int]]]
    """Token ids by recording and language, end token included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenSymbols:
    """What recognition is trained on: the numbers of every recording's words and letters; 0 is the blank."""

    vocabulary: list[str]
    words: list[list[int]]
    letters: list[list[int]]

    @classmethod
    def of(cls, examples: Sequence[TrainingExample]) -> SpokenSymbols:
        """Return those of some examples; their words are the vocabulary."""
        vocabulary = sorted({word for example in examples for word in example.words})
        number = {word: place + 1 for place, word in enumerate(vocabulary)}
        return cls(
            vocabulary=vocabulary,
            words=[[number[word] for word in example.words] for example in examples],
            letters=[[LETTERS.index(letter) + 1 for letter in " ".join(example.words)] for example in examples],
        )


class JointModel(torch.nn.Module):
    """A model together with the word and letter heads of the first phase, which read vectors of `width`."""

    def __init__(self, model: PreTrainedModel, width: int, spoken: SpokenSymbols, seed: int) -> None:
        super().__init__()
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.word_head = torch.nn.Linear(width, len(spoken.vocabulary) + 1)
            self.letter_head = torch.nn.Linear(width, len(LETTERS) + 1)


def batches_by_length(lengths: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """Return all recordings that have a length as index arrays of `size` similar ones, in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(lengths))
    result = []
    for start in range(0, len(order), size * POOL_BATCHES):
        pool = order[start : start + size * POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        result += [pool[at : at + size] for at in range(0, len(pool) - size + 1, size)]
    if not result:
        raise ValueError(f"{len(order)} recordings are fewer than a batch of {size}")
    return [result[index] for index in rng.permutation(len(result))]


class TrainingSet:
    """Everything that batches are made from: features, word list, token ids."""

    def __init__(
        self, examples: Sequence[TrainingExample], features: Features, tokenizer: Qwen2Tokenizer, window_frames: int
    ) -> None:
        self.features = features
        self.window_frames = window_frames
        self.frames: np.ndarray | None = None  # opened by the process that reads it: sending a mapping would copy it
        self.spoken = SpokenSymbols.of(examples)
        end = token_id(tokenizer, END)
        self.targets = [
            [[*tokenizer(example.targets[code])["input_ids"], end] for code in LANGUAGES] for example in examples
        ]
        before, _, after = PROMPT.partition(AUDIO)
        self.before = tokenizer(before)["input_ids"]
        self.audio_id = token_id(tokenizer, AUDIO)
        self.prompts = [tokenizer(after.format(target_language=name))["input_ids"] for name in LANGUAGES.values()]

    def batches(self, size: int, seed: int) -> list[np.ndarray]:
        """Return one epoch as index arrays of `size` recordings of similar length, in random order."""
        return batches_by_length(self.features.counts, size, seed)

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> TrainingBatch:
        """Return a batch; with a generator, bands and moments of each recording are masked (SpecAugment)."""
        if self.frames is None:
            self.frames = self.features.open()
        starts = np.concatenate([[0], self.features.ends])
        pieces = [np.asarray(self.frames[starts[index] : starts[index + 1]], np.float32) for index in indices]
        longest = max(map(len, pieces))
        width = min(-(-longest // FRAME_MULTIPLE) * FRAME_MULTIPLE, self.window_frames)
        mel = np.empty((len(pieces), width, pieces[0].shape[1]), np.float32)
        for row, piece, index in zip(mel, pieces, indices, strict=True):
            quietest = piece.min()
            row[:] = quietest
            row[: len(piece)] = piece
            if rng is not None:
                mask_bands_and_frames(row[: self.features.counts[index]], quietest, rng)
        return TrainingBatch(
            mel=torch.from_numpy(mel).transpose(1, 2).contiguous(),
            frames=torch.from_numpy(self.features.counts[indices]),
            words=[self.spoken.words[index] for index in indices],
            letters=[self.spoken.letters[index] for index in indices],
            prompts=self.prompts,
            targets=[self.targets[index] for index in indices],
        )


def mask_bands_and_frames(frames: np.ndarray, value: float, rng: np.random.Generator) -> None:
    """Overwrite up to ten neighbouring bands and, twice, up to eight neighbouring frames, in place."""
    bands = int(rng.integers(0, 11))
    start = int(rng.integers(0, frames.shape[1] - bands))
    frames[:, start : start + bands] = value
    for _ in range(2):
        moments = int(rng.integers(0, 9))
        start = int(rng.integers(0, max(len(frames) - moments, 1)))
        frames[start : start + moments] = value


def audio_tokens(frames: torch.Tensor) -> torch.Tensor:
    """Return how many positions of the language model a recording takes (as Qwen2-Audio's processor counts)."""
    return (fine_positions(frames) - 2) // 2 + 1


def fine_positions(frames: torch.Tensor) -> torch.Tensor:
    """Return how many positions a recording takes in the audio encoder, before pooling."""
    return (frames - 1) // 2 + 1


def encode(tower: Qwen2AudioEncoder, mel: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the encoder's output [batch, frames / 4, width], and before pooling [batch, frames / 2, width].

    The same steps as `Qwen2AudioEncoder.forward`, which requires the full window. mel is float32
    [batch, bins, frames] with the frame count a multiple of four; what lies past a recording's end is masked.
    """
    hidden = F.gelu(tower.conv2(F.gelu(tower.conv1(mel)))).transpose(1, 2)
    positions = hidden.shape[1]
    hidden = hidden + tower.embed_positions.weight[:positions]
    valid = torch.arange(positions)[None, :] < fine_positions(frames)[:, None]
    mask = torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(torch.float32).min)[:, None, None, :]
    for layer in tower.layers:
        hidden = layer(hidden, mask)
    pooled = F.avg_pool1d(hidden.transpose(1, 2), 2, stride=2).transpose(1, 2)
    return tower.layer_norm(pooled), tower.layer_norm(hidden)


def ctc_losses(
    word_head: torch.nn.Linear,
    letter_head: torch.nn.Linear,
    encoded: tuple[torch.Tensor, torch.Tensor],
    batch: TrainingBatch,
) -> dict[str, torch.Tensor]:
    """Return the connectionist temporal classification losses, per word and per letter.

    Words are recognised in the pooled output (one vector in 80 ms), letters before pooling (one in 40 ms, since 80 ms
    can hold two). With letters, recognition takes half the steps that words alone take.
    """
    pooled, fine = encoded
    return {
        "words": ctc_loss(word_head(pooled), audio_tokens(batch.frames), batch.words),
        "letters": ctc_loss(letter_head(fine), fine_positions(batch.frames), batch.letters),
    }


def ctc_loss(scores: torch.Tensor, lengths: torch.Tensor, symbols: list[list[int]]) -> torch.Tensor:
    """Return the CTC loss per symbol, averaged over recordings; scores are [batch, positions, symbols + 1]."""
    flat = torch.tensor([symbol for row in symbols for symbol in row])
    counts = torch.tensor([len(row) for row in symbols])
    log_probabilities = scores.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probabilities, flat, lengths, counts, BLANK, zero_infinity=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLayout:
    """Token sequences of a batch: each recording followed by both of its translations."""

    ids: torch.Tensor
    """int64 [batch, length]"""
    positions: torch.Tensor
    """int64 [batch, length]: each language continues from the end of the audio."""
    branch: torch.Tensor
    """int64 [batch, length]: 0 audio, then 1, 2, … by language; -1 padding."""
    predicting: torch.Tensor
    """int64 [tokens]: places in the flattened batch whose next token is predicted."""
    labels: torch.Tensor
    """int64 [tokens]"""


def lay_out(batch: TrainingBatch, before: list[int], audio_id: int) -> SequenceLayout:
    """Return the sequences of a batch: audio, then for each language its prompt and its translation."""
    rows, places, branches, predicting, labels = [], [], [], [], []
    for count, targets in zip(audio_tokens(batch.frames).tolist(), batch.targets, strict=True):
        ids = [*before, *[audio_id] * count]
        position, branch = list(range(len(ids))), [0] * len(ids)
        marks: list[tuple[int, int]] = []
        shared = len(ids)
        for number, (prompt, target) in enumerate(zip(batch.prompts, targets, strict=True), start=1):
            first = len(ids) + len(prompt) - 1
            ids += [*prompt, *target[:-1]]
            position += range(shared, shared + len(ids) - len(position))
            branch += [number] * (len(ids) - len(branch))
            marks += [(first + offset, token) for offset, token in enumerate(target)]
        rows.append(ids)
        places.append(position)
        branches.append(branch)
        predicting.append([place for place, _ in marks])
        labels += [token for _, token in marks]
    length = max(map(len, rows))
    pad = {"ids": (rows, 0), "positions": (places, 0), "branch": (branches, -1)}
    filled = {
        name: torch.tensor([row + [value] * (length - len(row)) for row in table])
        for name, (table, value) in pad.items()
    }
    flat = [row * length + place for row, marks in enumerate(predicting) for place in marks]
    return SequenceLayout(**filled, predicting=torch.tensor(flat), labels=torch.tensor(labels))


def attention_mask(branch: torch.Tensor) -> torch.Tensor:
    """Return the additive mask, float32 [batch, 1, length, length]: causal, no attention between the languages."""
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    return torch.zeros(seen.shape).masked_fill(~(causal & seen), torch.finfo(torch.float32).min)[:, None]


def translation_loss(
    model: Qwen2AudioForConditionalGeneration,
    encoded: torch.Tensor,
    batch: TrainingBatch,
    training_set: TrainingSet,
) -> torch.Tensor:
    """Return the cross-entropy per target token over both languages, given the encoder's output."""
    layout = lay_out(batch, training_set.before, training_set.audio_id)
    embedded = model.get_input_embeddings()(layout.ids)
    counts = audio_tokens(batch.frames)
    valid = torch.arange(encoded.shape[1])[None, :] < counts[:, None]
    audio = model.model.multi_modal_projector(encoded)[valid]
    embedded = embedded.masked_scatter((layout.ids == training_set.audio_id)[..., None], audio)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=attention_mask(layout.branch),
        position_ids=layout.positions,
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[layout.predicting])
    return F.cross_entropy(logits, layout.labels)


TAIL_FRAMES = 2
"""Frames kept past a recording's end: the encoder's convolutions reach that far."""


class LogMel:
    """The features of one recording by the real extractor."""

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        self.extractor = extractor

    def __call__(self, wave: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the frame count, and float16 [frames, bins] with a tail; no frames for more than a window."""
        extractor = self.extractor
        if len(wave) > extractor.n_samples:
            return 0, np.zeros((0, extractor.feature_size), np.float16)
        output = extractor(wave, sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="np")
        count = int(output["attention_mask"].sum())
        frames = output["input_features"][0, :, : count + TAIL_FRAMES].T
        return count, np.ascontiguousarray(frames, dtype=np.float16)


class EncoderLearner:
    """How the forge trains a model with an audio encoder: recognition trains the encoder, translation the whole."""

    def __init__(self, shape: Shape, found: Sequence[Sentence]) -> None:
        """found: sentences whose texts in all three languages the tokenizer is trained on."""
        texts = [
            t for sentence in found for t in (sentence.source, *map(sentence.targets.get, sorted(sentence.targets)))
        ]
        self.shape = shape
        self.processor = make_processor(train_tokenizer([t for t in texts if t], shape.vocabulary), shape)
        self.config = make_config(self.processor.tokenizer, shape)
        self.config._attn_implementation = "eager"  # sdpa's backward pass on a CPU is 2.7 times slower

    def training_set(self, examples: Sequence[TrainingExample], path: Path, workers: int) -> TrainingSet:
        """Record the examples, write their features to `path`, and return what batches are made from."""
        features = record_features(examples, LogMel(self.processor.feature_extractor), path, workers)
        return TrainingSet(examples, features, self.processor.tokenizer, self.shape.mel_frames)

    def joint_model(self, training_set: TrainingSet, seed: int) -> JointModel:
        """Return the model with random weights and the heads of the first phase."""
        audio = self.config.audio_config
        assert isinstance(audio, PreTrainedConfig)  # which the configuration makes of a dict
        return JointModel(build_model(self.config, seed), audio.d_model, training_set.spoken, seed)

    def losses(
        self,
        joint: JointModel,
        training_set: TrainingSet,
        indices: np.ndarray,
        rng: np.random.Generator,
        *,
        listening: bool,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of recognition and, unless only that is trained, of translation."""
        batch = training_set.batch(indices, None if listening else rng)
        model = joint.model
        assert isinstance(model, Qwen2AudioForConditionalGeneration)
        encoded = encode(model.model.audio_tower, batch.mel, batch.frames)
        losses = ctc_losses(joint.word_head, joint.letter_head, encoded, batch)
        if not listening:
            losses["translation"] = translation_loss(model, encoded[0], batch, training_set)
        return losses

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write a checkpoint with everything that belongs to it."""
        assert isinstance(model, Qwen2AudioForConditionalGeneration)
        save_checkpoint(model, self.processor, folder)

    def translator(self, folder: Path) -> Translate:
        """Return what translates recordings with the checkpoint of a folder, by the stock processor."""
        processor = AutoProcessor.from_pretrained(folder)
        model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        return partial(translate, model, processor)
