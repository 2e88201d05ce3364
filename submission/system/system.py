"""A system: recipe × campaign, the stages that build it, and what each of them reads.

    data ─► corpus ─► finetune ─► merge ─► sensitivity ─► awq ─► quantize ─┐
      └───► segment:<NAME> ────────────────────────────────────────────────┴─► decode:<pair>/<NAME> ─┐
                                                            score ◄── score:<pair>/<NAME> ◄──────────┘

A stage's key covers its own options and its inputs' keys, so the plan of a whole system is known before any
of it is built. This table is the only place that says what a stage reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.model.families import FAMILIES
from submission.model.forecast import EVERY, LINEARS
from submission.store.digests import sha256_text
from submission.store.store import Stage, Store
from submission.system.campaign import Campaign, Pair
from submission.system.data_folder import (
    CLASSIFIER,
    Required,
    cached_tree_digest,
    check_parts,
    comet_digest,
    missing_parts,
    model_digest,
    needs_classifier,
    required_parts,
)
from submission.system.recipe import Recipe
from submission.system.schema import nearest

# Raise a stage's number in the commit that changes what it makes.
REVISIONS = {
    "data": 1,
    "corpus": 3,
    "finetune": 3,
    "merge": 3,
    "sensitivity": 1,
    "awq": 2,
    "quantize": 3,
    "segment": 3,
    "decode": 4,
    "loss": 2,
    "score": 5,
    "comet": 1,
}

# ACL 60/60 eval with its gold segments: decoded and scored beside the blind sets, never uploaded.
OPEN_TESTSET = "ACL6060"
OPEN_FOLDER = "acl_6060/eval"

# Optional: what `nox -s score` scores with.
COMET_PART = "models/comet"

MINIATURE = Path(__file__).parents[1] / "miniature"
# What ships with the repository and goes into the miniature's data folder.
SHIPPED = {"base": MINIATURE / "base", "shas": MINIATURE / "shas"}


class System:
    """Everything that the rooms ask about one recipe on one campaign."""

    def __init__(
        self, campaign: Campaign, recipe: Recipe, data: Path | None, cache: Path, *, arguments: str = ""
    ) -> None:
        """data: the data folder, None for the one that is made here; cache: where digests are remembered.

        arguments: how a person names this system on a command line, for hints of what to run.
        """
        if data is not None and not data.is_dir():
            raise UserError(
                f"--data {data}", "no such folder", "name the folder that holds models/, corpora/, testsets/"
            )
        _check(campaign, recipe)
        self.campaign = campaign
        self.recipe = recipe
        self.given_data = data
        self._cache = cache
        self._arguments = arguments

    @property
    def name(self) -> str:
        """The system's name, and its folder's below `dist/`."""
        return f"{self.campaign.name}-{self.recipe.name}"

    # --- the data folder ---

    @property
    def makes_data(self) -> bool:
        """Whether the data folder is a stage of this system."""
        return self.campaign.made_here and self.given_data is None

    def data_path(self, store: Store) -> Path:
        """Return the data folder; UserError where it is not built, not named, or lacks a part."""
        if self.makes_data:
            return store.need(self.stage("data"))
        missing = self.missing()
        if missing:
            place = str(self.given_data or "DIR")
            lines = "".join(f"  {r.part}: {', '.join(r.holds)}\n      {r.get.replace('DIR', place)}\n" for r in missing)
            looked = f"looked in {place}" if self.given_data else "no --data DIR was given"
            raise UserError(
                f"campaign {self.campaign.name}",
                f"the data folder lacks {len(missing)} of {len(self.required())} parts ({looked})",
                f"put these there and run the same command with --data {place}:\n{lines}".rstrip(),
            )
        check_parts(self.given_data, self.campaign)  # type: ignore[arg-type]
        return self.given_data  # type: ignore[return-value]

    def classifier_path(self, store: Store) -> Path | None:
        """Return the folder of the segmentation classifier, None where no recording is cut with it."""
        return self.data_path(store) / CLASSIFIER if needs_classifier(self.campaign, self.recipe) else None

    def required(self) -> list[Required]:
        return required_parts(self.campaign, self.recipe)

    def missing(self) -> list[Required]:
        """Return what the data folder lacks; nothing where the folder is made here."""
        if self.makes_data:
            return []
        return missing_parts(self.given_data, self.required()) if self.given_data else self.required()

    def _source(self, part: str) -> str:
        """Return the digest of a part of the data folder; `absent` where an optional part is not there."""
        if self.makes_data:
            return sha256_text(f"{self._data_stage.key}/{part}")
        folder = self.given_data / part if self.given_data else None
        return cached_tree_digest(folder, self._cache) if folder and folder.is_dir() else "absent"

    def external_inputs(self) -> dict[str, str]:
        """Return what does not come from this program: part of the data folder, or shipped model -> digest."""
        if self.makes_data:
            return dict(self._data_stage.inputs)
        return {required.part: self._source(required.part) for required in self.required()}

    # --- stages ---

    def stages(self) -> list[Stage]:
        """Return every stage in building order."""
        return list(self._stages.values())

    def stage(self, name: str, part: str = "") -> Stage:
        """Return one stage; KeyError where this system has none of that name."""
        return self._stages[name, part]

    @cached_property
    def _stages(self) -> dict[tuple[str, str], Stage]:
        return {(stage.name, stage.part): stage for stage in self._chain()}

    @cached_property
    def _data_stage(self) -> Stage:
        shipped = {name: model_digest(folder) for name, folder in SHIPPED.items() if folder.is_dir()}
        return self._make("data", "submission.miniature data", {"model": self.campaign.model.name}, shipped)

    def _chain(self) -> Iterator[Stage]:
        campaign, recipe = self.campaign, self.recipe
        if self.makes_data:
            yield self._data_stage
        asked = {"prompt": campaign.prompt, "end_token": campaign.model.end_token}
        languages = {p.target: p.target_language for p in campaign.pairs}
        trained = recipe.corpus.trained_languages(languages)
        base = self._source(f"models/{campaign.model.name}")

        corpora = {f"corpus {s.name}": self._source(s.part) for s in recipe.corpus.sources}
        corpus = self._make(
            "corpus",
            "train corpus",
            {
                **asdict(recipe.corpus),
                "languages": sorted(trained),
                "dev_languages": sorted(languages),
                "window_seconds": campaign.model.window_seconds,
            },
            {**corpora, "dev": self._source("acl_6060/dev")},
        )
        yield corpus
        finetune = self._make(
            "finetune",
            "train finetune",
            {**asdict(recipe.finetune), **asked, "base_name": campaign.model.name, "languages": trained},
            {"base": base, "corpus": corpus.key},
        )
        yield finetune
        merge = self._make("merge", "train merge", {}, {"base": base, "finetune": finetune.key})
        yield merge
        quantization = list(self._quantization(merge, corpus, asked))
        yield from quantization
        yield from self._evaluation(quantization[-1], asked)

    def _quantization(self, merge: Stage, corpus: Stage, asked: dict[str, Any]) -> Iterator[Stage]:
        """Yield packing, and before it the analysis and the calibration where the recipe asks for them."""
        quantize, inputs = self.recipe.quantize, {"merge": merge.key}
        spoken = asked | self._spoken | {"dtype": self.recipe.decode.dtype}
        packed = {"solver": quantize.solver, "codecs": asdict(quantize)["codecs"]}
        if quantize.ranked is not None:
            swapped = {"role": quantize.ranked.role, "codec": quantize.ranked.codec.to_dict()}
            sensitivity = self._make(
                "sensitivity", "quantize sensitivity", {**packed, **swapped, **spoken}, inputs | {"corpus": corpus.key}
            )
            yield sensitivity
            inputs["sensitivity"] = sensitivity.key
        packed["overrides"] = asdict(quantize)["overrides"]
        if any(override.count == "fit" for override in quantize.overrides):
            packed["limit"] = self.campaign.size_limit_bytes
        if quantize.awq is not None:
            options = {**packed, **asdict(quantize.awq), **asked, **self._spoken}
            awq = self._make("awq", "quantize awq", options, inputs | {"corpus": corpus.key})
            yield awq
            inputs["awq"] = awq.key
        yield self._make("quantize", "quantize pack", packed, inputs)

    def _evaluation(self, quantize: Stage, asked: dict[str, Any]) -> Iterator[Stage]:
        """Yield segmentation, decoding and scoring; segments are shared by pairs, recipes and models."""
        segments = {t.name: self._segment(t.name, t.segmentation) for t in self.campaign.testsets}
        yield from segments.values()
        decodes, asked_for = {}, self.pairs_and_testsets()
        for pair, testset in asked_for:
            inputs = {"model": quantize.key, "audio": self._source(self.testset_part(testset))}
            if testset in segments:
                inputs["segments"] = segments[testset].key
            stage = self._make(
                "decode",
                "evaluate decode",
                {**asdict(self.recipe.decode), **asked, "target_language": pair.target_language},
                inputs,
                part=f"{pair.name}/{testset}",
            )
            decodes[stage.part] = stage
            yield stage
        scores = [self._score(pair, testset, decodes[f"{pair.name}/{testset}"]) for pair, testset in asked_for]
        yield from scores
        yield self._make("score", "evaluate score", {}, {stage.part: stage.key for stage in scores})

    def _score(self, pair: Pair, testset: str, decode: Stage) -> Stage:
        """Return the scoring of one test set and pair, which any system that decodes it alike finds done."""
        given = testset == OPEN_TESTSET or self.campaign.testset(testset).segmentation == "given"
        inputs = {"decode": decode.key, "references": self._source(self.reference_part(testset))}
        options = {"target": pair.target, "given": given}
        return self._make("score", "evaluate score", options, inputs, part=decode.part)

    def _segment(self, name: str, segmentation: str) -> Stage:
        options: dict[str, Any] = {
            "segmentation": segmentation,
            "window_seconds": self.campaign.model.window_seconds,
        }
        inputs = {"audio": self._source(self.testset_part(name))}
        chosen = self.recipe.segment
        if segmentation == "free" and chosen.method == "gold":
            inputs["gold"] = self._source(self.reference_part(name))
        elif segmentation == "free":
            options |= asdict(chosen)
            if chosen.method == "fixed":
                del options["threshold"]
            if chosen.method in ("shas", "shas+vad"):
                inputs["classifier"] = self._source(CLASSIFIER)
                if not chosen.original_batching:
                    del options["batch_size"]  # changes the speed, not the segments
            else:
                del options["inference_times"], options["batch_size"], options["original_batching"]
        return self._make("segment", "segment run", options, inputs, part=name)

    def _make(self, name: str, command: str, options: dict[str, Any], inputs: dict[str, str], part: str = "") -> Stage:
        return Stage(
            name=name,
            part=part,
            revision=REVISIONS[name],
            options=options,
            inputs=inputs,
            command=f"python -m {command} {self._arguments}".rstrip(),
        )

    def loss_stage(self) -> Stage:
        """Return the stage that takes the packed model's cross-entropy on the dev set: measured, never uploaded."""
        inputs = {"model": self.stage("quantize").key, "corpus": self.stage("corpus").key}
        asked = {"prompt": self.campaign.prompt, "end_token": self.campaign.model.end_token}
        options = {**asked, **self._spoken, "dtype": self.recipe.decode.dtype}
        return self._make("loss", "evaluate ablate", options, inputs)

    def comet_model(self) -> Path | None:
        """Return where the data folder holds a COMET checkpoint, or None where it does not."""
        folder = self.given_data / COMET_PART if self.given_data else None
        return folder if folder and folder.is_dir() else None

    def comet_digest(self, folder: Path) -> str:
        """Return the digest of a COMET checkpoint; UserError where the folder is none."""
        return comet_digest(folder, self._cache)

    def comet_stage(self, model: str, part: str = "") -> Stage:
        """Return the stage of COMET by a model of that digest: of one <pair>/<NAME>, or all of them with `score`'s."""
        if part:
            inputs = {"lines": self.stage("score", part).key}
        else:
            parts = (f"{pair.name}/{name}" for pair, name in self.pairs_and_testsets())
            inputs = {part: self.comet_stage(model, part).key for part in parts} | {"score": self.stage("score").key}
        return self._make("comet", "evaluate comet", {}, {**inputs, "model": model}, part=part)

    @property
    def _spoken(self) -> dict[str, dict[str, str]]:
        return {"languages": {pair.name: pair.target_language for pair in self.campaign.pairs}}

    # --- names that several rooms need ---

    def pairs_and_testsets(self) -> list[tuple[Pair, str]]:
        """Return every (pair, test set) that is decoded, the open one last in each pair."""
        return [(pair, name) for pair in self.campaign.pairs for name in (*pair.testsets, OPEN_TESTSET)]

    @staticmethod
    def testset_part(name: str) -> str:
        """Return where a test set's recordings lie below the data folder."""
        return OPEN_FOLDER if name == OPEN_TESTSET else f"testsets/{name}"

    @staticmethod
    def reference_part(name: str) -> str:
        """Return where a test set's references lie below the data folder."""
        return OPEN_FOLDER if name == OPEN_TESTSET else f"references/{name}"


