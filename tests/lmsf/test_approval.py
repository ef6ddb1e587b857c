"""A policy that asks a human: the migration waits with a sentence, survives restarts, and goes on, stops or expires."""

import asyncio
from typing import Any

import pytest

from outrider.core import limits
from outrider.functions.lmsf import approvals
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Journal

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
PERMIT = '[[permit]]\nid = "all"\n'
ASK = f'{PERMIT}[[approval]]\nid = "large"\nclause = "house rule 3"\nmax_ues = 10\n'


async def _waiting(network: Any) -> Any:
    """The one question that waits."""
    async with asyncio.timeout(20):
        while True:
            found = (await network.ask("GET", "/nlmsf-policy/v1/approvals", status=200))["approvals"]
            waiting = [a for a in found if a["state"] == "WAITING"]
            if waiting:
                return waiting[0]
            await asyncio.sleep(0.005)


async def _said(network: Any, name: str, word: str) -> str:
    """What a side waits for, once that says a word."""
    async with asyncio.timeout(20):
        while word not in (shown := await network.show(name))["waitingFor"]:
            await asyncio.sleep(0.005)
    return str(shown["waitingFor"])


async def _decide(network: Any, name: str, how: str, status: int = 200, **said: Any) -> Any:
    path = f"/nlmsf-policy/v1/approvals/{name}/{how}"
    return await network.ask("POST", path, {"by": "chief", **said}, status=status)


