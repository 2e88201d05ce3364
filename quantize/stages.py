"""The stages of this room: ranking layers, calibrating AWQ, packing. Each is found built, or built from the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from submission.model.codecs import Codec
from submission.model.families import read_config, tensors
from submission.model.forecast import companion_files, resolve_codecs, role_matches
from submission.model.ranking import RANKING, read_order
from submission.store.launch import obtain_together
from submission.store.store import Store
from submission.system.recipe import Override
from submission.system.system import System


def sensitivity(system: System, store: Store) -> Path:
    """Return the folder of the stage sensitivity: ranking.json and its picture.

    Under `torchrun` or `accelerate launch` the processes share the batches, and all but the first end here.
    """
    assert system.recipe.quantize.ranked is not None, "a system without a ranked override has no such stage"
    checkpoint, corpus, data = _read(system, store)

    def make(out: Path) -> None:
        from quantize.ranking.sensitivity import analyse

        analyse(
            checkpoint,
            corpus,
            data,
            out,
            options=system.recipe.quantize,
            prompts=_prompts(system),
            end_token=system.campaign.model.end_token,
            dtype=system.recipe.decode.dtype,
        )

    folder = obtain_together(store, system.stage("sensitivity"), make)
    if folder is None:
        raise SystemExit(0)  # this process has done its share of the batches; the first one goes on alone
    return folder


def awq(system: System, store: Store, codecs: dict[str, Codec]) -> Path:
    """Return the folder of the stage awq: scales and awq_report.json; codecs: what the weights will become."""
    checkpoint, corpus, data = _read(system, store)

    def make(out: Path) -> None:
        import torch

        from quantize.calibration.awq import calibrate

        calibrate(
            checkpoint,
            codecs,
            corpus,
            data,
            out,
            solver=system.recipe.quantize.solver,
            options=system.recipe.quantize.awq,
            prompts=_prompts(system),
            end_token=system.campaign.model.end_token,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )

    return store.obtain(system.stage("awq"), make, resume=True)


def packed(system: System, store: Store) -> Path:
    """Return the folder of the stage quantize: model/ (the packed model), packing_report.json and a picture.

    A system whose layers are chosen by sensitivity gets the ranking once more, its chosen layers in another colour.
    """
    checkpoint = store.need(system.stage("merge"))
    codecs = codecs_of(system, store)
    quantize = system.recipe.quantize
    scales = awq(system, store, codecs) if quantize.awq is not None else None
    ranking = store.need(system.stage("sensitivity")) / RANKING if quantize.ranked is not None else None

    def make(out: Path) -> None:
        from quantize.calibration.folding import Folding
        from quantize.packing.pack import pack_system

        folding = None if scales is None else Folding.read(scales, read_config(checkpoint), codecs)
        pack_system(checkpoint, out, codecs, quantize.solver, folding)
        if ranking is not None:
            from quantize.ranking.chart import draw_ranking

            chosen = layers_with(codecs, quantize.ranked, read_config(checkpoint))
            draw_ranking(json.loads(ranking.read_text(encoding="utf-8")), out, chosen)

    return store.obtain(system.stage("quantize"), make, resume=True)


def layers_with(codecs: dict[str, Codec], override: Override, config: dict[str, Any]) -> set[int]:
    """Return the layers in which the role of an override has its codec; codecs: by the name of the weight."""
    return {
        spec.layer
        for spec in tensors(config)
        if spec.layer is not None and role_matches(spec.role, override.role) and codecs.get(spec.name) == override.codec
    }


def codecs_of(system: System, store: Store) -> dict[str, Codec]:
    """Return the codec of every weight that a system packs, by name; layers are ranked first where it asks for that."""
    checkpoint, quantize = store.need(system.stage("merge")), system.recipe.quantize
    return resolve_codecs(
        read_config(checkpoint),
        quantize.codecs,
        quantize.overrides,
        limit_bytes=system.campaign.size_limit_bytes,
        other_bytes=sum(path.stat().st_size for path in companion_files(checkpoint)),
        ranking=None if quantize.ranked is None else read_order(sensitivity(system, store)),
    )


def _read(system: System, store: Store) -> tuple[Path, Path, Path]:
    """Return what analysis and calibration read: the merged checkpoint, the corpus's folder, the data folder."""
    return store.need(system.stage("merge")), store.need(system.stage("corpus")), system.data_path(store)


def _prompts(system: System) -> dict[str, str]:
    """Return pair -> what the model is told before it translates."""
    from submission.runtime.prompt import render_prompt

    return {p.name: render_prompt(system.campaign.prompt, p.target_language) for p in system.campaign.pairs}
