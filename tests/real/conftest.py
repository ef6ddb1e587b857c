"""What the tests of whole networks share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def service_dir() -> Path:
    """The example service."""
    return Path(__file__).parents[2] / "examples" / "group-coordination"
