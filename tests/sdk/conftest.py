"""Author's modules written by a test."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio
import json
import outrider.sdk as sdk

def asgi(handler):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        out = await handler(scope["method"], scope["path"], (await receive())["body"])
        status, body = out if isinstance(out, tuple) else (200, out)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
    return app
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a module of an author; returns the directory to import it from."""

    def make(name: str, source: str) -> Path:
        directory = tmp_path / "code"
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.py").write_text(PREAMBLE + textwrap.dedent(source))
        return directory

    return make
