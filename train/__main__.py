"""`python -m train`: from corpora to a fine-tuned checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from submission.cli import add_system_arguments, open_system, run
from submission.store import Store
from submission.system import System
from train.launch import obtain_together


def _base(system: System, store: Store) -> Path:
    return system.data_path(store) / "models" / system.campaign.model.name


def _campaign_languages(system: System) -> dict[str, str]:
    """Return code -> name in the prompt of the campaign's target languages."""
    return {pair.target: pair.target_language for pair in system.campaign.pairs}


def corpus(args: argparse.Namespace) -> None:
    """Draw and check what to train on."""
    system, store = open_system(args)
    data = system.data_path(store)

    def make(out: Path) -> None:
        from train.corpus import build_corpus

        dev = _campaign_languages(system)
        trained = system.recipe.corpus.trained_languages(dev)
        build_corpus(data, system.recipe.corpus, list(trained), list(dev), system.campaign.model.window_seconds, out)

    print(store.obtain(system.stage("corpus"), make))


def finetune(args: argparse.Namespace) -> None:
    """Train LoRA adapters on the corpus; a killed run goes on where it was. `torchrun -m train finetune` shares it."""
    system, store = open_system(args)
    data, drawn = system.data_path(store), store.need(system.stage("corpus"))

    def make(out: Path) -> None:
        from train.finetune import Task, finetune

        model = system.campaign.model
        task = Task(
            model_name=model.name,
            prompt=system.campaign.prompt,
            languages=system.recipe.corpus.trained_languages(_campaign_languages(system)),
            end_token=model.end_token,
        )
        finetune(_base(system, store), drawn, data, task, system.recipe.finetune, out)

    folder = obtain_together(store, system.stage("finetune"), make)
    if folder is not None:
        print(folder)


def merge(args: argparse.Namespace) -> None:
    """Fold the adapters into the base model."""
    system, store = open_system(args)
    base, tuned = _base(system, store), store.need(system.stage("finetune"))

    def make(out: Path) -> None:
        from train.merge import merge_adapter, write_provenance

        merge_adapter(base, tuned / "adapter", out)
        write_provenance(tuned, out)

    print(store.obtain(system.stage("merge"), make))


VERBS = (corpus, finetune, merge)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Corpora, LoRA fine-tuning and the merge.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for function in VERBS:
        verb = verbs.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        add_system_arguments(verb)
        verb.set_defaults(verb=function)
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
