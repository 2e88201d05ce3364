"""Generate texts from the audio of segments, with all settings of generation in one place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from evaluate.decoding.audio_batches import SegmentAudio
from submission.runtime.families import RUNTIMES
from submission.runtime.families.family import FamilyRuntime, Window, generate
from submission.runtime.loss import make_batch, target_losses
from submission.runtime.prompt import collate, encode, end_token_id
from submission.system.recipe.decoding_options import DecodeOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The generated text of one segment."""

    text: str
    """As the tokenizer decodes it: not yet one plain line."""
    tokens: int
    """Number of generated tokens, the end token not counted."""
    ended: bool
    """Whether the model ended it by the end token, not max_new_tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translator:
    """A model with its prompt and its settings of generation.

    Its audio encoder reads the frames of the batch's longest audio, not its whole window.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    prompt: str
    """With the target language filled in."""
    end_token: str
    settings: GenerationConfig
    family: FamilyRuntime
    window: Window
    """In which the model takes audio that the family has shortened."""

    def generate(
        self, audios: Sequence[SegmentAudio], *, repetition_penalty: float = 1.0, **changed: Any
    ) -> list[Generation]:
        """Return the generations for the audio of segments, decoded as one batch.

        repetition_penalty: on generated tokens alone; the library's own setting of that name counts those of the prompt
        too. changed: settings that differ for this call.
        """
        examples = [encode(self.processor, audio.features, self.prompt) for audio in audios]
        inputs = collate(examples, self.processor.tokenizer.pad_token_id, "left", labels=False)
        inputs = {key: value.to(self.model.device) for key, value in self.family.shorten(inputs).items()}
        width = inputs["input_ids"].shape[1]
        settings = copy.deepcopy(self.settings)
        settings.update(**changed)
        penalties = LogitsProcessorList()
        if repetition_penalty != 1.0:
            penalties.append(RepetitionPenaltyLogitsProcessor(repetition_penalty, prompt_ignore_length=width))
        with torch.inference_mode(), self.window(inputs):
            sequences = generate(self.model, **inputs, generation_config=settings, logits_processor=penalties)
        return [self._until_end(tokens) for tokens in sequences[:, width:].tolist()]

    def _until_end(self, tokens: list[int]) -> Generation:
        end = self.settings.eos_token_id
        ended = end in tokens
        generated = tokens[: tokens.index(end)] if ended else tokens
        text = self.processor.tokenizer.decode(generated, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generation(text=text, tokens=len(generated), ended=ended)

    @torch.inference_mode()
    def score(self, audio: SegmentAudio, text: str) -> float:
        """Return the mean log-probability per token, in nats, of a text and the end token after it.

        The model reads audio, prompt and text, teacher-forced, without any constraint; the text's tokens are those that
        the tokenizer makes of it, whatever tokens it was generated as. An empty text is the end token alone.
        """
        example = encode(self.processor, audio.features, self.prompt, text, self.end_token)
        batch = make_batch([example], self.processor.tokenizer.pad_token_id, self.model.device)
        inputs = self.family.shorten(batch.inputs)
        with self.window(inputs):
            states = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        losses = target_losses(self.model, batch.pick(states), batch.ids)
        return -float(losses.double().mean())


@contextmanager
def translator(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: str,
    options: DecodeOptions,
    end_token: str,
) -> Iterator[Translator]:
    """Set the recipe's settings on the model for a while: `generate` fills gaps in its arguments from the model's own.

    The published checkpoint's own settings sample and penalize repetition. Raises UserError for an unknown end token.
    """
    settings = generation_settings(processor, options, end_token)
    own, training = model.generation_config, model.training
    model.generation_config = settings
    model.eval()
    family = RUNTIMES[model.config.model_type]
    try:
        yield Translator(
            model=model,
            processor=processor,
            prompt=prompt,
            end_token=end_token,
            settings=settings,
            family=family,
            window=family.shortened_window(model),
        )
    finally:
        model.generation_config = own
        model.train(training)


def generation_settings(processor: ProcessorMixin, options: DecodeOptions, end_token: str) -> GenerationConfig:
    """Return all settings of generation; what is not set here has the library's default, not the checkpoint's."""
    return GenerationConfig(
        do_sample=False,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=end_token_id(processor, end_token),
        pad_token_id=processor.tokenizer.pad_token_id,
    )
