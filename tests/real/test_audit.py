"""Two real networks: after a whole migration both logs verify, each holds the other's heads, and both find one byte."""

import asyncio
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from outrider.demo.processes import command
from outrider.demo.stage import Operator, Stage
from support.consumer import consumer

SUPIS = [f"imsi-99970000000000{i}" for i in range(1, 4)]


async def verify(*args: str, accept: tuple[int, ...] = (0,)) -> Any:
    return await command("audit", "verify", *args, accept=accept)


async def vouched(operator: Operator, least: int) -> Any:
    """The own log as its operator checks it, once so many heads of it are counter-signed."""
    async with asyncio.timeout(60):
        while True:
            verdict = await verify("--dir", str(operator.directory))
            if verdict["vouched"] >= least:
                return verdict
            await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_both_logs_of_a_whole_migration_are_whole_and_one_byte_is_found_by_both(
    tmp_path: Path, service_dir: Path
) -> None:
    stage = Stage(tmp_path, rtt_ms=2)
    try:
        await stage.build()
        service = await stage.deploy(service_dir)
        await stage.permit()
        a, b = stage.a, stage.b
        async with consumer(a) as ask:
            for supi in SUPIS:
                assert (await ask("POST", "", json={"supi": supi, "groupId": "g", "dnn": "internet"})).status == 201
        begun = await a.cli("migration", "start", service, "--to", b.id, "--move-all", "--wait")
        name = begun["migrationId"]
        async with asyncio.timeout(60):
            while (await a.migration(name))["phase"] != "SETTLED":
                await asyncio.sleep(0.2)
        await a.cli("migration", "return", name, "--wait")
        phases = await _phases(a, name)
        assert phases[0]["facts"]["phase"] == "NEGOTIATING"
        assert phases[-1]["facts"]["phase"] == "RETIRED"
        exports = {}
        for operator, other in ((a, b), (b, a)):
            last = (await _phases(operator, name))[-1]["sequence"]
            verdict = await vouched(operator, last)
            assert verdict["findings"] == []
            file = tmp_path / f"audit-of-{operator.name}.jsonl"
            await operator.cli("audit", "export", "-o", str(file))
            exports[operator.id] = file
            seen = await verify("--file", str(file), "--dir", str(other.directory))
            assert (seen["findings"], seen["vouched"] >= last) == ([], True)
            data = file.read_bytes()
            assert not any(supi.encode() in data or supi.removeprefix("imsi-").encode() in data for supi in SUPIS)
        # Offline, with the cards that were handed over and the heads in the other's export.
        cards = [part for card in sorted(tmp_path.glob("card-of-*.json")) for part in ("--card", str(card))]
        assert len(cards) == 4
        offline = await verify("--file", str(exports[a.id]), "--heads", str(exports[b.id]), *cards)
        assert offline["findings"] == []

        for operator, other in ((a, b), (b, a)):
            file = exports[operator.id]
            whole = file.read_bytes()
            at = whole.index(b"COPYING")
            file.write_bytes(whole[:at] + b"K" + whole[at + 1 :])
            line = whole[:at].count(b"\n") + 1
            for holder in (operator, other):
                found = await verify("--file", str(file), "--dir", str(holder.directory), accept=(1,))
                assert [(f["code"], f["facts"]["line"]) for f in found["findings"]] == [("AUDIT_EDITED", str(line))]
            file.write_bytes(whole)
        # An operator writes its log anew from some event on, below its running node: its partner can prove it.
        await _write_anew(a)
        forged = tmp_path / "forged.jsonl"
        await a.cli("audit", "export", "-o", str(forged))
        found = await verify("--file", str(forged), "--dir", str(b.directory), accept=(1,))
        assert "AUDIT_REWRITTEN" in {f["code"] for f in found["findings"]}
    finally:
        await stage.close()


async def _phases(operator: Operator, name: str) -> list[Any]:
    lines = await operator.cli("audit", "show", "--migration", name)
    return [r["event"] for r in lines if r["event"]["kind"] == "phase"]


async def _write_anew(operator: Operator) -> None:
    """Change an event and give it, and all that follow, the digests that fit."""
    from outrider.core.audit import hash_of
    from outrider.core.canonical import canonical

    db = apsw.Connection(str(operator.directory / "lmsf" / "lmsf.db"))
    db.execute("DROP TRIGGER audit_kept")
    rows = list(db.execute("SELECT sequence, body FROM audit ORDER BY sequence"))
    before = None
    with db:
        for sequence, body in rows[len(rows) // 3 :]:
            value = msgspec.json.decode(body)
            value |= {"before": before} if before is not None else {"sentence": "Nothing happened."}
            changed = canonical(value)
            before = hash_of(changed)
            db.execute("UPDATE audit SET body = ?, hash = ? WHERE sequence = ?", (changed, before, sequence))
    db.close()
