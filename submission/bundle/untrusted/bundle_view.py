"""A bundle as the checks read it: its files, and the facts derived from them, each computed once."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from submission.bundle.description import Facts, derive_facts, parameter_count
from submission.bundle.efficiency import EFFICIENCY_FILE, EfficiencyRecord, parse_efficiency
from submission.bundle.manifest import NAME, RECIPE_FILE, SEGMENTER
from submission.bundle.untrusted.configuration import expected_tensors
from submission.bundle.untrusted.folder import MOST_JSON_BYTES, Folder
from submission.bundle.untrusted.strict_json import Unreadable
from submission.bundle.untrusted.tensor_header import read_header
from submission.errors import UserError
from submission.model.checkpoint import LOADED_BY, plain_config
from submission.model.families import FAMILIES, read_config, shipped_config, tensors
from submission.model.families.family import Family
from submission.model.families.json_shape import shown
from submission.model.safetensors_header import BadHeader, SafetensorsHeader
from submission.progress import progress
from submission.system.campaign import Campaign
from submission.system.data_folder import shipped_models
from submission.system.recipe.recipe import Recipe
from submission.system.schema import parse
from submission.text.characters import printable

T = TypeVar("T")

CONFIG = "model/config.json"
WEIGHTS_ENTRY = "transformers_weights"
MOST_FAULTS = 100
MOST_SEGMENTER_BYTES = 2 << 30
"""The published classifiers have 0.8 GB."""
MOST_OTHER_BYTES = 64 << 20
MOST_PARAMETERS = 20_000_000_000
"""Of a base model that is not at hand, where the campaign has no limit of bytes either."""


class BundleView(Folder):
    """A bundle's folder and the campaign that it is checked against."""

    def __init__(self, path: Path, campaign: Campaign, base: Path | None = None) -> None:
        """base: folder of the campaign's base model, where the checker has it; the miniature's own ships."""
        super().__init__(path)
        self.campaign = campaign
        self.family = FAMILIES[campaign.model.architecture]
        base = shipped_models(campaign)["base"] if base is None and campaign.made_here else base
        self.base = None if base is None else Folder(base)

    @cached_property
    def manifest(self) -> dict[str, Any] | Unreadable:
        """The manifest, whose schema MAN01 checks, or why it cannot be read."""
        return self._table_or_reason(NAME)

    @property
    def manifest_files(self) -> dict[str, Any]:
        """The files that a readable manifest lists, unchecked; empty where there is none."""
        files = None if isinstance(self.manifest, Unreadable) else self.manifest.get("files")
        return files if isinstance(files, dict) else {}

    @property
    def manifest_inputs(self) -> dict[str, Any]:
        """The inputs that a readable manifest lists, unchecked; empty where there is none."""
        inputs = None if isinstance(self.manifest, Unreadable) else self.manifest.get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    @cached_property
    def config(self) -> dict[str, Any] | Unreadable:
        """The model's configuration, or why it cannot be read."""
        return self._table_or_reason(CONFIG)

    def _table_or_reason(self, path: str) -> dict[str, Any] | Unreadable:
        try:
            return self.table(path)
        except Unreadable as error:
            return error

    @cached_property
    def config_faults(self) -> list[str]:
        """What in a readable configuration of the campaign's kind of model its family does not have."""
        if isinstance(self.config, Unreadable) or self.config.get("model_type") != self.family.name:
            return []
        faults = list(itertools.islice(self.family.config_shape(plain_config(self.config), ""), MOST_FAULTS))
        if self.config.get(WEIGHTS_ENTRY, LOADED_BY) != LOADED_BY:
            faults.append(f"{WEIGHTS_ENTRY}: expected '{LOADED_BY}', got {shown(self.config[WEIGHTS_ENTRY])}")
        return faults

    @cached_property
    def larger_sizes(self) -> list[str]:
        """Names of the sizes in which the model is larger than its base."""
        base, sizes = self.base_sizes or {}, self.sizes or {}
        return [name for name, size in base.items() if sizes.get(name, 0) > size]

    @cached_property
    def expected_tensors(self) -> dict[str, tuple[str, tuple[int, ...]]] | Unreadable:
        """Name -> (dtype, shape) of what the configuration implies, or why it is not valid."""
        if isinstance(self.config, Unreadable):
            return self.config
        if self.config_faults:
            return Unreadable(self.config_faults[0])
        if self.larger_sizes:  # the work here grows with them
            return Unreadable(f"{self.larger_sizes[0]}: larger than the base model's")
        try:
            return expected_tensors(self.config)
        except Unreadable as error:
            return error

    @cached_property
    def model_files(self) -> dict[str, Any]:
        """Name -> value of the JSON files beside configuration and weights that the family knows, or Unreadable."""
        return _model_files(self, self.family, "model/")

    @cached_property
    def base_files(self) -> dict[str, Any] | None:
        """The same of the campaign's base model; None where it is not at hand."""
        return None if self.base is None else _model_files(self.base, self.family, "")

    @cached_property
    def _base_config(self) -> dict[str, Any] | None:
        """The configuration of the campaign's base model, or None for one that is not at hand."""
        return read_config(self.base.path) if self.base is not None else shipped_config(self.campaign.model.name)

    @cached_property
    def left_out_roles(self) -> tuple[str, ...]:
        """Roles that a system for speech may leave out, of which the base model has tensors and the model none."""
        if self._base_config is None or isinstance(self.config, Unreadable) or self.sizes is None:
            return ()
        if isinstance(self.expected_tensors, Unreadable):
            return ()
        left = {spec.role for spec in tensors(self._base_config)} - {spec.role for spec in tensors(self.config)}
        return tuple(role for role in self.family.droppable_roles if role in left)

    @cached_property
    def base_settings(self) -> dict[str, Any] | None:
        """What besides sizes decides what the base model computes; None where it is not at hand."""
        return None if self._base_config is None else self.family.settings(self._base_config)

    @cached_property
    def base_sizes(self) -> dict[str, int] | None:
        """The sizes of the campaign's base model, or None for one that does not ship."""
        config = self._base_config
        return None if config is None else self.family.sizes(config)

    @cached_property
    def base_parameters(self) -> int | None:
        """How many parameters the campaign's base model has, or None for one that does not ship."""
        return None if self._base_config is None else parameter_count(self._base_config)

    @cached_property
    def parameters(self) -> int | None:
        """How many parameters the model's configuration gives, or None where it is not a packed base model's."""
        if self.sizes is None or isinstance(self.config, Unreadable) or isinstance(self.expected_tensors, Unreadable):
            return None
        return parameter_count(self.config)

    @cached_property
    def sizes(self) -> dict[str, int] | None:
        """The sizes that the model's configuration gives, or None where it is not one of the base model's family."""
        if isinstance(self.config, Unreadable) or self.config_faults:
            return None
        if self.config.get("model_type") != self.family.name:
            return None
        try:
            return self.family.sizes(self.config)
        except UserError:
            return None  # which makes the tensors unreadable too

    @cached_property
    def headers(self) -> dict[str, SafetensorsHeader | BadHeader]:
        """Path -> header of every safetensors file of the model, or what is wrong with it.

        Together they may be as long as one alone, so that reading many files costs no more memory than one.
        """
        headers: dict[str, SafetensorsHeader | BadHeader] = {}
        left = MOST_JSON_BYTES
        for entry in self.under("model"):
            if entry.path.lower().endswith(".safetensors"):
                try:
                    headers[entry.path] = header = read_header(self, entry.path, left)
                    left -= header.size_bytes
                except BadHeader as error:
                    headers[entry.path] = error
        return headers

    @cached_property
    def recipe(self) -> Recipe | Unreadable:
        """The resolved recipe, or why there is none."""
        return self._read_strictly(RECIPE_FILE, lambda table: parse(Recipe, table, RECIPE_FILE))

    @cached_property
    def efficiency(self) -> EfficiencyRecord | Unreadable | None:
        """What was measured of speed and memory, or why it cannot be read; None where there is no such file."""
        return self._read_strictly(EFFICIENCY_FILE, parse_efficiency) if EFFICIENCY_FILE in self.files else None

    def _read_strictly(self, path: str, read: Callable[[dict[str, Any]], T]) -> T | Unreadable:
        """Return what a strict reader makes of a JSON object, or why it does not."""
        try:
            return read(self.table(path))
        except UserError as error:
            return Unreadable(f"{printable(error.where)}: {printable(error.what, 300)}")
        except OverflowError as error:
            return Unreadable(f"holds an impossible value ({error})")
        except Unreadable as error:
            return error

    @cached_property
    def facts(self) -> Facts | None:
        """The facts about the model, derived again; None where configuration or recipe are not valid."""
        config, recipe = self.config, self.recipe
        if isinstance(config, Unreadable) or isinstance(self.expected_tensors, Unreadable):
            return None
        return None if isinstance(recipe, Unreadable) else derive_facts(config, self.model_bytes, self.campaign, recipe)

    @property
    def outputs(self) -> dict[str, str]:
        """Path of every output that the campaign requires -> its test set."""
        return {f"{pair.name}/{name}.txt": name for pair in self.campaign.pairs for name in pair.testsets}

    @cached_property
    def beyond_budget(self) -> set[str]:
        """Paths of the files that are condemned unread: beyond what the files of a bundle may have together.

        The model may have as many bytes as the campaign's limit or its base model allows, the segmenter
        MOST_SEGMENTER_BYTES, all other files MOST_OTHER_BYTES.
        """
        limit = self.campaign.size_limit_bytes
        # Without a limit a model is still no larger than its base at four bytes a weight.
        model = 4 * (self.base_parameters or MOST_PARAMETERS) + MOST_OTHER_BYTES if limit is None else limit
        left = {"model": model, SEGMENTER: MOST_SEGMENTER_BYTES, "": MOST_OTHER_BYTES}
        beyond = set()
        for path, entry in self.files.items():
            part = path.partition("/")[0]
            part = part if part in left else ""
            if entry.size_bytes > left[part]:
                beyond.add(path)
            else:
                left[part] -= entry.size_bytes
        return beyond

    @cached_property
    def digests(self) -> dict[str, str]:
        """Path -> SHA-256 of every readable file whose size is the one that the manifest gives.

        A file of another size is reported as MAN04 and not hashed, one beyond the budget as MAN08.
        """
        wanted = [
            entry
            for path, entry in self.files.items()
            if path not in self.beyond_budget
            and isinstance(listed := self.manifest_files.get(path), dict)
            and listed.get("bytes") == entry.size_bytes
        ]
        digests = {}
        with progress("verify: hashing", sum(e.size_bytes for e in wanted), "bytes") as tick:
            for entry in wanted:
                digest = hashlib.sha256()
                try:
                    for chunk in self.chunks(entry.path):
                        digest.update(chunk)
                        tick(len(chunk))
                except Unreadable:
                    continue
                digests[entry.path] = digest.hexdigest()
        return digests

    @property
    def model_bytes(self) -> int:
        """Bytes of every file of the model folder, tokenizer and configuration included."""
        return sum(e.size_bytes for e in self.under("model"))


def _model_files(folder: Folder, family: Family, prefix: str) -> dict[str, Any]:
    """Return name -> JSON value, or Unreadable, of the files that a family knows and that are there."""
    values: dict[str, Any] = {}
    for name, file in family.files.items():
        if file.shape is not None and prefix + name in folder.files:
            try:
                values[name] = folder.json(prefix + name, file.most_bytes)
            except Unreadable as error:
                values[name] = error
    return values
