"""Packages written in a test, and workers that run them as real processes."""

import asyncio
import io
import itertools
import shutil
import textwrap
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.core.manifest import Manifest, NfServiceSpec, Resources
from outrider.host import sandbox
from outrider.host.workers import Worker, WorkerFault
from outrider.package import repack
from outrider.sdk import wire

NETWORK = {"mcc": "999", "mnc": "70"}

PREAMBLE = """
import asyncio, os, sys
import outrider.sdk as sdk

def asgi(handler):
    # A plain ASGI app around `handler(scope, body) -> bytes | (status, bytes)`.
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        answer = await handler(scope, body)
        status, out = answer if isinstance(answer, tuple) else (200, answer)
        await send({"type": "http.response.start", "status": status, "headers": [(b"X-From", b"app")]})
        await send({"type": "http.response.body", "body": out})
    return app

def connection():
    # What no honest handler does: the worker's own socket.
    import gc
    return next(o for o in gc.get_objects() if type(o).__name__ == "Worker")._writer._transport
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (offer := sandbox.available()).complete:
        return
    for item in items:
        if "/worker/" in str(item.path) and "without_isolation" not in item.name:
            item.add_marker(pytest.mark.skip(reason=f"no worker can be isolated here: {offer.why_not()}"))


class Keeper:
    """A worker with what its keeper would have around it: unit numbers, logs, shared objects."""

    def __init__(self, worker: Worker, logs: list[tuple[str, str]]) -> None:
        self.worker = worker
        self.logs = logs
        self.logged = asyncio.Event()
        self.shared: dict[str, list[tuple[str, str, bytes]]] = {}
        self._numbers = itertools.count(1)

    async def run(self, *, limit_ms: float = 10_000, **fields: Any) -> wire.Proposal | WorkerFault:
        defaults: dict[str, Any] = {
            "kind": "request",
            "nf": "a",
            "key": "ue:" + "00" * 16,
            "now_ms": 1_900_000_000_000,
            "records": [],
            "method": "GET",
            "path": "/",
        }
        run = wire.Run(unit=next(self._numbers), **(defaults | fields))
        return await self.worker.run(run, limit_ms=limit_ms, read_shared=lambda name: self.shared.get(name, []))

    async def propose(self, **fields: Any) -> wire.Proposal:
        """Run a unit that must end well."""
        outcome = await self.run(**fields)
        assert isinstance(outcome, wire.Proposal), outcome
        return outcome

    async def fault(self, **fields: Any) -> WorkerFault:
        """Run a unit that must come to nothing."""
        outcome = await self.run(**fields)
        assert isinstance(outcome, WorkerFault), outcome
        return outcome

    async def log_with(self, text: str) -> str:
        """The first log line that has this text, as soon as there is one."""
        while True:
            self.logged.clear()
            for _, line in self.logs:
                if text in line:
                    return line
            await self.logged.wait()


MakePackage = Callable[..., tuple[Path, Manifest]]
MakeKeeper = Callable[..., Any]


@pytest.fixture(scope="session")
def sdk_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every built package has in its `site`: the wheels of the SDK and of what it requires, unpacked."""
    site = tmp_path_factory.mktemp("sdk-site")
    for wheel in (repack.sdk(), *(repack.repack(name) for name in repack.SDK_REQUIREMENTS)):
        assert wheel is not None
        with zipfile.ZipFile(io.BytesIO(wheel[1])) as archive:
            archive.extractall(site)
    return site


@pytest.fixture
def package(tmp_path: Path, sdk_site: Path) -> MakePackage:
    """Write a package with the SDK: module source by module name, and apps by NF service name."""

    def make(
        modules: Mapping[str, str], apps: Mapping[str, str] | None = None, *, memory_mb: int = 256
    ) -> tuple[Path, Manifest]:
        directory = tmp_path / "package"
        site = directory / "site"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(sdk_site, site)
        for name, source in modules.items():
            (site / f"{name}.py").write_text(PREAMBLE + textwrap.dedent(source))
        apps = apps or {name: f"{name}:nf" for name in modules}
        manifest = Manifest(
            service="test-service",
            version="1.0.0",
            vendor="tests",
            nf_services=[NfServiceSpec(name=name, nf_type="SMF", app=app, keys=[]) for name, app in apps.items()],
            resources=Resources(memory_mb=memory_mb),
        )
        (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return directory, manifest

    return make


@pytest.fixture
async def unstarted(package: MakePackage, tmp_path: Path) -> AsyncIterator[MakeKeeper]:
    """Make a keeper whose worker is not started yet; it is stopped in the end."""
    keepers: list[Keeper] = []

    def make(modules: Mapping[str, str], apps: Mapping[str, str] | None = None, **options: Any) -> Keeper:
        directory, manifest = package(modules, apps, **options)
        logs: list[tuple[str, str]] = []

        def on_log(level: str, text: str) -> None:
            logs.append((level, text))
            keeper.logged.set()

        worker = Worker(
            directory,
            manifest,
            scratch=tmp_path / "scratch",
            network=NETWORK,
            instances={spec.name: f"instance-of-{spec.name}" for spec in manifest.nf_services},
            on_log=on_log,
            require_isolation=True,
        )
        keeper = Keeper(worker, logs)
        keepers.append(keeper)
        return keeper

    yield make
    for keeper in keepers:
        await keeper.worker.stop()


@pytest.fixture
async def start(unstarted: MakeKeeper) -> MakeKeeper:
    """Make a keeper with a running worker."""

    async def make(*arguments: Any, **options: Any) -> Keeper:
        keeper: Keeper = unstarted(*arguments, **options)
        await keeper.worker.start()
        return keeper

    return make
