"""Register the quantization method `packed` with transformers, so that stock `from_pretrained` loads packed models.

A packed model's `config.json` says `quant_method: packed`; transformers looks that up, calls the quantizer below to
put packed layers into the empty model, and reads the file's tensors straight into them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from submission.errors import UserError
from submission.model.checkpoint import LOADED_BY, METHOD, config_text, parse_quantization, read_checkpoint
from submission.model.codecs import Codec
from submission.model.families import FAMILIES
from submission.runtime.families import RUNTIMES
from submission.runtime.families.family import plain_lookup
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor, ScaledEmbedding


class PackedConfig(QuantizationConfigMixin):
    """The `quantization_config` of a packed model's `config.json`, kept as it is written there."""

    def __init__(self, *, version: int, codecs: dict[str, Any], weights: dict[str, str]) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]  # a method that transformers does not list
        self.version = version
        self.codecs = codecs
        self.weights = weights

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> PackedConfig | tuple[PackedConfig, dict[str, Any]]:
        """Return the configuration that a JSON object spells; UserError where it is malformed."""
        parse_quantization(config_dict)
        config = cls(**{key: config_dict[key] for key in ("version", "codecs", "weights")})
        return (config, kwargs) if return_unused_kwargs else config

    def by_weight(self) -> dict[str, Codec]:
        """Return weight name on the hub, `….up_proj.weight` -> codec."""
        return parse_quantization(self.to_dict())


class PackedQuantizer(HfQuantizer):
    """Put packed layers into a model before its weights are read, and check the weights afterwards."""

    requires_calibration = True  # packing is `python -m quantize pack`, never a side effect of loading

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Raise UserError where transformers would quantize a model that is not packed yet."""
        if not self.pre_quantized:
            what = "quant_method 'packed' loads packed models and packs none"
            raise UserError("from_pretrained: quantization_config", what, "run `python -m quantize pack`")

    def update_attn_implementation(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Take away the entry that keeps stock transformers from loading the weights without this quantizer."""
        # No other hook sees the configuration before the weight files are looked up.
        if getattr(config, "transformers_weights", None) == LOADED_BY:
            del config.transformers_weights
        return config

    def _process_model_before_weight_loading(
        self,
        model: PreTrainedModel,
        dtype: torch.dtype | None = None,
        checkpoint_files: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if checkpoint_files:
            # transformers only warns of missing tensors, and fills them with what is in memory.
            read_checkpoint(Path(checkpoint_files[0]).parent)
        family = FAMILIES[model.config.model_type]
        assert isinstance(self.quantization_config, PackedConfig)
        lookup_scale, dtype = RUNTIMES[family.name].lookup_scale, dtype or torch.get_default_dtype()
        modules = dict(model.named_modules())  # `get_submodule` walks down from the model for each of hundreds
        for name, codec in self.quantization_config.by_weight().items():
            path = family.module_name(name).removesuffix(".weight")
            parent, _, own = path.rpartition(".")
            setattr(modules[parent], own, packed_layer(modules[path], codec, dtype, lookup_scale))
        withhold_tied_weights(model)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        share_packed_weights(model)
        model.save_pretrained = MethodType(save_packed, model)  # type: ignore[method-assign]  # of this instance
        for name, module in model.named_modules():
            if not isinstance(module, PackedTensor):
                continue
            try:
                module.codec.check(module.parts, module.shape)
            except ValueError as error:
                part, _, what = str(error).partition(": ")
                raise UserError(f"packed model: {name}.{part}", what, "fetch or pack the model again") from error
        return model

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | str | None = None) -> PreTrainedModel:
        """Serve `model.dequantize()`: the same weights as plain layers, which take more memory and are faster."""
        del model.save_pretrained  # the class's own again
        # A string is what transformers leaves in the configuration when it saves a model.
        wanted: torch.dtype | None = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        for name, layer in list(model.named_modules()):
            if isinstance(layer, (PackedLinear, PackedEmbedding)):
                model.set_submodule(name, plain_layer(layer, wanted or layer.weight.dtype))
        return model

    def is_serializable(self) -> bool:
        """Return True: a loaded model is saved as it was packed."""
        return True

    @property
    def is_trainable(self) -> bool:
        """False: codes have no gradients."""
        return False


