"""A system: recipe × campaign, with its data folder and its stages."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from submission.errors import UserError
from submission.store.input_files import InputDigests
from submission.store.records import contents_changed, read_content
from submission.store.store import Input, Stage, Store
from submission.system import stage_chain
from submission.system.campaign import Campaign, Pair
from submission.system.consistency import check_together
from submission.system.data_folder import (
    CLASSIFIER,
    COMET_PART,
    OPEN_TESTSET,
    DataFolder,
    Required,
    comet_digest,
    needs_classifier,
    parts_read,
    required_parts,
)
from submission.system.model_size import chooses_layers
from submission.system.pipeline import has_step
from submission.system.recipe.recipe import Recipe


class System:
    """One recipe on one campaign."""

    campaign: Campaign
    recipe: Recipe

    def __init__(
        self, campaign: Campaign, recipe: Recipe, data: Path | None, store: Path, *, arguments: str = ""
    ) -> None:
        """data: the data folder, None for the one that a stage makes; store: where digests of inputs are cached.

        arguments: how a command line names this system, for hints of what to run.
        """
        if data is not None and not data.is_dir():
            raise UserError(
                f"--data {data}", "no such folder", "name the folder that holds models/, corpora/, testsets/"
            )
        check_together(campaign, recipe)
        self.campaign = campaign
        self.recipe = recipe
        self.given_data = data
        self.arguments = arguments
        self._store = store
        self._digests = InputDigests(store / "sources")
        self._stages: dict[tuple[str, str], Stage] = {}
        self._contents_changed = -1

    @property
    def name(self) -> str:
        """The system's name, and its folder's below `dist/`."""
        return f"{self.campaign.name}-{self.recipe.name}"

    def pairs_and_testsets(self) -> list[tuple[Pair, str]]:
        """Return every (pair, test set) that is decoded, the open one last in each pair."""
        return [(pair, name) for pair in self.campaign.pairs for name in (*pair.testsets, OPEN_TESTSET)]

    # --- the data folder ---

    @property
    def makes_data(self) -> bool:
        """Whether the data folder is a stage of this system."""
        return self.campaign.made_here and self.given_data is None

    @cached_property
    def data(self) -> DataFolder:
        """The data folder, as inputs of stages."""
        stage = stage_chain.data_stage(self.campaign, self.arguments, self._digests) if self.makes_data else None
        reads = parts_read(self.campaign, self.recipe)
        return DataFolder(given=self.given_data, stage=stage, reads=reads, digests=self._digests)

    def required(self) -> list[Required]:
        """Return the parts of a data folder that campaign and recipe need."""
        return required_parts(self.campaign, self.recipe)

    def missing(self) -> list[Required]:
        """Return what the data folder lacks; nothing where a stage makes it."""
        return [] if self.makes_data else self.data.missing(self.required())

    def data_path(self, store: Store) -> Path:
        """Return the data folder; UserError where it is not built, not named, or lacks a part."""
        if not self.makes_data:
            self.data.check(self.campaign, self.required())
        return store.locate(self.data.whole([]))

    def classifier_path(self, store: Store) -> Path | None:
        """Return the folder of the segmentation classifier, None where no recording is segmented with it."""
        return self.data_path(store) / CLASSIFIER if needs_classifier(self.campaign, self.recipe) else None

    def external_inputs(self) -> dict[str, str]:
        """Return what does not come from this program: part of the data folder, or shipped model -> digest."""
        if self.data.stage is not None:
            return self.data.stage.digests
        return {required.part: self.data.part(required.part).digest for required in self.required()}

    def comet_model(self) -> Path | None:
        """Return where the data folder holds a COMET checkpoint, or None where it does not."""
        folder = self.given_data / COMET_PART if self.given_data else None
        return folder if folder and folder.is_dir() else None

    def comet_digest(self, folder: Path) -> str:
        """Return the digest of a COMET checkpoint; UserError where the folder is none."""
        return comet_digest(folder, self._digests)

    @cached_property
    def ranks_layers(self) -> bool:
        """Whether layers are chosen by a sensitivity analysis: not where the model fits without choosing any."""
        return chooses_layers(self)

    # --- stages ---

    def stages(self) -> list[Stage]:
        """Return every stage of a build in order."""
        return list(self._chain().values())

    def stage(self, name: str, part: str = "") -> Stage:
        """Return one stage; KeyError where this system has none of that name."""
        return self._chain()[name, part]

    def model_stage(self) -> Stage:
        """Return the stage whose artifact holds the packed model that is decoded and uploaded."""
        return self.stage("recover" if has_step(self, "recover") else "quantize")

    def content(self, stage: Stage) -> Input:
        """Return a stage's artifact as an input that stands for its content, once it is built, and not for its key."""
        return replace(stage.artifact, digest=read_content(self._store, stage.key) or stage.key)

    def _chain(self) -> dict[tuple[str, str], Stage]:
        """Return the stages by name and part, made again when the content of an artifact came to be known."""
        changed = contents_changed(self._store)
        if not self._stages or changed != self._contents_changed:
            self._contents_changed = changed
            self._stages = {(stage.name, stage.part): stage for stage in stage_chain.build_stages(self)}
        return self._stages

    def loss_stage(self) -> Stage:
        """Return the stage of the packed model's cross-entropy on the dev set, which only a report measures."""
        return stage_chain.loss_stage(self)

    def comet_stage(self, folder: Path, part: str = "") -> Stage:
        """Return the stage of COMET's figures by a checkpoint: of one <pair>/<NAME>, or of all of them."""
        return stage_chain.comet_stage(self, folder, self.comet_digest(folder), part)