@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_migration_waits_with_a_sentence_and_goes_on_when_granted(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    asked = await _waiting(network)
    assert asked["migrationId"] == name
    assert asked["reasons"] == ["large: 1000000 UEs are more than 10 (house rule 3)"]
    for seen in (pair.a, pair.b) if side == "b" else (pair.a,):
        said = await _said(seen, name, f"A human at {network.id} has to approve it")
        assert f"outrider approval grant {name}" in said
        assert "house rule" not in said
    assert (await pair.a.show(name))["phase"] == "NEGOTIATING"
    await _decide(network, name, "grant")
    await pair.reach(name, "SETTLED")
    kept = (await network.ask("GET", "/nlmsf-policy/v1/decisions", status=200))["decisions"]
    assert [d["decision"]["verdict"] for d in kept][:2] == ["needs-approval", "allow"]
    assert kept[1]["request"]["approvedBy"] == "chief"


@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_human_who_refuses_stops_it_and_the_partner_learns_the_sentence(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await _waiting(network)
    await _decide(network, name, "refuse", sentence="not during the regatta")
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000)
    shown = await pair.a.show(name)
    assert (shown["ending"]["cause"], shown["ending"]["by"]) == ("APPROVAL_REFUSED", str(network.id))
    assert "not during the regatta" in shown["ending"]["sentence"]
    assert [r["code"] for r in shown["refusals"]] == ["APPROVAL_REFUSED", "POLICY_APPROVAL_NEEDED"]
    pair.whole_at_home()
    await pair.clear_at_target()


@pytest.mark.parametrize("side", ["a", "b"])
async def test_it_waits_longer_than_a_phase_may_and_then_expires(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(f"approval_hours = 0.5\n{ASK}")
    name = (await pair.migrate(move_all=True))["migrationId"]
    await _waiting(network)
    if side == "b":
        await _said(pair.a, name, "has to approve")
        async with asyncio.timeout(20):
            while not pair.a.lmsf.get(name).patient_until_ms:
                await asyncio.sleep(0.005)
    pair.later(10 * limits.OFFER_LIMIT_MS / 1000)
    await pair.a.lmsf.get(name).look()
    await pair.a.lmsf.get(name).note()
    assert (await pair.a.show(name))["phase"] == "NEGOTIATING", "a human is given time"
    pair.later(1_200)
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000), await pair.a.show(name)
    assert (await pair.a.show(name))["ending"]["cause"] == "APPROVAL_EXPIRED"
    assert (await _decide(network, name, "grant", 409))["cause"] == "APPROVAL_DECIDED"
    pair.whole_at_home()


@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_question_and_its_answer_survive_a_restart(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    asked = await _waiting(network)
    await network.restart()
    assert await _waiting(network) == asked
    await _decide(network, name, "grant")
    await network.restart()
    await pair.reach(name, "SETTLED")
    (known,) = (await network.ask("GET", "/nlmsf-policy/v1/approvals", status=200))["approvals"]
    assert (known["state"], known["by"]) == ("GRANTED", "chief")


async def test_both_sides_may_ask_one_after_the_other(pair: Any) -> None:
    for network in (pair.a, pair.b):
        await network.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    for network in (pair.a, pair.b):
        await _waiting(network)
        await _decide(network, name, "grant")
    await pair.reach(name, "SETTLED")


async def test_a_human_is_not_asked_about_what_is_refused_anyway(pair: Any) -> None:
    await pair.b.under(f'{ASK}[[require]]\nid = "no"\npurposes = []\n')
    name = (await pair.migrate(move_all=True))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000)
    codes = [r["code"] for r in (await pair.a.show(name))["refusals"]]
    assert codes == ["POLICY_PURPOSE", "POLICY_APPROVAL_NEEDED"]
    assert (await pair.b.ask("GET", "/nlmsf-policy/v1/approvals", status=200))["approvals"] == []


@pytest.mark.parametrize("side", ["a", "b"])
async def test_an_approval_that_is_asked_for_when_permissions_are_exchanged(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(f'{PERMIT}[[approval]]\nid = "sign"\nwhen = {{ actions = ["SignPermission"] }}\n')
    name = (await pair.migrate(move_all=True))["migrationId"]
    assert (await _waiting(network))["action"] == "SignPermission"
    await _said(pair.a, name, "has to approve")
    assert (await pair.a.show(name))["phase"] == "PERMITTING"
    await _decide(network, name, "grant")
    await pair.reach(name, "SETTLED")


async def test_a_software_that_is_not_known_yet_is_asked_about_before_anything_moves(pair: Any) -> None:
    await pair.b.under(f'{PERMIT}[[approval]]\nid = "free"\nlicences = ["MIT"]\n')
    name = (await pair.migrate(move_all=True))["migrationId"]
    assert (await _waiting(pair.b))["reasons"] == ["free: the SBOM is not here yet"]
    await _decide(pair.b, name, "grant")
    await pair.reach(name, "SETTLED")


async def test_a_stay_is_approved_before_a_stricter_policy_counts(pair: Any) -> None:
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await _decide(pair.b, name, "grant")
    await pair.b.under(ASK)
    await pair.b.lmsf.get(name).look()
    assert (await pair.b.show(name))["phase"] == "SETTLED"


async def test_a_stay_that_nobody_has_approved_ends_under_a_stricter_policy(pair: Any) -> None:
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await pair.b.under(ASK)
    for shown in await pair.ended(name):
        assert (shown["phase"], shown["ending"]["cause"]) == ("RETIRED", "POLICY_APPROVAL_NEEDED")


async def test_what_is_decided_stays_decided_and_what_is_unknown_is_refused(pair: Any) -> None:
    await pair.b.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await _waiting(pair.b)
    granted = await _decide(pair.b, name, "grant")
    assert await _decide(pair.b, name, "grant") == granted, "twice is once"
    assert (await _decide(pair.b, name, "refuse", 409))["cause"] == "APPROVAL_DECIDED"
    assert (await _decide(pair.b, "m-none", "grant", 404))["cause"] == "APPROVAL_UNKNOWN"
    await pair.b.ask("POST", f"/nlmsf-policy/v1/approvals/{name}/grant", {"by": ""}, status=400)


async def test_a_partner_cannot_flood_the_queue(pair: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(approvals, "WAITING", 0)
    await pair.b.under(ASK)
    name = (await pair.migrate(move_all=True))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000)
    assert (await pair.a.show(name))["ending"]["cause"] == "APPROVALS_TOO_MANY"


@pytest.mark.parametrize("who", ["b", "c"])
async def test_the_others_wait_too_while_one_of_three_asks_a_human(three: Any, who: str) -> None:
    await three.permit()
    network = getattr(three, who)
    await network.under(f'{PERMIT}[[approval]]\nid = "ask"\nwhen = {{ actions = ["HostService", "GoOnward"] }}\n')
    for there in (three.a, three.b):
        await three.reach(three.first, "SETTLED", at=there)
    name = (await three.onward())["migrationId"]
    await _waiting(network)
    waiting = [three.a, three.b] if who == "c" else [three.a]
    for other in waiting:
        async with asyncio.timeout(20):
            while not (runner := other.lmsf.get(name)) or not runner.patient_until_ms:
                await asyncio.sleep(0.005)
    three.later(5 * limits.OFFER_LIMIT_MS / 1000)
    for other in waiting:
        await other.lmsf.get(name).look()
    await _decide(network, name, "grant")
    await three.reach(name, "SETTLED", at=three.c)


async def test_old_answers_are_forgotten_first(tmp_path: Any, pair: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(approvals, "KEPT", 3)
    name = (await pair.migrate(move_all=True))["migrationId"]
    contract = pair.a.lmsf.get(name).contract
    journal = Journal(tmp_path / "j.db", network="999-70", clock=SystemClock())
    queue = approvals.Approvals(A, journal, pair.a.clock)
    for n in range(6):
        await queue.decide(f"m-{n}", contract, B, grant=n == 0, by="chief", sentence="")
    assert {a.migration_id for a in queue.all()} == {"m-0", "m-4", "m-5"}, "what is granted is not forgotten"
    assert {a.migration_id for a in approvals.Approvals(A, journal, pair.a.clock).all()} == {"m-0", "m-4", "m-5"}
    journal.close()
