"""A tiny speech model of a class that is not in transformers: raw frames for audio, and a head tied to the embedding.

It stands for what a library brings (model, configuration, processor). The family's own two files are the code blocks of
docs/extending/family.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoProcessor,
    GenerationConfig,
    GenerationMixin,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

WORDS = ("translate", "to", "German", "Chinese", "der", "Hund", "schläft", "die", "Katze", "ein", "Haus")
FRAME_SAMPLES = 640
VOCABULARY = 64
LOGIT_CAP = 30.0


class ToySpeechConfig(PreTrainedConfig):
    """Sizes of the model; all of them on one level, without sections."""

    model_type = "toy_speech"

    def __init__(
        self,
        vocab_size: int = VOCABULARY,
        hidden_size: int = 64,
        intermediate_size: int = 128,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        audio_token_id: int = VOCABULARY - 1,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.audio_token_id = audio_token_id
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.tie_word_embeddings = tie_word_embeddings


class ToySpeechPreTrainedModel(PreTrainedModel):
    config_class = ToySpeechConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.2)


class ToySpeechModel(ToySpeechPreTrainedModel):
    """Frames through one linear into the positions of the audio token, then a decoder."""

    def __init__(self, config: ToySpeechConfig) -> None:
        super().__init__(config)
        self.audio_embedder = nn.Linear(FRAME_SAMPLES, config.hidden_size, bias=False)
        text = {
            name: getattr(config, name)
            for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        }
        self.decoder = LlamaModel(LlamaConfig(**text, attn_implementation=config._attn_implementation))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.embed_tokens = value

    def forward(
        self,
        input_ids: torch.Tensor,
        audio_frames: torch.Tensor | None = None,
        audio_frames_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        embedded = self.decoder.embed_tokens(input_ids)
        places = input_ids == self.config.audio_token_id
        if audio_frames is not None and places.any():
            audio = self.audio_embedder(audio_frames.to(embedded.dtype))[audio_frames_mask.bool()]
            embedded = embedded.masked_scatter(places[..., None], audio)
        return self.decoder(inputs_embeds=embedded, **kwargs)


class ToySpeechForConditionalGeneration(ToySpeechPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}

    def __init__(self, config: ToySpeechConfig) -> None:
        super().__init__(config)
        self.model = ToySpeechModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_decoder(self) -> nn.Module:
        return self.model.decoder

    def forward(
        self,
        input_ids: torch.Tensor,
        audio_frames: torch.Tensor | None = None,
        audio_frames_mask: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        output = self.model(input_ids, audio_frames, audio_frames_mask, **kwargs)
        logits = LOGIT_CAP * torch.tanh(self.lm_head(output.last_hidden_state[:, -logits_to_keep:]) / LOGIT_CAP)
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)


class ToySpeechProcessor(ProcessorMixin):
    """A tokenizer alone: frames are cut from the waveform as it is."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)


def register_with_transformers() -> None:
    """Let transformers' automatic classes find the model, as they find those of the library."""
    AutoConfig.register("toy_speech", ToySpeechConfig, exist_ok=True)
    AutoProcessor.register(ToySpeechConfig, ToySpeechProcessor, exist_ok=True)


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of random weights in bfloat16 with its processor, and return the folder."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<unk>", *WORDS))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens=["<turn>", "<audio>"],
    )
    torch.manual_seed(seed)
    config = ToySpeechConfig(dtype="bfloat16", audio_token_id=fast.convert_tokens_to_ids("<audio>"))
    model = ToySpeechForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id)
    model.save_pretrained(folder)
    ToySpeechProcessor(tokenizer=fast).save_pretrained(folder)
    return folder
