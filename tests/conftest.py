"""Which tests must not run beside each other when several processes share them (`pytest -n 2 --dist loadgroup`)."""

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_WHOLE_NETWORKS = {"bench", "demo", "docs", "n32", "network", "real"}
"""Folders whose tests start nodes, keepers and workers of their own, or look for ports that are free and take them a
moment later: what two processes do at the same time would be in each other's way."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(_TESTS).parts[0] in _WHOLE_NETWORKS or item.path.name == "test_cli.py":
            item.add_marker(pytest.mark.xdist_group("networks"))
