"""Model families at run time: one file each, registered by the `model_type` of their configuration."""

from __future__ import annotations

from typing import Any

from submission.model.families import family_of
from submission.runtime.families import gemma4_unified, qwen2_audio
from submission.runtime.families.family import FamilyRuntime

RUNTIMES: dict[str, FamilyRuntime] = {
    "qwen2_audio": qwen2_audio.RUNTIME,
    "gemma4_unified": gemma4_unified.RUNTIME,
}
"""The run-time side of `submission.model.families.FAMILIES`, by the same names."""


def runtime_of(config: dict[str, Any]) -> FamilyRuntime:
    """Return the run-time side of the family of a checkpoint's configuration; UserError for an unknown model."""
    return RUNTIMES[family_of(config).name]


def runtime_of_processor(processor: Any) -> FamilyRuntime:
    """Return the family whose processor this is; TypeError for a processor of none."""
    for runtime in RUNTIMES.values():
        if isinstance(processor, runtime.processor_class):
            return runtime
    raise TypeError(f"{type(processor).__name__} is the processor of no registered family: {', '.join(RUNTIMES)}")
