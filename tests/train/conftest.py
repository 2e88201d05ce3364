from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.train.ground import Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    from tests.train.ground import lay_ground  # torch and transformers, which not every test of this room needs

    return lay_ground(tmp_path_factory.mktemp("ground"))
