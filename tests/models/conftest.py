"""The `family` fixture: every test that takes it runs for each architecture of the papers."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from families import FAMILIES


@pytest.fixture(params=list(FAMILIES))
def family(request) -> str:
    return request.param
