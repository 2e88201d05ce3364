"""What the standard-library room says of the others is true."""

from __future__ import annotations

from submission.system.data_folder import FORMATS_READ
from train.corpora.formats import READERS


def test_layouts_that_begin_lets_pass_are_those_that_train_reads():
    assert set(FORMATS_READ) == set(READERS)
