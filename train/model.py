"""Load the base model with LoRA adapters by role, and compute its loss on the target tokens alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from submission.errors import UserError
from submission.model.families import family_of, read_config
from submission.runtime.families import runtime_of
from submission.runtime.prompt import IGNORED
from submission.store.digests import canonical_json, write_text
from submission.system.recipe.training_options import FinetuneOptions
from submission.system.schema import nearest


class TargetLoss:
    """Cross-entropy of the target tokens, with two costs of the stock forward left out and the same result.

    Logits are computed where there is a label and nowhere else: about one position in ten of a training sequence is
    target, and logits of all of them are gigabytes a batch for a vocabulary of 156,032. The audio encoder runs over the
    frames of the batch's longest audio, not over its whole window, of which speech fills a fifth; how, the family knows
    (`FamilyRuntime.shortened_window`). Both are done from outside, on the stock model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._window = runtime_of(model.config.to_dict()).shortened_window(model)
        self._wanted: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, head: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        return None if self._wanted is None else (inputs[0][:, :-1][self._wanted],)

    def __call__(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], labels: torch.Tensor, labels_in_step: Any = None
    ) -> torch.Tensor:
        """Return the summed cross-entropy of the labels, divided by `labels_in_step`; None divides by their number.

        model: the one given at first, or a wrapper of it. labels: int64 [batch, tokens], -100 where there is no
        target. inputs: all else that the model takes, its audio features shortened or not.
        """
        self._wanted = labels[:, 1:] != IGNORED
        try:
            with self._window(inputs):
                logits = model(**inputs, use_cache=False).logits
        finally:
            wanted, self._wanted = self._wanted, None
        total = cross_entropy(logits.float(), labels[:, 1:][wanted], reduction="sum")
        return total / (wanted.sum() if labels_in_step is None else labels_in_step)


def target_modules(config: dict[str, Any], roles: Sequence[str]) -> dict[str, str]:
    """Return module path in the loaded model -> role, for every linear that the role prefixes name.

    config: a checkpoint's config.json. Raises UserError for a prefix that names no linear.
    """
    family, frozen = family_of(config), runtime_of(config).frozen_roles
    linears = {
        family.module_name(spec.name.removesuffix(".weight")): spec.role
        for spec in family.tensors(config)
        if spec.packable and spec.role not in frozen
    }
    for prefix in roles:
        if not any(_below(role, prefix) for role in linears.values()):
            known = dict.fromkeys(linears.values()) | dict.fromkeys(r.rpartition(".")[0] or r for r in linears.values())
            raise UserError(
                f"recipe: finetune.roles: {prefix!r}", "names no linear of this model", nearest(prefix, known)
            )
    return {path: role for path, role in linears.items() if any(_below(role, prefix) for prefix in roles)}


def _below(role: str, prefix: str) -> bool:
    return role == prefix or role.startswith(f"{prefix}.")


def load_adapted(base: Path, options: FinetuneOptions) -> PeftModel:
    """Return the base model, frozen in options.dtype, with fresh float32 adapters on the linears of options.roles.

    The adapters' initial values come from torch's generator, which is seeded with options.seed here.
    """
    disable_progress_bar()
    config = read_config(base)
    paths = target_modules(config, options.roles)
    pair: Any = runtime_of(config).model_class.from_pretrained(  # the library's types know of a model alone
        base,
        dtype=getattr(torch, options.dtype),
        # sdpa's backward on the CPU takes 2.7 times as long as plain attention.
        attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, loading = pair
    strange = sorted(name for names in loading.values() for name in names)
    if strange:
        raise UserError(str(base), f"{len(strange)} tensors do not fit the model: {strange[:3]}", "fetch it again")
    torch.manual_seed(options.seed)
    return adapt(model, list(paths), options)


def adapt(model: PreTrainedModel, paths: Sequence[str], options: FinetuneOptions) -> PeftModel:
    """Return a model, frozen, with fresh float32 adapters on the linears of these module paths."""
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=sorted(paths),
        bias="none",
    )
    with warnings.catch_warnings():
        # peft 0.21 reads the attribute that transformers 5.23 deprecates.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, config)
    adapters = sum(name.endswith(".lora_A.default.weight") for name, _ in adapted.named_parameters())
    if adapters != len(paths):
        raise AssertionError(f"{adapters} adapters on {len(paths)} linears")
    return adapted


def save_adapter(
    model: PeftModel, folder: Path, base_name: str, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write adapter_model.safetensors and adapter_config.json as peft reads them, the same bytes for the same weights.

    weights: the model's state, where it is not whole in the model itself because devices share it.
    peft's own writer would add a model card, the path of the base on this machine, sets in no fixed order, and (for an
    adapter on the head) a copy of the head itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    save_file(
        {name: weights[name].detach().contiguous().cpu() for name in sorted(weights)},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True, "peft_version": None}
    write_text(folder / "adapter_config.json", canonical_json({key: _plain(value) for key, value in config.items()}))


def _plain(value: Any) -> Any:
    """Return a value of peft's configuration as JSON has it: sets sorted, enumerations by their value."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", value)


def trainable_parameters(model: PeftModel) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
