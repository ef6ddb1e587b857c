"""The demo's clients against two networks: what they note down is enough to tell a good build from a bad one."""

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.demo.access import NetworkAt
from outrider.demo.checker import Findings, Phase, Timeline, check
from outrider.demo.client import Config, Group
from outrider.demo.histories import Arrived, Basic, Discovered, Final, Opened, Transaction, Writer, read
from outrider.demo.member import Load
from outrider.demo.track import Move

pytestmark = pytest.mark.slow

HOME, TARGET = "999-70", "999-71-000007ed9d5"
World = Any
Until = Any

TRACK = [Move(ue, 0.1 + ue / 20, TARGET) for ue in (1, 2, 3)] + [Move(ue, 0.8 + ue / 20, HOME) for ue in (1, 2, 3)]


def config(world: World, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "networks": [NetworkAt(id=n.id, nrf_root=n.root) for n in world.networks.values()],
        "home": HOME,
        "ues": 4,
        "group_size": 2,
        "track": str(world.directory / "track.csv"),
        "history": str(world.directory / "clients.jsonl"),
        "nf_instance_id": str(uuid.uuid4()),
        "load": Load(rate=20.0, overlap=0.2, basic_rate=5.0, qos={"rate": 100, "burst": 100, "validityMs": 200}),
        "discover_every_s": 0.05,
        "callback_uri": world.sink.uri,
    }
    return Config(**settings | changes)


async def play(world: World, moves: list[Move], *, seen: str = "ok", times: int = 8, **changes: Any) -> Findings:
    """Open, load until so many of an outcome are seen, travel with the service ahead, stop, read; and the findings."""
    settings = config(world, **changes)
    with Writer(Path(settings.history)) as history:
        group = Group(settings, history, world.client, moves)
        await group.enter()
        assert await group.open() == {"opened": 4, "failed": 0}
        group.load()
        async with asyncio.timeout(20):
            while group.counted[seen] < times:
                await asyncio.sleep(0.005)
        await world.networks[TARGET].host()
        await group.travel()
        await group.stop()
        await world.pumped()
        assert await group.read() == 4
        await group.leave()
    timeline = Timeline(HOME, TARGET, [Phase("before", 0, 1e9)])
    lines = list(read([Path(settings.history), world.directory / "sink.jsonl"]))
    return check(lines, timeline)


def lines(world: World, kind: type) -> list[Any]:
    return [line for line in read([world.directory / "clients.jsonl"]) if isinstance(line, kind)]


# ------------------------------------------------------------------------------------------- good and bad builds


async def test_a_group_goes_and_comes_back_and_nothing_is_lost(world: World) -> None:
    findings = await play(world, TRACK)
    assert findings.verdict == "PASS", findings.reasons
    assert findings.requests_ok == findings.requests_sent > 20
    assert findings.served_locally_on_arrival == findings.served_locally_on_return == 1.0
    assert findings.arrivals == 3
    assert findings.timers_fired > 8
    assert findings.notifications == findings.requests_ok + 4
    assert findings.basic_failed == 0
    assert {t.served_by for t in lines(world, Transaction)} == {HOME, TARGET}


async def test_a_lossy_build_turns_the_verdict_red(world: World) -> None:
    world.producer.lossy = True
    findings = await play(world, TRACK)
    assert findings.requests_lost > 0
    assert findings.verdict == "FAIL"


async def test_a_duplicating_build_turns_the_verdict_red(world: World) -> None:
    world.producer.forgetful = True
    world.producer.drop_answers = 3
    findings = await play(world, TRACK)
    assert findings.requests_duplicated == 3
    assert findings.verdict == "FAIL"


async def test_a_split_brain_build_turns_the_verdict_red(world: World) -> None:
    world.producer.split_brain = True
    findings = await play(world, TRACK)
    assert findings.owner_conflicts > 0
    assert findings.verdict == "FAIL"


async def test_a_build_that_serves_only_from_home_is_seen_in_the_share_served_locally(world: World) -> None:
    world.producer.remote = True
    findings = await play(world, TRACK)
    assert findings.verdict == "PASS", findings.reasons
    assert findings.served_locally_on_arrival == 0.0


# --------------------------------------------------------------------------------------------------- retries


async def test_a_lost_answer_is_asked_for_again_under_the_same_key_and_counts_once(world: World) -> None:
    world.producer.drop_answers = 5
    findings = await play(world, [])
    assert findings.verdict == "PASS", findings.reasons
    assert findings.attempts == findings.requests_sent + 5
    tried = [t for t in lines(world, Transaction) if len(t.attempts) > 1]
    assert {t.attempts[0].status for t in tried} == {504}
    assert all(t.outcome == "ok" for t in tried)


