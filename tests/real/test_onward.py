"""Three networks with real processes: a service goes A → B → C and home, while its UEs go everywhere under load.

The UEs are the demo's, and what they saw is judged by the demo's checker. Some go A → B → C → A, some turn back at B,
some go from A to C and were never at B, some stay longer at B than the others, and one never leaves A.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from outrider.demo import course
from outrider.demo.access import Access, NoProducer
from outrider.demo.client import Config
from outrider.demo.live import Screen, View
from outrider.demo.member import SESSION, Load
from outrider.demo.population import population
from outrider.demo.processes import Running, command
from outrider.demo.stage import HOME, TARGET, Operator, Stage, new_instance_id
from outrider.demo.track import Move, write_track
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.tokens import TokenSource

THIRD = "999-72"
UES = 24
ONWARD_S, HOME_S = 30.0, 60.0
"""When the group leaves B, and when it leaves C, on the track's clock: long after the service can be there."""


def track() -> list[Move]:
    moves = []
    for ue in range(1, UES):
        spread_s = ue * 0.1
        match ue % 6:
            case 0 | 1 | 2:
                way = [(0.0, TARGET), (ONWARD_S, THIRD), (HOME_S, HOME)]
            case 3:
                way = [(0.0, TARGET), (ONWARD_S, HOME)]
            case 4:
                way = [(ONWARD_S, THIRD), (HOME_S, HOME)]
            case _:
                way = [(0.0, TARGET), (ONWARD_S + 6.0, HOME)]
        moves += [Move(ue, at_s + spread_s, network) for at_s, network in way]
    return sorted(moves, key=lambda m: (m.time_s, m.ue))


async def _third(stage: Stage) -> Operator:
    """A third network, a partner of the two others, without a relay between."""
    c = Operator(THIRD, "C", "plmn", stage.directory / "c")
    base = int(stage.a.nrf_root.rpartition(":")[2]) + 20_000
    ports = iter(range(base + 10, base + 20))
    await command(
        "network", "init", str(c.directory), "--id", c.id, "--kind", c.kind, "--name", c.name,
        "--sbi-port", str(base), "--border-port", str(base + 1),
    )  # fmt: skip
    for other in (stage.a, stage.b):
        for inviting, invited in ((c, other), (other, c)):
            card = stage.directory / f"card-of-{inviting.name}-for-{invited.name}.json"
            listen = ["--listen-control", str(next(ports)), "--listen-bulk", str(next(ports))]
            made = await inviting.cli("partner", "invite", invited.id, *listen, "-o", str(card))
            await invited.cli("partner", "add", str(card), "--fingerprint", made["fingerprint"])
    (c.directory / "vendors" / "vendor.pub").write_bytes((stage.directory / "vendor.pub").read_bytes())
    await c.run()
    return c


async def _permit(stage: Stage, c: Operator) -> None:
    """All three operators permit the way onward."""
    way = ["--source", stage.b.id, "--target", c.id, "--home", stage.a.id, "--days", "1"]
    for operator in (stage.a, stage.b, c):
        file = stage.directory / f"onward-of-{operator.name}.json"
        await operator.cli("permission", "sign", str(stage.package), *way, "-o", str(file))
        await operator.cli("permission", "upload", str(file))


@asynccontextmanager
async def _ues(this: course.Run, c: Operator, sink: Running) -> AsyncIterator[Running]:
    stage, directory = this.stage, this.directory
    (directory / "track.csv").write_text(write_track(track()))
    config = Config(
        networks=[course.at(stage.a, "000001"), course.at(stage.b, "000002"), course.at(c, "000003")],
        home=stage.a.id,
        ues=UES,
        track=str(directory / "track.csv"),
        history=str(directory / "clients.jsonl"),
        nf_instance_id=new_instance_id(),
        load=Load(rate=1.0, seed=7, qos={"rate": 20, "burst": 40, "validityMs": 5_000}),
        callback_uri=sink.said["ready"]["uri"],
        group_size=8,
    )
    file = directory / "clients.json"
    file.write_bytes(msgspec.json.encode(config))
    clients = await Running.start("UEs", directory / "clients.log", "outrider.demo.client", str(file))
    try:
        yield clients
    finally:
        await clients.end()


async def _until(operator: Operator, migration_id: str, *phases: str, limit_s: float = 60.0) -> dict[str, Any]:
    async with asyncio.timeout(limit_s):
        while True:
            shown = await operator.migration(migration_id)
            if shown["phase"] in phases and (shown["phase"] != "RETIRED" or shown["over"]):
                return shown
            assert not shown["over"], (shown["phase"], shown["ending"], shown["refusals"])
            await asyncio.sleep(0.1)


