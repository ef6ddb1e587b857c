"""The target's store is deleted while it owns UEs: home says so, its operator declares it, and home serves again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from outrider.demo.access import NoProducer
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import Operator, Stage
from outrider.sbi.client import Unreachable
from support.consumer import Ask, consumer

SUPIS = [f"imsi-99970000000000{i}" for i in range(1, 5)]


async def until(found: Callable[[], Awaitable[Any]], limit_s: float = 60) -> Any:
    """Try until something is there."""
    async with asyncio.timeout(limit_s):
        while True:
            with contextlib.suppress(Unreachable, NoProducer, ProcessFailed):
                seen = await found()
                if seen:
                    return seen
            await asyncio.sleep(0.2)


async def transact(ask: Ask, supi: str, seq: int) -> None:
    """A UE's transaction, which follows those before it; tried again under its key as long as it is not answered."""

    async def once() -> Any:
        sent = await ask("POST", f"/{supi}/transactions", json={"seq": seq, "payload": "x"}, idem=f"{supi}-{seq}")
        return sent.json()["count"] if sent.status == 200 else None

    assert await until(once) == seq


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_ues_of_a_lost_store_are_served_at_home_again(tmp_path: Path, service_dir: Path) -> None:
    stage = Stage(tmp_path, rtt_ms=2)
    a, b = stage.a, stage.b
    try:
        await stage.build()
        service = await stage.deploy(service_dir)
        await stage.permit()
        await _lost_and_declared(stage, service, a, b)
    finally:
        await stage.close()


async def _lost_and_declared(stage: Stage, service: str, a: Operator, b: Operator) -> None:
    async with consumer(a) as ask:
        for supi in SUPIS:
            opened = await ask("POST", "", json={"supi": supi, "groupId": "crew-1", "dnn": "internet"})
            assert opened.status == 201, opened.body
            await transact(ask, supi, 1)
    begun = await a.cli("migration", "start", service, "--to", b.id, "--wait")
    name = begun["migrationId"]
    async with consumer(b) as ask:
        for supi in SUPIS:
            await transact(ask, supi, 2)
    await until(lambda: _moved(a, name, len(SUPIS)))
    store = (await a.migration(name))["partner"]["storeId"]

    await b.close()
    for file in (b.directory / "services" / service / "data").glob("contexts.db*"):
        file.unlink()
    await b.run()
    again = await until(lambda: _service(b, service))
    reborn = again["storeId"]
    assert reborn not in ("", store)
    assert again["keeper"]["rows"]["owned"] == 0
    async with consumer(b) as ask:
        sent = await ask("POST", f"/{SUPIS[0]}/transactions", json={"seq": 3, "payload": "x"}, idem="at-the-reborn-one")
        assert sent.status in (503, 504), sent.body

    said = (await until(lambda: _says(a, name, "STORE_LOST")))["waitingFor"]
    assert f"`outrider migration declare-lost {name} --store {store}`" in said
    answers = await a.cli("migration", "declare-lost", name, "--store", reborn, "--yes", accept=(1,))
    assert answers["refusals"][0]["code"] == "STORE_UNKNOWN"
    refused = await b.cli("migration", "declare-lost", name, "--store", store, "--yes", accept=(1,))
    assert refused["refusals"][0]["code"] == "NOT_HOME"

    shown = await a.cli("migration", "declare-lost", name, "--store", store, "--yes", "--reason", "the disk burnt")
    assert shown["ending"]["cause"] == "STORE_LOST"
    assert shown["loss"]["ues"] == len(SUPIS)
    assert {k["shadow"] for k in shown["loss"]["keys"]} == {"followed"}
    async with consumer(a) as ask:
        for supi in SUPIS:
            await transact(ask, supi, 3)
    ended = await until(lambda: _over(a, name))
    assert (ended["phase"], ended["ending"]["sentence"]) == ("ABORTED", "the disk burnt")
    assert (await until(lambda: _over(b, name)))["phase"] == "ABORTED"
    assert await b.cli("service", "list") == []
    events = (await a.cli("migration", "show", name, "--events"))["events"]
    assert "DeclaredLost STORE_LOST" in [e["event"] for e in events]
    log = (a.directory / "log" / "node.log").read_text() + (a.directory / "log" / f"keeper-{service}.log").read_text()
    assert log.count("store.declared-lost") >= 2

    second = await a.cli("migration", "start", service, "--to", b.id, "--wait")  # a new one is with a new store
    async with consumer(b) as ask:
        for supi in SUPIS:
            await transact(ask, supi, 4)
    await a.cli("migration", "return", second["migrationId"], "--wait")
    async with consumer(a) as ask:
        await transact(ask, SUPIS[0], 5)


async def _moved(operator: Operator, name: str, count: int) -> bool:
    progress = (await operator.migration(name))["progress"]
    return progress is not None and progress["movedUes"] == count


async def _service(operator: Operator, service: str) -> Any:
    shown = await operator.cli("service", "show", service)
    return shown if shown["state"] == "RUNNING" and shown["keeper"] is not None else None


async def _says(operator: Operator, name: str, words: str) -> Any:
    shown = await operator.migration(name)
    return shown if words in shown["waitingFor"] else None


async def _over(operator: Operator, name: str) -> Any:
    shown = await operator.migration(name)
    return shown if shown["over"] else None
