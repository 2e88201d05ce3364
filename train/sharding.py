"""FSDP, for models that do not fit on one device: what accelerate is asked for, and what of it fine-tuning can do.

`accelerate launch` and `accelerate config` say it in environment variables. The Trainer shards the model and its
optimizer, and every process takes part in each forward and each save (train.finetune, train.dev). What would be ignored
without a word, or would end at the first checkpoint, is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

from submission.errors import UserError

WHOLE = "FULL_STATE_DICT"


def _asked(environment: Mapping[str, str]) -> bool:
    return environment.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def check_sharding(environment: Mapping[str, str]) -> None:
    """Raise UserError for an FSDP whose checkpoints would not hold the adapters whole; before anything is loaded."""
    if not _asked(environment):
        return
    version, kind = environment.get("FSDP_VERSION", "1"), environment.get("FSDP_STATE_DICT_TYPE") or "nothing"
    if version != "2":
        raise UserError(
            "accelerate", f"asks for FSDP version {version}, which transformers gives up", "set fsdp_version to 2"
        )
    if WHOLE not in kind:
        what = f"asks for {kind} under FSDP: no process would write the adapters whole"
        raise UserError("accelerate", what, f"set fsdp_state_dict_type to {WHOLE}")


def check_sharded(environment: Mapping[str, str], sharded: bool) -> None:
    """Raise UserError where FSDP was asked for and the Trainer did not get it: accelerate has it for GPUs alone."""
    if _asked(environment) and not sharded:
        what = "asks for FSDP and does not do it: it sees no GPU, and every process would hold the whole model"
        raise UserError("accelerate", what, "run it where there are GPUs, or leave --use_fsdp out")