async def test_a_ue_beyond_its_rate_is_refused_and_goes_on(world: World) -> None:
    load = Load(rate=50.0, overlap=0.0, basic_rate=0.0, qos={"rate": 1, "burst": 2, "validityMs": 200})
    findings = await play(world, [], seen="refused", load=load)
    assert findings.requests_refused > 0
    assert findings.requests_ok > 0
    assert findings.verdict == "PASS", findings.reasons


# ----------------------------------------------------------------------------------------------- what is noted


async def test_arrivals_basic_requests_and_discoveries_are_noted(world: World) -> None:
    await play(world, TRACK)
    assert {(a.ue, a.network) for a in lines(world, Arrived)} == {(f"ue-{m.ue}", m.network) for m in TRACK}
    assert all(a.registered is not None and a.registered >= a.due for a in lines(world, Arrived))
    assert {b.operation for b in lines(world, Basic)} == {"register", "deregister", "pdu-session"}
    assert {(d.network, d.instances) for d in lines(world, Discovered)} == {(HOME, 1), (TARGET, 0), (TARGET, 1)}
    assert [o.outcome for o in lines(world, Opened)] == ["ok"] * 4
    assert len(lines(world, Final)) == 4


async def test_no_history_holds_a_supi(world: World) -> None:
    await play(world, TRACK)
    for file in ("clients.jsonl", "sink.jsonl"):
        assert b"imsi" not in (world.directory / file).read_bytes()


async def test_a_subscriber_that_is_away_gets_everything_when_it_is_back(world: World, until: Until) -> None:
    settings = config(world)
    with Writer(Path(settings.history)) as history:
        group = Group(settings, history, world.client, [])
        await group.enter()
        await group.open()
        group.load()
        world.sink.refuse()
        await until(lambda: world.sink.refused > 2)
        await world.sink.close()
        await asyncio.sleep(0.05)
        await world.sink.up()
        await group.stop()
        await world.pumped()
        await group.read()
        await group.leave()
    findings = check(
        list(read([Path(settings.history), world.directory / "sink.jsonl"])),
        Timeline(HOME, TARGET, [Phase("before", 0, 1e9)]),
    )
    assert findings.verdict == "PASS", findings.reasons
    assert findings.notifications > findings.requests_ok + 4


async def test_the_clock_of_a_track_stands_still_between_its_legs(world: World) -> None:
    moves = [Move(1, 0.0, TARGET), Move(2, 0.01, TARGET), Move(3, 5.0, TARGET), Move(1, 5.01, HOME)]
    with Writer(Path(config(world).history)) as history:
        group = Group(config(world), history, world.client, moves)
        await group.enter()
        await asyncio.wait_for(group.travel(until_s=5.0), 4)
        assert [group.members[ue].network for ue in (1, 2, 3)] == [TARGET, TARGET, HOME]
        await asyncio.wait_for(group.travel(without=TARGET), 4)
        assert [group.members[ue].network for ue in (1, 2, 3)] == [HOME, TARGET, HOME], "3 has nothing to go to"
        await group.leave()


# ------------------------------------------------------------------------------------------------ as a process


async def test_the_process_obeys_its_orders(world: World) -> None:
    (world.directory / "track.csv").write_text(f"ue,time_s,network\n1,0.1,{TARGET}\n")
    await world.networks[TARGET].host()
    file = world.directory / "config.json"
    file.write_bytes(msgspec.json.encode(config(world)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.demo.client", str(file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    async def said(what: str) -> dict[str, Any]:
        assert process.stdout is not None
        while True:
            line = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
            assert "error" not in line
            if line.get("done") == what or what in line:
                return dict(line)

    async def order(do: str) -> dict[str, Any]:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": do}).encode() + b"\n")
        return await said(do)

    await said("ready")
    assert (await order("open"))["opened"] == 4
    await order("load")
    await order("travel")
    await said("travelled")
    progress = (await said("progress"))["progress"]
    assert progress["inNetwork"] == {HOME: 3, TARGET: 1}
    assert (await order("stop"))["progress"]["failed"] == 0
    assert (await order("read"))["read"] == 4
    assert (await order("close"))["failed"] == 0
    assert (await order("read"))["read"] == 4, "what is closed cannot be read"
    process.stdin.write(b'{"do":"end"}\n')
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_the_process_says_why_it_cannot_begin(world: World) -> None:
    (world.directory / "track.csv").write_text("ue,time_s,network\n")
    nowhere = NetworkAt(id=HOME, nrf_root="http://127.0.0.1:1")
    file = world.directory / "config.json"
    file.write_bytes(msgspec.json.encode(config(world, networks=[nowhere])))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.demo.client", str(file),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 15)
    assert "had no answer" in json.loads(out)["error"]
    assert process.returncode == 1
