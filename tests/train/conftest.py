"""Fixtures of the training tests: a base model of random weights, a corpus of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.train.finetuning_inputs import FinetuningInputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FinetuningInputs:
    from tests.train.finetuning_inputs import (
        write_finetuning_inputs,  # torch and transformers, which not every test of this package needs
    )

    return write_finetuning_inputs(tmp_path_factory.mktemp("inputs"))
