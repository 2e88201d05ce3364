"""Asking the model: from waveforms to texts, with settings that are said here and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from submission.runtime.loss import make_batch, target_losses
from submission.runtime.prompt import AudioFeatures, build_inputs, encode, end_token_id
from submission.system.recipe import DecodeOptions

if TYPE_CHECKING:
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The model's output for one waveform."""

    text: str
    """As the tokenizer spells it: not yet one plain line."""
    tokens: int
    """How many tokens it took, the end token not counted."""
    ended: bool
    """Whether the model ended it, and not max_new_tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translator:
    """A model with what it is asked and how it answers."""

    model: Qwen2AudioForConditionalGeneration
    processor: Qwen2AudioProcessor
    prompt: str
    """With the target language filled in."""
    end_token: str
    settings: GenerationConfig

    def generate(
        self, waveforms: Sequence[np.ndarray], names: Sequence[str], *, repetition_penalty: float = 1.0, **changed: Any
    ) -> list[Generation]:
        """Return the generations of waveforms, float32 [samples] each, decoded as one batch.

        names: what errors call them. repetition_penalty: on generated tokens alone; the library's own setting of
        that name counts those of the prompt too. changed: what differs from the settings.
        """
        inputs = build_inputs(self.processor, waveforms, [self.prompt] * len(waveforms), names=names)
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        width = inputs["input_ids"].shape[1]
        settings = copy.deepcopy(self.settings)
        settings.update(**changed)
        penalties = LogitsProcessorList()
        if repetition_penalty != 1.0:
            penalties.append(RepetitionPenaltyLogitsProcessor(repetition_penalty, prompt_ignore_length=width))
        with torch.inference_mode():
            sequences = self.model.generate(**inputs, generation_config=settings, logits_processor=penalties)
        return [self._until_end(tokens) for tokens in sequences[:, width:].tolist()]

    def _until_end(self, tokens: list[int]) -> Generation:
        end = self.settings.eos_token_id
        ended = end in tokens
        spoken = tokens[: tokens.index(end)] if ended else tokens
        text = self.processor.tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generation(text=text, tokens=len(spoken), ended=ended)

    @torch.inference_mode()
    def score(self, heard: AudioFeatures, text: str) -> float:
        """Return the mean log-probability per token, in nats, of a text and the end token after it.

        The model reads audio, prompt and text, teacher-forced, without any constraint; the text's tokens are those that
        the tokenizer makes of it, whatever it was generated as. No text is the end token alone.
        """
        example = encode(self.processor, heard, self.prompt, text, self.end_token)
        batch = make_batch([example], self.processor.tokenizer.pad_token_id, self.model.device)
        states = self.model.base_model(**batch.inputs, use_cache=False).last_hidden_state
        losses = target_losses(self.model.get_output_embeddings(), batch.pick(states), batch.ids)
        return -float(losses.double().mean())


@contextmanager
def translator(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    prompt: str,
    options: DecodeOptions,
    end_token: str,
) -> Iterator[Translator]:
    """Lend the model the recipe's settings: `generate` fills every gap in what it is given from the model's own.

    The published checkpoint's own sample, and penalize repetition. Raises UserError for an unknown end token.
    """
    settings = generation_settings(processor, options, end_token)
    own, training = model.generation_config, model.training
    model.generation_config = settings
    model.eval()
    try:
        yield Translator(model=model, processor=processor, prompt=prompt, end_token=end_token, settings=settings)
    finally:
        model.generation_config = own
        model.train(training)


def generation_settings(processor: Qwen2AudioProcessor, options: DecodeOptions, end_token: str) -> GenerationConfig:
    """Return all that generation may know; what is not said here is the library's default, not the checkpoint's."""
    return GenerationConfig(
        do_sample=False,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=end_token_id(processor, end_token),
        pad_token_id=processor.tokenizer.pad_token_id,
    )
