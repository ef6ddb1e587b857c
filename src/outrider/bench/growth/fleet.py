"""Many communication services: each a package of its own with an NF service of its own, deployed and permitted.

They are copies of the benchmark's service under other names, built, signed, sent, verified and installed as any other.
What an operator does here goes to its node as the commands send it, without the start of a process for each command.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outrider.bench.shapes import SHAPES
from outrider.core import limits
from outrider.core.permission import Permission
from outrider.core.refusal import Refusal
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import Operator, Stage
from outrider.network.reach import Reach
from outrider.package import signing, statements, vendors
from outrider.package.build import Built, build

CATALOGUE = "/nlmsf-catalogue/v1"
DAY_MS = 86_400_000
AT_A_TIME = 4
"""Packages sent at a time; hosts are started by the node at its own pace."""

_SOURCE = SHAPES["session"].service
_ASK_LIMIT_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True)
class Member:
    """One service of the fleet."""

    service: str
    nf_service: str
    built: Built

    @property
    def root(self) -> str:
        """Path of its sessions."""
        return f"/{self.nf_service}/v1/ue-sessions"


class Asking:
    """An operator's way to its node; connections are kept."""

    def __init__(self, operator: Operator) -> None:
        self._reach = Reach(operator.directory)

    async def ask(
        self, method: str, path: str, json: object = msgspec.UNSET, *, body: bytes = b"", **headers: str
    ) -> Any:
        """The answer; `ProcessFailed` if it is a refusal."""
        sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
        response = await self._reach.request(
            method, path, scope=path.split("/")[1], json=json, body=body, headers=sent, timeout_s=_ASK_LIMIT_S
        )
        if response.status >= 300:
            raise ProcessFailed(f"{method} {path} was answered {response.status}: {response.body[:400]!r}")
        return response.json() if response.body else None

    async def close(self) -> None:
        """End the connections."""
        await self._reach.__aexit__(None, None, None)


class Fleet:
    """Packages of many services, by one vendor whom both operators of a stage trust."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._folder = stage.directory / "fleet"
        self._folder.mkdir()
        _, public = vendors.generate(self._folder / "vendor.key", "outrider-bench")
        self._key = signing.load_private(self._folder / "vendor.key")
        for operator in (stage.a, stage.b):
            shutil.copy(public, operator.directory / "vendors")

    def make(self, first: int, count: int) -> list[Member]:
        """Build so many packages, from that number on."""
        return [self._make(number) for number in range(first, first + count)]

    def _make(self, number: int) -> Member:
        service, nf_service = f"bench-{number:03}", f"nsmf-bench{number:03}"
        source = self._folder / service
        shutil.copytree(_SOURCE, source)
        for file in (source / "outrider.toml", source / "bench_counter" / "session.py"):
            text = file.read_text().replace("nsmf-benchcounter", nf_service)
            file.write_text(text.replace('"bench-counter"', f'"{service}"'))
        built = build(source, self._folder, self._key)
        if isinstance(built, Refusal):
            raise ProcessFailed(str(built))
        return Member(service, nf_service, built)

    async def deploy(self, members: Sequence[Member]) -> None:
        """Send all packages to network A and deploy them; returns when all run."""
        asking, places = Asking(self._stage.a), asyncio.Semaphore(AT_A_TIME)

        async def one(member: Member) -> None:
            async with places:
                digest = await send(asking, Path(member.built.file))
                onboarded = await asking.ask("POST", f"{CATALOGUE}/packages", {"sha256": digest})
                await asking.ask("POST", f"{CATALOGUE}/deployments", {"packageDigest": onboarded["digest"]})

        try:
            await asyncio.gather(*(one(member) for member in members))
            await self.running(members)
        finally:
            await asking.close()

    async def running(self, members: Sequence[Member]) -> None:
        """Wait until all of them run at A; `ProcessFailed` with the reason if one does not."""
        asking, wanted = Asking(self._stage.a), {member.service for member in members}
        try:
            while True:
                shown = (await asking.ask("GET", f"{CATALOGUE}/deployments"))["deployments"]
                for deployment in shown:
                    if deployment["state"] in ("FAILED", "STORE_LOST"):
                        raise ProcessFailed(f"{deployment['service']}: {deployment['refusal']}")
                # After a restart of the node a service counts as running before its host is there.
                if wanted <= {d["service"] for d in shown if d["state"] == "RUNNING" and d["pid"]}:
                    return
                await asyncio.sleep(_POLL_S)
        finally:
            await asking.close()

    async def permit(self, members: Sequence[Member]) -> None:
        """Both operators sign their permission for each service, and give it to their own LMSF."""
        stage, now_ms = self._stage, int(time.time() * 1000)
        for operator in (stage.a, stage.b):
            key, asking = signing.load_private(operator.directory / "keys" / "operator.key"), Asking(operator)
            try:
                for member in members:
                    permission = Permission(
                        signer=operator.id,
                        service=member.service,
                        package_digest=member.built.package_digest,
                        sbom_digest=member.built.sbom_digest,
                        source=stage.a.id,
                        target=stage.b.id,
                        home=stage.a.id,
                        purpose="communication-service",
                        not_before_ms=now_ms,
                        not_after_ms=now_ms + DAY_MS,
                        nonce=os.urandom(16).hex(),
                    )
                    envelope = statements.sign_permission(permission, key)
                    await asking.ask("POST", "/nlmsf-permission/v1/permissions", body=envelope)
            finally:
                await asking.close()


async def send(asking: Asking, package: Path) -> str:
    """Send an archive to a node in ranges, as `outrider service deploy` does; its SHA-256."""
    content = await asyncio.to_thread(package.read_bytes)
    digest = hashlib.sha256(content).hexdigest()
    for first in range(0, len(content), limits.CATALOGUE_RANGE_BYTES):
        part = content[first : first + limits.CATALOGUE_RANGE_BYTES]
        await asking.ask(
            "PUT",
            f"{CATALOGUE}/uploads/{digest}",
            body=part,
            content_type="application/octet-stream",
            content_range=f"bytes {first}-{first + len(part) - 1}/{len(content)}",
        )
    return digest