def _check(campaign: Campaign, recipe: Recipe) -> None:
    """Refuse what campaign and recipe, each right by itself, cannot mean together."""
    file = f"recipe {recipe.name}"
    targets = {p.target for p in campaign.pairs}
    if missing := targets - recipe.corpus.utterances.keys():
        fix = "give a number per target language, 0 for all"
        raise UserError(f"{file}: corpus.utterances", f"says nothing of {sorted(missing)}", fix)
    if recipe.segment.max_seconds > campaign.model.window_seconds:
        what = (
            f"{recipe.segment.max_seconds} s is over the {campaign.model.window_seconds} s that the model hears at once"
        )
        raise UserError(f"{file}: segment.max_seconds", what, "write less, so that no speech is cut off")
    for source in recipe.corpus.sources:
        if f"{source.part}/".startswith((f"{OPEN_FOLDER}/", "testsets/", "references/")):
            what = f"{source.part} holds what the system is tested on"
            raise UserError(f"{file}: corpus.sources: {source.name}", what, "train on something else")
    if recipe.upload.condition == "constrained" and any(not s.is_acl6060 for s in recipe.corpus.sources):
        what = "constrained means ACL 60/60 alone, and corpus.sources names others"
        raise UserError(f"{file}: upload.condition", what, 'write condition = "unconstrained"')
    if campaign.model.architecture not in FAMILIES:
        fix = nearest(campaign.model.architecture, FAMILIES)
        raise UserError(f"campaign {campaign.name}: model.architecture", "unknown", fix)
    roles = FAMILIES[campaign.model.architecture].roles
    prefixes = {role[:end] for role in roles for end, c in enumerate(role + ".") if c == "."}
    named = {
        "finetune.roles": recipe.finetune.roles,
        "quantize.codecs": tuple(k for k in recipe.quantize.codecs if k not in (EVERY, LINEARS)),
        "quantize.overrides": tuple(o.role for o in recipe.quantize.overrides),
    }
    for key, names in named.items():
        for name in names:
            if name not in prefixes:
                raise UserError(f"{file}: {key}", f"unknown role {name!r}", nearest(name, prefixes))
    pairs = {pair.name for pair in campaign.pairs}
    if recipe.quantize.awq is not None and (unknown := sorted(set(recipe.quantize.awq.pairs) - pairs)):
        what = f"the campaign has no pair {unknown[0]!r}"
        raise UserError(f"{file}: quantize.awq.pairs", what, nearest(unknown[0], pairs))
