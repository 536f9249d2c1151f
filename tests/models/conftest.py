"""The `family` fixture: every test that takes it runs for each architecture of the papers."""

import pytest

from families import FAMILIES


@pytest.fixture(params=list(FAMILIES))
def family(request) -> str:
    return request.param
