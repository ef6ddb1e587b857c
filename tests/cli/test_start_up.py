"""What a process does not need when it starts, it does not import: commands and nodes are started often."""

import subprocess
import sys

import pytest

VALIDATION = {"cyclonedx", "jsonschema", "license_expression", "packaging.metadata"}
SERVING = {"granian", "apsw", "outrider.functions", "outrider.host", "outrider.store"}
NOT_IMPORTED = {
    "outrider.cli.main": VALIDATION
    | SERVING
    | {"rich", "structlog", "cryptography", "joserfc", "pyreqwest", "uvloop", "outrider.network", "outrider.demo"},
    "outrider.network.reach": VALIDATION | SERVING | {"typer", "rich", "structlog"},
    "outrider.network.node": VALIDATION | {"typer", "outrider.demo"},
    "outrider.host.keeper": VALIDATION | {"typer", "packaging", "securesystemslib", "outrider.network"},
    "outrider.demo.client": VALIDATION | SERVING | {"typer", "rich", "structlog"},
    "outrider.demo.relay": VALIDATION | SERVING | {"typer", "rich", "structlog", "cryptography", "pyreqwest"},
    "outrider.demo.checker": VALIDATION | SERVING | {"typer", "rich", "structlog", "asyncio"},
}


@pytest.mark.parametrize("module", NOT_IMPORTED)
def test_what_is_not_needed_at_the_start_is_not_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert sorted(NOT_IMPORTED[module] & set(done.stdout.split())) == []


def test_a_keeper_process_does_without_what_only_paints_tracebacks() -> None:
    run = "runpy.run_module('outrider.host.keeper', run_name='__main__')"
    code = f"import runpy, sys, contextlib\nwith contextlib.suppress(SystemExit): {run}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "structlog" in loaded
    assert [name for name in loaded if name.startswith("rich.")] == []
