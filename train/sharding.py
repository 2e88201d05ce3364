"""Check the FSDP settings of accelerate, for models that do not fit on one device, against what fine-tuning supports.

`accelerate launch` and `accelerate config` set environment variables. The Trainer shards the model and its optimizer,
and every process takes part in each forward and each save (train.finetune, train.dev_evaluation). Settings that would
be ignored silently, or would fail at the first checkpoint, are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

from submission.errors import UserError

WHOLE = "FULL_STATE_DICT"


def _requests_fsdp(environment: Mapping[str, str]) -> bool:
    return environment.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def check_sharding(environment: Mapping[str, str]) -> None:
    """Raise UserError for an FSDP whose checkpoints would not have the whole adapters; before anything is loaded."""
    if not _requests_fsdp(environment):
        return
    version, kind = environment.get("FSDP_VERSION", "1"), environment.get("FSDP_STATE_DICT_TYPE") or "nothing"
    if version != "2":
        raise UserError(
            "accelerate",
            f"requests FSDP version {version}, which transformers no longer supports",
            "set fsdp_version to 2",
        )
    if WHOLE not in kind:
        what = f"requests {kind} under FSDP: no process would write the whole adapters"
        raise UserError("accelerate", what, f"set fsdp_state_dict_type to {WHOLE}")


def check_sharded(environment: Mapping[str, str], sharded: bool) -> None:
    """Raise UserError where FSDP was requested and is not active: accelerate supports it on GPUs alone."""
    if _requests_fsdp(environment) and not sharded:
        what = "FSDP was requested and is not active: there is no GPU, and every process would hold the whole model"
        raise UserError("accelerate", what, "run it where there are GPUs, or leave --use_fsdp out")
