"""A store is deleted while UEs are away.

The target's, while it owns UEs: home says so, its operator declares it, and home serves again. Home's: it serves
nothing and the target serves on; after the file is put back all is well, and where every UE was home the service begins
anew on its operator's word.
"""

import asyncio
import contextlib
import os
import shutil
import signal
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


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    stage = Stage(tmp_path, rtt_ms=2)
    try:
        await stage.build()
        yield stage
    finally:
        await stage.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_ues_of_a_lost_store_are_served_at_home_again(stage: Stage, service_dir: Path) -> None:
    service = await stage.deploy(service_dir)
    await stage.permit()
    await _lost_and_declared(stage, service, stage.a, stage.b)


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


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_home_that_has_lost_its_store_serves_nothing_until_it_is_put_back(
    stage: Stage, service_dir: Path, tmp_path: Path
) -> None:
    a, b = stage.a, stage.b
    service = await stage.deploy(service_dir)
    await stage.permit()
    data = a.directory / "services" / service / "data"
    async with consumer(a) as ask:
        for supi in SUPIS:
            opened = await ask("POST", "", json={"supi": supi, "groupId": "crew-1", "dnn": "internet"})
            assert opened.status == 201, opened.body
            await transact(ask, supi, 1)
    await a.close()
    shutil.copytree(data, tmp_path / "older")  # every UE is owned by home in it
    await a.run()
    await until(lambda: _service(a, service))

    name = (await a.cli("migration", "start", service, "--to", b.id, "--wait"))["migrationId"]
    async with consumer(b) as ask:
        for supi in SUPIS[:2]:
            await transact(ask, supi, 2)
    await a.close()
    data.rename(tmp_path / "newest")

    # No store at all.
    await a.run()
    lost = await until(lambda: _in_state(a, service, "STORE_LOST"))
    assert lost["refusal"]["code"] == "STORE_LOST"
    assert "There is no store" in lost["sentence"]
    await _nothing_is_served(a, service)
    async with consumer(b) as ask:
        await transact(ask, SUPIS[0], 3)
    for args in (("begin-anew", service, "--accept-loss"), ("remove", service, "--yes")):
        refused = (await a.cli("service", *args, accept=(1,)))["refusals"][0]
        assert refused["code"] == ("UES_AWAY" if args[0] == "begin-anew" else "SERVICE_MIGRATING")
    assert "STORE_LOST" in (await a.migration(name))["waitingFor"]
    assert "STORE_LOST" in (await until(lambda: _partner_says(b, name, "STORE_LOST")))["partner"]["waitingFor"]
    [host] = (await a.cli("network", "status"))["hosts"]
    assert (host["alive"], host["refusal"]["code"]) == (False, "STORE_LOST")
    starts = (a.directory / "log" / f"keeper-{service}.log").read_text().count("store.lost")
    assert starts == 1, "it is not tried again and again"

    # An older copy, in which home owns everything.
    await a.close()
    shutil.copytree(tmp_path / "older", data, dirs_exist_ok=True)
    await a.run()
    older = await until(lambda: _in_state(a, service, "STORE_LOST"))
    assert "an older copy" in older["sentence"]
    await _nothing_is_served(a, service)
    async with consumer(b) as ask:
        await transact(ask, SUPIS[1], 3)

    # The newest one, put back.
    await a.close()
    shutil.rmtree(data)
    (tmp_path / "newest").rename(data)
    await a.run()
    await until(lambda: _service(a, service))
    async with consumer(a) as ask:
        await transact(ask, SUPIS[2], 2)
    async with consumer(b) as ask:
        await transact(ask, SUPIS[0], 4)
        await transact(ask, SUPIS[3], 2)
    ended = await a.cli("migration", "return", name, "--wait")
    assert ended["phase"] == "RETIRED"
    async with consumer(a) as ask:
        await transact(ask, SUPIS[0], 5)
        await transact(ask, SUPIS[1], 4)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_running_home_whose_store_is_replaced_stops_and_begins_anew_only_on_its_operators_word(
    stage: Stage, service_dir: Path, tmp_path: Path
) -> None:
    a = stage.a
    service = await stage.deploy(service_dir)
    first = await a.service(service)
    store = a.directory / "services" / service / "data" / "contexts.db"
    async with consumer(a) as ask:
        opened = await ask("POST", "", json={"supi": SUPIS[0], "groupId": "crew-1", "dnn": "internet"})
        assert opened.status == 201, opened.body
        store.unlink()
        with contextlib.suppress(Unreachable):
            sent = await ask("POST", f"/{SUPIS[0]}/transactions", json={"seq": 1, "payload": "x"}, idem="after")
            assert sent.status >= 500, "nothing is confirmed that is in no store"
    lost = await until(lambda: _in_state(a, service, "STORE_LOST"))
    assert lost["refusal"]["facts"]["known"] == first["storeId"]
    await _nothing_is_served(a, service)

    begun = await a.cli("service", "begin-anew", service, "--accept-loss", "--reason", "the disk burnt", "--by", "Ada")
    assert begun["state"] == "RUNNING"
    assert begun["storeId"] not in ("", first["storeId"])
    assert [(x["by"], x["sentence"], x["lost"]["storeId"]) for x in begun["begunAnew"]] == [
        ("Ada", "the disk burnt", first["storeId"])
    ]
    async with consumer(a) as ask:
        opened = await ask("POST", "", json={"supi": SUPIS[0], "groupId": "crew-1", "dnn": "internet"})
        assert opened.status == 201, opened.body
        await transact(ask, SUPIS[0], 1)
    os.kill((await a.service(service))["pid"], signal.SIGKILL)  # a crash is no loss
    async with consumer(a) as ask:
        await transact(ask, SUPIS[0], 2)


async def _nothing_is_served(operator: Operator, service: str) -> None:
    shown = await operator.cli("service", "show", service)
    assert (shown["apiRoot"], shown["keeper"]) == (None, None)
    async with consumer(operator) as ask:
        with pytest.raises(NoProducer):
            await ask("GET", f"/{SUPIS[0]}")


async def _in_state(operator: Operator, service: str, state: str) -> Any:
    shown = await operator.service(service)
    return shown if shown["state"] == state else None


async def _partner_says(operator: Operator, name: str, words: str) -> Any:
    shown = await operator.migration(name)
    return shown if words in shown["partner"]["waitingFor"] else None