def save_packed(model: PreTrainedModel, save_directory: str | Path, **options: Any) -> None:
    """Save a loaded packed model as transformers does, and write the entry `transformers_weights`, which it drops."""
    type(model).save_pretrained(model, save_directory, **options)
    path = Path(save_directory) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(config_text(config | {"transformers_weights": LOADED_BY}), encoding="utf-8")


def packed_layer(
    layer: nn.Module,
    codec: Codec,
    dtype: torch.dtype,
    lookup_scale: Callable[[nn.Embedding], float] = plain_lookup,
) -> PackedLinear | PackedEmbedding:
    """Return the packed counterpart of a linear or an embedding, with its bias; its parts are not filled.

    lookup_scale: the family's, of embeddings. TypeError for a layer that may do more than its packed counterpart.
    """

    def unfilled(weight: torch.Tensor) -> PackedTensor:
        return PackedTensor(codec, tuple(weight.shape), dtype=dtype, device=weight.device)

    if isinstance(layer, nn.Embedding):
        return PackedEmbedding(unfilled(layer.weight), lookup_scale(layer))
    if type(layer) is nn.Linear:
        return PackedLinear(unfilled(layer.weight), layer.bias)
    raise TypeError(f"no packed counterpart of {type(layer).__name__}")


class WithheldHead(nn.Module):
    """Stands for a linear while weights are read: has its bias and no weight, since another layer's serves."""

    def __init__(self, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias = bias


def withhold_tied_weights(model: PreTrainedModel) -> None:
    """Take the weight away of every layer that is tied to a packed one, before weights are read.

    By its name transformers would find the weight's parts missing and fill them, which the two layers share, with what
    is in memory; and its own tie of two parameters does not know parts.
    """
    for tied, stored in _tied_paths(model).items():
        if isinstance(model.get_submodule(stored.removesuffix(".weight")).weight, PackedTensor):
            head = model.get_submodule(tied.removesuffix(".weight"))
            assert isinstance(head, nn.Linear)  # what a tied head is
            model.set_submodule(tied.removesuffix(".weight"), WithheldHead(head.bias))
            del model.all_tied_weights_keys[tied]


def share_packed_weights(model: PreTrainedModel) -> None:
    """Let every withheld layer use the packed weight that it is tied to, once weights are read.

    The two layers have one module as their weight, so its parts are counted and saved once.
    """
    for tied, stored in _tied_paths(model).items():
        head = model.get_submodule(tied.removesuffix(".weight"))
        if isinstance(head, WithheldHead):
            weight = model.get_submodule(stored.removesuffix(".weight")).weight
            assert isinstance(weight, PackedTensor)
            model.set_submodule(tied.removesuffix(".weight"), PackedLinear(weight, head.bias))


def _tied_paths(model: PreTrainedModel) -> dict[str, str]:
    """Return path of a tied weight -> path of the stored one."""
    family = FAMILIES[model.config.model_type]
    tied = family.tied_weights(model.config.to_dict())
    return {family.module_name(name): family.module_name(stored) for name, stored in tied.items()}


def plain_layer(layer: PackedLinear | PackedEmbedding, dtype: torch.dtype) -> nn.Linear | nn.Embedding:
    """Return the library's layer with the weight that a packed layer stands for, in dtype."""
    rows, columns = layer.weight.shape
    if isinstance(layer, PackedEmbedding):
        plain: nn.Linear | nn.Embedding = ScaledEmbedding(rows, columns, layer.scale)
    else:
        plain = nn.Linear(columns, rows, bias=layer.bias is not None, device="meta")
        if layer.bias is not None:
            plain.bias = layer.bias
    plain.weight = nn.Parameter(layer.weight.dequantize(dtype), requires_grad=False)
    return plain


def register() -> None:
    """Register the method with transformers, once per process."""
    if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(PackedConfig)
        register_quantizer(METHOD)(PackedQuantizer)
