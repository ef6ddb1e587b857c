"""Two networks, each a process of its own: B's policy refuses A's offer with all reasons; changed, it asks a human, who
lets it pass. And changed once more while the service is there, it ends the stay: by SIGHUP, with nobody asking.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"

STRICT = """\
name = "port"

[[permit]]
id = "rail"
partners = ["999-70"]

[[require]]
id = "small-groups"
clause = "agreement 4, § 2"
max_ues = 5000
max_stay_hours = 12
licences = ["Apache-2.0"]
"""
CEDAR = """\
@id("nobody-waits-here")
@clause("agreement 4, § 7")
@remedy("Move only UEs that arrive.")
forbid(principal, action == Action::"HostService", resource)
when { context.moveAll };
"""
WIDE = """\
name = "port"

[[permit]]
id = "rail"
partners = ["999-70"]
"""
ASKS = """\

[[approval]]
id = "duty-engineer"
"""
OVER = """\
[[require]]
id = "closed"
max_ues = 0
"""


async def cli(*args: object, code: int = 0) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.cli.main", *(str(a) for a in args),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == code, (args, out.decode(), err.decode())
    return json.loads(out) if "--json" in args else out.decode() + err.decode()


def _ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


async def _set_up(tmp_path: Path, service_dir: Path) -> Path:
    a, b = tmp_path / "a", tmp_path / "b"
    ports = _ports(4)
    for folder, network in ((a, A), (b, B)):
        await cli("network", "init", folder, "--id", network, "--sbi-port", 0)
    for one, other, (control, bulk) in ((a, B, ports[:2]), (b, A, ports[2:])):
        listen = ["--listen-control", control, "--listen-bulk", bulk]
        await cli("partner", "invite", other, "--dir", one, "-o", tmp_path / f"from-{one.name}", *listen)
    await cli("partner", "add", tmp_path / "from-a", "--dir", b, "--yes")
    await cli("partner", "add", tmp_path / "from-b", "--dir", a, "--yes")
    await cli("package", "keygen", "--vendor", "outrider-examples", "-o", tmp_path / "vendor.key")
    for one in (a, b):
        (one / "vendors" / "vendor.pub").write_bytes((tmp_path / "vendor.pub").read_bytes())
    built = await cli("package", "build", service_dir, "--key", tmp_path / "vendor.key", "-o", tmp_path, "--json")
    (b / "policy").mkdir()
    (b / "policy" / "rules.toml").write_text(STRICT, encoding="utf-8")
    (b / "policy" / "own.cedar").write_text(CEDAR, encoding="utf-8")
    config = b / "network.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('path = ""', 'path = "policy"'), encoding="utf-8")
    return Path(built["file"])


@contextlib.asynccontextmanager
async def _running(directory: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "outrider.cli.main", "network", "run", str(directory), "--json",
            stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ready["ready"]
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_policy_refuses_then_lets_pass_then_ends_the_stay(tmp_path: Path, service_dir: Path) -> None:
    archive = await _set_up(tmp_path, service_dir)
    a, b = tmp_path / "a", tmp_path / "b"
    async with _running(a, tmp_path / "a.log"), _running(b, tmp_path / "b.log") as node_b:
        await cli("service", "deploy", archive, "--dir", a)
        for one in (a, b):
            terms = ["--source", A, "--target", B, "--home", A, "--days", 1]
            await cli("permission", "sign", archive, "--dir", one, *terms, "-o", tmp_path / f"{one.name}.permission")
            await cli("permission", "upload", tmp_path / f"{one.name}.permission", "--dir", one)
        start = ["migration", "start", SERVICE, "--to", B, "--dir", a, "--move-all"]

        refused = await cli(*start, "--wait", "--json", code=1)
        codes = [r["code"] for r in refused["refusals"]]
        assert codes == ["POLICY_UES", "POLICY_STAY", "POLICY_FORBIDDEN"]
        assert refused["ending"]["by"] == B
        assert "§" not in json.dumps(refused, ensure_ascii=False)
        name = refused["migrationId"]
        words = await cli("policy", "explain", name, "--dir", b)
        for part in ("max_ues: 5000", "agreement 4, § 7, own.cedar:1", "POLICY_STAY", "not judged yet", "small-groups"):
            assert part in words

        (tmp_path / "wide").mkdir()
        (tmp_path / "wide" / "rules.toml").write_text(WIDE, encoding="utf-8")
        replayed = await cli("policy", "replay", tmp_path / "wide", "--dir", b, "--json")
        assert [(c["migrationId"], c["after"]["verdict"]) for c in replayed["changes"]] == [(name, "allow")]

        (b / "policy" / "own.cedar").unlink()
        (b / "policy" / "rules.toml").write_text(WIDE + 'broken = "yes"\n', encoding="utf-8")
        assert "rules.toml:6: broken is no key here" in await cli("policy", "apply", "--dir", b, code=1)
        assert "own.cedar" not in await cli("policy", "show", "--dir", b)
        (b / "policy" / "rules.toml").write_text(WIDE + ASKS, encoding="utf-8")
        applied = await cli("policy", "apply", "--dir", b, "--json")
        assert applied["after"].startswith("port@")

        shown = await cli(*start, "--json")
        passed = shown["migrationId"]
        async with asyncio.timeout(60):
            while not (waiting := await cli("approval", "list", "--dir", b, "--json")):
                await asyncio.sleep(0.1)
        assert [a["migrationId"] for a in waiting] == [passed]
        granted = await cli("approval", "grant", passed, "--dir", b, "--by", "chief", "--reason", "by phone")
        assert "GRANTED by chief" in granted
        await cli("migration", "watch", passed, "--dir", b, "--until", "SETTLED")
        kept = await cli("policy", "explain", passed, "--dir", b, "--json")
        assert [d["decision"]["verdict"] for d in kept] == ["needs-approval", *["allow"] * (len(kept) - 1)]
        software = {c["name"] for d in kept if d["request"]["sbom"] for c in d["request"]["sbom"]["components"]}
        assert {"group-coordination-code", "starlette"} <= software

        (b / "policy" / "rules.toml").write_text(WIDE + OVER, encoding="utf-8")
        os.kill(node_b.pid, signal.SIGHUP)
        words = await cli("migration", "watch", passed, "--dir", a, "--until", "RETIRED")
        assert "RETIRED" in words
        ended = await cli("migration", "show", passed, "--dir", a, "--json")
        assert (ended["phase"], ended["ending"]["cause"], ended["ending"]["by"]) == ("RETIRED", "POLICY_UES", B)
        assert "No services yet" in await cli("service", "list", "--dir", b)
