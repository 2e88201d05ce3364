"""The stage functions of training: corpus, fine-tuning, merge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.store.store import StageFunction

if TYPE_CHECKING:
    from train.finetune import Task

Options = dict[str, Any]
Inputs = dict[str, Path]


def corpus(options: Options, inputs: Inputs, out: Path) -> None:
    """Sample and check what to train on; `data` is the folder that the corpora's folders are relative to."""
    from submission.system.recipe.training_options import CorpusOptions
    from submission.system.schema import parse_options
    from train.corpora.build import build_corpus

    build_corpus(
        inputs["data"],
        parse_options(CorpusOptions, options),
        options["trained_languages"],
        options["dev_languages"],
        options["window_seconds"],
        out,
    )


def finetune(options: Options, inputs: Inputs, out: Path) -> None:
    """Train LoRA adapters on the corpus, whose audio lies in `data`."""
    from submission.system.recipe.training_options import FinetuneOptions
    from submission.system.schema import parse_options
    from train.corpora.audio_digests import check_audio
    from train.finetune import finetune as train_adapters

    check_audio(inputs["corpus"], inputs["data"])
    choices = parse_options(FinetuneOptions, options)
    train_adapters(inputs["base"], inputs["corpus"], inputs["data"], task_of(options), choices, out)


def task_of(options: Mapping[str, Any]) -> Task:
    """Return what the model learns to do, from the options of the stage finetune."""
    from train.finetune import Task

    return Task(
        model_name=options["base_name"],
        prompt=options["prompt"],
        languages=options["languages"],
        end_token=options["end_token"],
    )


def merge(options: Options, inputs: Inputs, out: Path) -> None:
    """Merge the adapters into the base model."""
    from train.merge import merge_adapter, write_merge_report

    merge_adapter(inputs["base"], inputs["finetune"] / "adapter", out)
    write_merge_report(inputs["finetune"], out)


STAGES: dict[str, StageFunction] = {"corpus": corpus, "finetune": finetune, "merge": merge}
"""Stage -> the function that builds it."""
