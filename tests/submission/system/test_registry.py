"""Registries: every name has what it promises, and recipes and keys follow from it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import pytest

from submission.system.campaign import read_campaign
from submission.system.recipe.decoding_options import SegmentOptions
from submission.system.recipe.recipe_files import read_recipe
from submission.system.registry import SEGMENTATION_METHODS, SegmentationName
from submission.system.system import System


def test_recipes_may_name_the_methods_of_the_registry():
    assert get_args(SegmentationName) == tuple(SEGMENTATION_METHODS)


def test_a_method_reads_fields_of_the_recipes_table():
    known = {field.name for field in fields(SegmentOptions)}
    for method in SEGMENTATION_METHODS.values():
        assert "method" in method.reads and set(method.reads) <= known


def segmentation_key(tmp_path, **changes) -> str:
    recipe = read_recipe("primary", "miniature")
    changed = replace(recipe, segment=replace(recipe.segment, **changes))
    return System(read_campaign("miniature"), changed, None, tmp_path).stage("segment", "ACL").key


@pytest.mark.parametrize("method", SEGMENTATION_METHODS)
def test_a_key_covers_the_options_that_a_method_reads_and_no_other(tmp_path, method):
    other = {"max_seconds": 5.5, "min_seconds": 0.4, "threshold": 0.31, "inference_times": 3, "original_batching": True}
    plain = segmentation_key(tmp_path, method=method)
    for name, value in other.items():
        changed = segmentation_key(tmp_path, method=method, **{name: value})
        assert (changed != plain) == (name in SEGMENTATION_METHODS[method].reads), name
    assert segmentation_key(tmp_path, method=method, batch_size=3) == plain


def test_a_batch_size_is_part_of_the_key_where_it_shapes_the_segments(tmp_path):
    sizes = [segmentation_key(tmp_path, method="shas", original_batching=True, batch_size=size) for size in (3, 4)]
    assert sizes[0] != sizes[1]
