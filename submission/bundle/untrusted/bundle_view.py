"""A bundle as the checks read it: its files, and the facts derived from them, each computed once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from submission.bundle.description import Facts, derive_facts, parameter_count
from submission.bundle.manifest import NAME, RECIPE_FILE
from submission.bundle.untrusted.configuration import expected_tensors
from submission.bundle.untrusted.folder import MOST_JSON_BYTES, Folder
from submission.bundle.untrusted.strict_json import Unreadable
from submission.bundle.untrusted.tensor_header import read_header
from submission.errors import UserError
from submission.model.families import FAMILIES, read_config, shipped_config
from submission.model.safetensors_header import BadHeader, SafetensorsHeader
from submission.progress import progress
from submission.system.campaign import Campaign
from submission.system.data_folder import SHIPPED
from submission.system.recipe import Recipe
from submission.system.schema import parse
from submission.text.characters import printable

CONFIG = "model/config.json"


class BundleView(Folder):
    """A bundle's folder and the campaign that it is checked against."""

    def __init__(self, path: Path, campaign: Campaign) -> None:
        super().__init__(path)
        self.campaign = campaign

    @cached_property
    def manifest(self) -> dict[str, Any] | Unreadable:
        """The manifest, whose schema MAN01 checks, or why it cannot be read."""
        return self._table_or_reason(NAME)

    @property
    def manifest_files(self) -> dict[str, Any]:
        """The files that a readable manifest lists, unchecked; empty where there is none."""
        files = None if isinstance(self.manifest, Unreadable) else self.manifest.get("files")
        return files if isinstance(files, dict) else {}

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
    def expected_tensors(self) -> dict[str, tuple[str, tuple[int, ...]]] | Unreadable:
        """Name -> (dtype, shape) of what the configuration implies, or why it is not valid."""
        if isinstance(self.config, Unreadable):
            return self.config
        try:
            return expected_tensors(self.config)
        except Unreadable as error:
            return error

    @cached_property
    def _base_config(self) -> dict[str, Any] | None:
        """The configuration of the campaign's base model, or None for one that does not ship."""
        return read_config(SHIPPED["base"]) if self.campaign.made_here else shipped_config(self.campaign.model.name)

    @property
    def base_sizes(self) -> dict[str, int] | None:
        """The sizes of the campaign's base model, or None for one that does not ship."""
        config = self._base_config
        return None if config is None else FAMILIES[self.campaign.model.architecture].sizes(config)

    @property
    def base_parameters(self) -> int | None:
        """How many parameters the campaign's base model has, or None for one that does not ship."""
        return None if self._base_config is None else parameter_count(self._base_config)

    @property
    def parameters(self) -> int | None:
        """How many parameters the model's configuration gives, or None where it is not a packed base model's."""
        if self.sizes is None or isinstance(self.config, Unreadable):
            return None
        return parameter_count(self.config)

    @cached_property
    def sizes(self) -> dict[str, int] | None:
        """The sizes that the model's configuration gives, or None where it is not a packed base model's."""
        if isinstance(self.config, Unreadable) or isinstance(self.expected_tensors, Unreadable):
            return None
        if self.config.get("model_type") != self.campaign.model.architecture:
            return None
        return FAMILIES[self.campaign.model.architecture].sizes(self.config)

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
        try:
            return parse(Recipe, self.table(RECIPE_FILE), RECIPE_FILE)
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
    def digests(self) -> dict[str, str]:
        """Path -> SHA-256 of every readable file whose size is the one that the manifest gives.

        A file of another size is reported as MAN04 and not hashed.
        """
        wanted = [
            entry
            for path, entry in self.files.items()
            if isinstance(listed := self.manifest_files.get(path), dict) and listed.get("bytes") == entry.size_bytes
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
