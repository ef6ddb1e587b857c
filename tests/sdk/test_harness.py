"""The keeper in memory: records, timers, shared objects, notifications, relocations."""

from pathlib import Path
from typing import Any

import pytest

from outrider.sdk.testing import HandlerFailed, Harness, services_of

UE, OTHER = "imsi-999700000000001", "imsi-999700000000002"
TARGET = {"mcc": "999", "mnc": "71", "nid": "0123456789a"}

SERVICE = """
async def handle(method, path, body):
    unit = sdk.unit()
    if path == "/fail":
        raise ValueError("broken")
    if path == "/big":
        unit.put("big", "x" * 300_000)
    if path == "/members":
        group = await unit.shared("group:7")
        return group.get("members") or []
    if path == "/loop":
        unit.send("group:7", "again", None)
        return None
    if method == "DELETE":
        unit.delete("session")
        unit.disarm("renew")
        return (204, None)
    unit.put("session", {"address": unit.network["mnc"], "n": (unit.get("session") or {"n": 0})["n"] + 1})
    unit.arm("renew", after_ms=1_000, data={"left": 2})
    unit.send("group:7", "joined", unit.identity)
    return unit.get("session")

nf = sdk.NfService(asgi(handle))

@nf.on_timer("renew")
async def renew(timer):
    unit = sdk.unit()
    unit.put("renewed", (unit.get("renewed") or []) + [unit.now_ms])
    if timer.data["left"]:
        unit.arm("renew", after_ms=1_000, data={"left": timer.data["left"] - 1})

@nf.on_message("joined")
async def joined(message):
    unit = sdk.unit()
    members = unit.get("members") or []
    unit.put("members", members + [message.json()])
    unit.notify("http://consumer.example/cb", {"n": len(members) + 1, "kind": unit.kind, "key": unit.key})

@nf.on_message("again")
async def again(message):
    sdk.unit().send("group:7", "again", None)

@nf.on_arrival
async def arrived():
    unit = sdk.unit()
    if session := unit.get("session"):
        unit.put("session", session | {"address": unit.network["mnc"]})
"""


@pytest.fixture
async def harness(write: Any) -> Any:
    async with Harness({"nsmf-x": "service:nf"}, code=write("service", SERVICE), now_ms=1_000_000) as h:
        yield h


async def test_requests_timers_messages_and_notifications(harness: Harness) -> None:
    reply = await harness.request("nsmf-x", "POST", "/sessions", ue=UE, json={})
    assert (reply.status, reply.json()) == (200, {"address": "70", "n": 1})
    assert harness.armed("nsmf-x", "renew", ue=UE) == 1_001_000
    await harness.request("nsmf-x", "POST", "/sessions", ue=OTHER, json={})
    assert harness.record("nsmf-x", "members", shared="group:7") == [UE, OTHER]
    assert [n.value["n"] for n in harness.notifications] == [1, 2]
    assert harness.notifications[0].uri == "http://consumer.example/cb"
    assert harness.notifications[0].value["key"] == "shared:group:7"
    assert (await harness.request("nsmf-x", "GET", "/members", ue=UE)).json() == [UE, OTHER]


async def test_time_is_virtual_and_timers_fire_at_their_due_time(harness: Harness) -> None:
    await harness.request("nsmf-x", "POST", "/sessions", ue=UE, json={})
    await harness.advance(999)
    assert harness.record("nsmf-x", "renewed", ue=UE) is None
    await harness.advance(10_000)
    assert harness.record("nsmf-x", "renewed", ue=UE) == [1_001_000, 1_002_000, 1_003_000]
    assert harness.armed("nsmf-x", "renew", ue=UE) is None
    assert harness.now_ms == 1_010_999


async def test_a_relocation_takes_records_and_timers_along_and_runs_on_arrival(harness: Harness) -> None:
    await harness.request("nsmf-x", "POST", "/sessions", ue=UE, json={})
    await harness.relocate(to_network=TARGET)
    assert harness.record("nsmf-x", "session", ue=UE) == {"address": "71", "n": 1}
    await harness.advance(1_000)
    assert harness.record("nsmf-x", "renewed", ue=UE) == [1_001_000]
    assert (await harness.request("nsmf-x", "POST", "/sessions", ue=UE)).json() == {"address": "71", "n": 2}


async def test_one_ue_moves_and_the_others_stay(harness: Harness) -> None:
    for ue in (UE, OTHER):
        await harness.request("nsmf-x", "POST", "/sessions", ue=ue, json={})
    await harness.relocate(to_network=TARGET, ue=UE)
    for ue, network in ((UE, "71"), (OTHER, "70")):
        assert (await harness.request("nsmf-x", "POST", "/sessions", ue=ue)).json()["address"] == network


async def test_a_deleted_record_and_a_disarmed_timer_are_gone(harness: Harness) -> None:
    await harness.request("nsmf-x", "POST", "/sessions", ue=UE, json={})
    assert (await harness.request("nsmf-x", "DELETE", "/sessions", ue=UE)).status == 204
    assert harness.names("nsmf-x", ue=UE) == []
    assert harness.armed("nsmf-x", "renew", ue=UE) is None


async def test_what_is_carried_can_be_searched(harness: Harness) -> None:
    await harness.request("nsmf-x", "POST", "/sessions", ue=UE, json={})
    assert UE.encode() not in harness.context_bytes(ue=UE)
    assert UE.encode() in harness.context_bytes(shared="group:7")


async def test_faults_of_a_handler_are_failures_of_the_test(harness: Harness) -> None:
    with pytest.raises(HandlerFailed, match="ValueError: broken"):
        await harness.request("nsmf-x", "GET", "/fail", ue=UE)
    with pytest.raises(HandlerFailed, match="the keeper would refuse"):
        await harness.request("nsmf-x", "GET", "/big", ue=UE)
    with pytest.raises(HandlerFailed, match="do handlers answer each other"):
        await harness.request("nsmf-x", "GET", "/loop", ue=UE)
    with pytest.raises(TypeError, match="either a UE or a shared object"):
        await harness.request("nsmf-x", "GET", "/")


async def test_a_projects_services_come_from_its_manifest(write: Any) -> None:
    project = write("service", SERVICE)
    (project / "outrider.toml").write_text('[[nf_services]]\nname = "nsmf-x"\napp = "service:nf"\n')
    assert services_of(project) == {"nsmf-x": "service:nf"}
    async with Harness.of_project(project) as h:
        assert (await h.request("nsmf-x", "POST", "/sessions", ue=UE, json={})).status == 200


def test_the_directory_of_a_project_is_all_it_takes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        services_of(tmp_path)
