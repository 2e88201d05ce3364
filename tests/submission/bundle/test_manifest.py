"""manifest.json: the schema that its writer keeps and that MAN01 checks."""

from __future__ import annotations

import json

import pytest

from submission.bundle.manifest import schema_faults


@pytest.fixture
def manifest(good) -> dict:
    return json.loads((good / "manifest.json").read_text(encoding="utf-8"))


def test_a_written_manifest_keeps_its_schema(manifest):
    assert list(schema_faults(manifest)) == []


def test_every_fault_of_the_schema_is_named(manifest):
    manifest |= {"version": 2, "techniques": {}, "inputs": {"base": 1}}
    manifest["files"]["x"] = {"bytes": True, "sha256": "0" * 64}
    assert list(schema_faults(manifest)) == [
        "version: expected 1, got 2",
        "techniques: expected a list, got {}",
        "inputs.base: expected a SHA-256 in hexadecimal, got 1",
        "files: 'x' has not exactly bytes and sha256",
    ]
