"""Read a packed model's tensors straight into its layers: `from_pretrained` without its work for each tensor.

Stock loading finds out for every tensor by regular expressions how it is to be renamed, converted and placed: half a
millisecond for each, whatever its size, and a packed weight has several. Here the family names the tensors, and their
bytes stay mapped from the file. All other steps are the library's own, in its order: the empty model, the quantizer,
buffers that no file holds, tied weights, generation settings. So the result is that of `from_pretrained`
(`tests/runtime/test_packed_loading.py` compares them).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_utils import LoadStateDictConfig
from transformers.quantizers.auto import get_hf_quantizer
from transformers.utils.generic import ContextManagers
from transformers.utils.loading_report import LoadStateDictInfo

from submission.model.checkpoint import Checkpoint, weight_files
from submission.model.families import family_of
from submission.runtime.families import runtime_of


@contextmanager
def _without_collection() -> Iterator[None]:
    """Let Python not look for unreachable objects while thousands are made, of which none is: a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collection()
def load_packed(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Return a packed model on the CPU in eval mode, its parts in their file's dtypes and all else in dtype.

    UserError for parts that no codec writes. The quantizer must be registered (`submission.runtime.quantizer`).
    """
    model_class = runtime_of(checkpoint.config).model_class
    config_class = model_class.config_class
    assert config_class is not None  # a family's model class names it
    config = config_class.from_pretrained(checkpoint.folder, local_files_only=True)
    quantizer, config, _ = get_hf_quantizer(config, None, None, True, {})
    config.name_or_path = checkpoint.folder
    # Nothing is drawn: a weight that no file holds is initialized when loading is finalized, as the library does it.
    with ContextManagers([*model_class.get_init_context(dtype, True, False, None), no_init_weights()]):
        model: PreTrainedModel = model_class._from_config(config, dtype=dtype)
        quantizer.preprocess_model(model=model)  # no files: the checkpoint has been read
    info = LoadStateDictInfo(
        missing_keys=_fill(model, checkpoint),
        unexpected_keys=set(),
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )
    model_class._finalize_model_loading(model, LoadStateDictConfig(dtype=dtype, hf_quantizer=quantizer), info)
    model.eval()
    model.set_use_kernels(False)
    _read_generation_settings(model, checkpoint)
    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)
    return model


@torch.no_grad()
def _fill(model: PreTrainedModel, checkpoint: Checkpoint) -> set[str]:
    """Put every stored tensor into an empty model; return the names of those of its state that no file holds."""
    family = family_of(checkpoint.config)
    modules = dict(model.named_modules())
    missing = set(model.state_dict())
    for path in weight_files(checkpoint.folder):
        with safe_open(path, framework="pt") as file:
            for stored in file.keys():  # noqa: SIM118  not a dict
                name = family.module_name(family.hub_name(stored))
                owner, _, own = name.rpartition(".")
                _set(modules[owner], own, file.get_tensor(stored))
                missing.discard(name)
    return missing


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor in the place of an empty one, in its dtype."""
    empty = module._parameters.get(name)
    filled = value.to(module._buffers[name].dtype if empty is None else empty.dtype)  # type: ignore[union-attr]
    if empty is None:
        module._buffers[name] = filled
    else:
        filled = module._parameters[name] = nn.Parameter(filled, requires_grad=filled.is_floating_point())
    filled._is_hf_initialized = True  # type: ignore[attr-defined]  # else the library draws it at random


def _read_generation_settings(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Take the settings of generation from the folder, as `from_pretrained` does it."""
    adjust = getattr(model, "adjust_generation_fn", None)
    if adjust is None or not model.can_generate():
        return
    adjust(
        None,
        from_auto_class=False,
        from_pipeline=None,
        pretrained_model_name_or_path=checkpoint.folder,
        cache_dir=None,
        force_download=False,
        proxies=None,
        local_files_only=True,
        token=None,
        revision=None,
        subfolder="",
        trust_remote_code=False,
    )