async def _progress(clients: Running) -> dict[str, Any]:
    clients.forget("progress")
    progress = (await clients.heard("progress"))["progress"]
    assert isinstance(progress, dict)
    return progress


async def _found_from_home(a: Operator, supi: str) -> None:
    """A consumer at home asks for a UE that has gone to C by way of B, until it is answered."""
    async with SbiClient() as client, asyncio.timeout(30):
        name = new_instance_id()
        access = Access(client, course.at(a, "000001"), TokenSource(client, a.nrf_root, name, "AF"), name)
        await access.register()
        status: int | None = None
        while status != 200:
            with contextlib.suppress(Unreachable, NoProducer):
                status = (await access.send(SESSION, "GET", f"/nsmf-groupsession/v1/ue-sessions/{supi}")).status


async def _everybody_served(clients: Running, network: str) -> None:
    """Until a UE's answer has come from that network."""
    async with asyncio.timeout(60):
        while not (await _progress(clients))["servedBy"].get(network):
            pass


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_service_goes_onward_and_home_and_nothing_is_lost_doubled_or_reordered(
    tmp_path: Path, service_dir: Path
) -> None:
    stage = Stage(tmp_path / "run", rtt_ms=4.0)
    stage.directory.mkdir()
    async with AsyncExitStack() as stack:
        screen = stack.enter_context(Screen(View(HOME, TARGET), Console(quiet=True)))
        this = course.Run(course.Options(service_dir, ues=UES), stage, screen)
        stack.push_async_callback(stage.close)
        await stage.build()
        service = await stage.deploy(service_dir)
        await stage.permit()
        c = await _third(stage)
        stack.push_async_callback(c.close)
        sink = await stack.enter_async_context(course.sink_of(this))
        clients = await stack.enter_async_context(_ues(this, c, sink))
        assert not (await clients.order("open")).get("failed")
        await clients.order("load")
        this.mark("load")
        this.mark("begin")
        first = await stage.a.migrate(service, stage.b.id)
        await _until(stage.a, first, "RELOCATING")
        this.mark("ready")
        await _permit(stage, c)
        travelled = asyncio.get_running_loop().time()
        await clients.order("travel")
        await _everybody_served(clients, TARGET)

        started = await stage.a.cli("migration", "start", service, "--from", stage.b.id, "--to", c.id)
        onward = str(started["migrationId"])
        shown = await _until(stage.a, onward, "RELOCATING")
        assert asyncio.get_running_loop().time() - travelled < ONWARD_S, "the machine is too slow for this track"
        assert (shown["source"], shown["target"], shown["home"]) == (TARGET, THIRD, HOME)
        assert [m["migrationId"] for m in await stage.a.cli("migration", "list")] == [onward, first]
        await _everybody_served(clients, THIRD)
        await _until_gone(clients, TARGET)

        # Nobody is at B any more: it gives back what is left there, and is erased. UEs are at C, and are served there.
        await stage.a.take_back(first)
        retired = await _until(stage.a, first, "RETIRED")
        assert retired["receipt"]
        assert await stage.b.cli("service", "list") == []
        at_c = (await c.service(service))["keeper"]["rows"]["owned"]
        assert at_c, "UEs are owned at C when B is gone"
        supi = next(ue.supi for ue in population(UES, group_size=8, home=HOME) if ue.number == 6)
        await _found_from_home(stage.a, supi)
        os.kill((await stage.a.service(service))["pid"], signal.SIGKILL)  # what it had only heard is forgotten
        await _found_from_home(stage.a, supi)

        await _until_gone(clients, THIRD)
        await stage.a.take_back(onward)
        ended = await _until(stage.a, onward, "RETIRED")
        assert ended["receipt"]
        assert await c.cli("service", "list") == []
        rows = (await stage.a.service(service))["keeper"]["rows"]
        assert (rows["granted"], rows["foreign"]) == (0, 0), "home owns everything again"
        this.mark("returned")
        await clients.order("stop")
        this.mark("end")
        await clients.order("read")
        findings = await course.judge(this, allow_failed=True)
    assert findings.requests_ok > 500
    assert findings.reasons == []
    assert (findings.requests_lost, findings.requests_duplicated, findings.requests_reordered) == (0, 0, 0)
    assert (findings.owner_conflicts, findings.requests_phantom) == (0, 0)
    assert (findings.notifications_lost, findings.timers_missed, findings.timers_doubled) == (0, 0, 0)
    assert (findings.requests_failed, findings.requests_unknown) == (0, 0)


async def _until_gone(clients: Running, network: str) -> None:
    """Until no UE is in a network."""
    async with asyncio.timeout(90):
        while (await _progress(clients))["inNetwork"][network]:
            pass
