"""Each operator's policy at work: who judges what when, what the partner learns, and what a changed policy ends."""

import asyncio
from typing import Any

import apsw
import pytest

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import Component
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Journal

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
PERMIT = '[[permit]]\nid = "all"\n'
STAYS = '[[require]]\nid = "no-stay"\nclause = "secret clause"\nmax_ues = 10\n'


async def _refused(pair: Any, **wanted: Any) -> Any:
    name = (await pair.migrate(move_all=True, **wanted))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000), await pair.a.show(name)
    pair.whole_at_home()
    return await pair.a.show(name)


async def _decisions(network: Any, **query: Any) -> Any:
    text = "&".join(f"{k}={v}" for k, v in query.items())
    return (await network.ask("GET", f"/nlmsf-policy/v1/decisions?{text}", status=200))["decisions"]


async def test_a_target_refuses_an_offer_with_all_reasons_and_not_its_text(pair: Any) -> None:
    cedar = '@id("no-all") @clause("§ 7") @remedy("Move only UEs that arrive.") forbid(principal, action, resource)'
    await pair.b.under(
        f'{PERMIT}[[require]]\nid = "few"\nclause = "§ 4"\nmax_ues = 10\npurposes = ["research"]\n',
        cedar + " when { context.moveAll };",
    )
    shown = await _refused(pair)
    codes = [r["code"] for r in shown["refusals"]]
    assert codes == ["POLICY_PURPOSE", "POLICY_UES", "POLICY_FORBIDDEN"]
    assert (shown["ending"]["cause"], shown["ending"]["by"]) == ("POLICY_PURPOSE", B)
    assert [r["remedy"] for r in shown["refusals"]] == [
        "Ask for purposes: research.",
        "Ask for at most 10 UEs.",
        "Move only UEs that arrive.",
    ]
    assert "§" not in str(shown), "the policy's text stays at home"
    assert "context" not in str(shown["refusals"])
    (kept,) = await _decisions(pair.b, migration=shown["migrationId"])
    assert [r["clause"] for r in kept["decision"]["reasons"] if r["effect"] == "forbid"] == ["§ 4", "§ 4", "§ 7"]
    assert kept["request"]["partner"] == A
    assert "sbom" not in kept["request"] or kept["request"]["sbom"] is None
    await pair.clear_at_target()


async def test_a_source_does_not_offer_what_its_policy_keeps_at_home(pair: Any) -> None:
    rules = f'{PERMIT}[[require]]\nid = "home"\nbarred_partners = ["{B}"]\nwhen = {{ actions = ["SendService"] }}\n'
    await pair.a.under(rules)
    refused = await pair.migrate(status=403)
    assert (refused["cause"], refused["detail"]) == (
        "POLICY_PARTNER",
        f"The policy of {A} does not allow it: {B} is barred (rule home).",
    )
    assert not any("offers" in path for path in pair.a.sent)
    (kept,) = await _decisions(pair.a)
    assert kept["request"]["action"] == "SendService"
    assert [c["name"] for c in kept["request"]["sbom"]["components"]] == ["group-coordination"]


@pytest.mark.parametrize("side", ["a", "b"])
async def test_either_side_refuses_when_permissions_are_exchanged(pair: Any, side: str) -> None:
    network = getattr(pair, side)
    await network.under(f'{PERMIT}[[require]]\nid = "no"\nmax_ues = 1\nwhen = {{ actions = ["SignPermission"] }}\n')
    shown = await _refused(pair)
    assert (shown["ending"]["cause"], shown["ending"]["by"]) == ("POLICY_UES", str(network.id))
    assert "PERMITTING" in shown["phases"]
    assert "PREPARING" not in shown["phases"]


async def test_the_software_is_judged_before_it_is_installed_when_its_sbom_is_known(pair: Any) -> None:
    pair.b.software.components = (
        Component(ref="sdk.whl", name="sdk", version="1.0", licence="SSPL-1.0"),
        Component(ref="odd.whl", name="odd", version="2.0"),
    )
    await pair.b.under(f'{PERMIT}[[require]]\nid = "free"\nlicences = ["Apache-2.0"]\n')
    shown = await _refused(pair)
    assert shown["ending"]["cause"] == "POLICY_LICENCE"
    assert "sdk 1.0 (SSPL-1.0), odd 2.0 (no licence declared)" in shown["refusals"][0]["remedy"]
    assert "PREPARING" in shown["phases"]
    await pair.clear_at_target()
    assert pair.b.hosts.digest_keys == [], "no host was ever started"
    first, *_, last = await _decisions(pair.b, migration=shown["migrationId"])
    assert (first["decision"]["verdict"], first["decision"]["pending"]) == ("allow", ["free"])
    assert last["decision"]["verdict"] == "refuse"


async def test_an_sbom_that_cannot_be_read_any_more_is_not_taken(pair: Any) -> None:
    await pair.b.under(PERMIT)
    pair.b.software.refuse = Refusal("SBOM_MISMATCH", "It is another one.")
    assert (await _refused(pair))["ending"]["cause"] == "SBOM_MISMATCH"


async def test_a_policy_that_permits_nothing_refuses_everything(pair: Any) -> None:
    await pair.b.under(STAYS)
    assert {r["code"] for r in (await _refused(pair))["refusals"]} == {"POLICY_UES", "POLICY_NO_PERMIT"}


async def test_a_policy_that_allows_lets_it_through_and_every_step_is_kept(pair: Any) -> None:
    for network in (pair.a, pair.b):
        await network.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    steps = {A: ["SendService", "SignPermission", "ContinueStay"], B: ["HostService", "SignPermission", "HostService"]}
    for network in (pair.a, pair.b):
        kept = await _decisions(network, migration=name)
        actions = [d["request"]["action"] for d in kept]
        expected = steps[str(network.id)]
        assert actions[: len(expected)] == expected or set(expected) <= set(actions)
        assert {d["decision"]["verdict"] for d in kept} == {"allow"}
        assert actions.count("ContinueStay") <= 2, "the same answer is kept once, not each second"
        assert kept[-1]["request"]["sbom"], "the facts are kept again when the SBOM is known"


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(("outcome", "end"), [("return", "RETIRED"), ("abort", "ABORTED")])
async def test_a_changed_policy_ends_a_stay_as_it_says(pair: Any, side: str, outcome: str, end: str) -> None:
    network = getattr(pair, side)
    await network.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await network.under(f'{PERMIT}{STAYS}outcome = "{outcome}"\n')
    for shown in await pair.ended(name):
        assert (shown["phase"], shown["ending"]["cause"]) == (end, "POLICY_UES")
        assert shown["ending"]["by"] == str(network.id)
        assert "secret clause" not in str(shown)
    pair.whole_at_home()
    await pair.clear_at_target()


@pytest.mark.parametrize("phase", ["PREPARING", "COPYING", "RELOCATING"])
async def test_a_changed_policy_stops_a_migration_that_is_under_way(pair: Any, phase: str) -> None:
    await pair.b.under(PERMIT)
    name, release = await pair.held_in(phase)
    await pair.b.under(f"{PERMIT}{STAYS}")
    await pair.b.lmsf.get(name).until(lambda row: row.ending is not None, 5_000)
    assert (await pair.b.show(name))["ending"]["cause"] == "POLICY_UES"
    release()
    await pair.ended(name)
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_files_that_change_count_by_themselves_once_they_stay_the_same(pair: Any) -> None:
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    began_ms = pair.b.clock.now_ms()
    pair.b.policy.files = {"rules_toml": f"{PERMIT}{STAYS}"}
    await pair.reach(name, "RETURNING", "RETIRED", at=pair.b)
    ended = next(d for d in await _decisions(pair.b, migration=name) if d["decision"]["verdict"] == "refuse")
    assert ended["atMs"] >= began_ms
    assert limits.POLICY_LOOK_MS * 2 + limits.PERMIT_CHECK_MS < 5_000, "two looks and a judgement, within 5 s"


async def test_files_that_go_on_changing_do_not_count_yet(pair: Any) -> None:
    await pair.b.under(PERMIT)
    policies = pair.b.lmsf.policies
    version = policies.info.version
    for n in range(5):
        pair.b.policy.files = {"rules_toml": f"{PERMIT}# {n}\n"}
        assert policies.look() is False
    assert policies.info.version == version
    assert policies.look() is True
    assert policies.look() is False


async def test_a_policy_that_is_wrong_changes_nothing_and_says_each_line(pair: Any) -> None:
    await pair.b.under(f"{PERMIT}{STAYS}")
    before = (await pair.b.ask("GET", "/nlmsf-policy/v1/policy", status=200))["version"]
    pair.b.policy.files = {"rules_toml": PERMIT + "max = 1\n", "own_cedar": "permit;"}
    refused = await pair.b.ask("POST", "/nlmsf-policy/v1/apply", status=400)
    assert [r["facts"] for r in refused["refusals"]] == [
        {"file": "rules.toml", "line": "3"},
        {"file": "own.cedar", "line": "1"},
    ]
    info = await pair.b.ask("GET", "/nlmsf-policy/v1/policy", status=200)
    assert (info["version"], [p["line"] for p in info["problems"]]) == (before, [3, 1])
    assert (await _refused(pair))["ending"]["cause"] == "POLICY_UES", "the one before counts"


async def test_files_that_vanish_change_nothing(pair: Any) -> None:
    await pair.b.under(f"{PERMIT}{STAYS}")
    pair.b.policy.files, pair.b.policy.gone = {}, FileNotFoundError(2, "gone", "policy/rules.toml")
    refused = await pair.b.ask("POST", "/nlmsf-policy/v1/apply", status=400)
    assert "policy/rules.toml" in refused["detail"]
    assert (await _refused(pair))["ending"]["cause"] == "POLICY_UES"
    with pytest.raises(Refused, match="POLICY_INVALID"):  # and a node does not start without
        await pair.b.restart()
    pair.b.policy.gone = None
    pair.b.policy.files = {"rules_toml": PERMIT}
    pair.b.lmsf = pair.b._new()
    await pair.b.lmsf.start()


async def test_without_a_policy_there_is_nothing_to_apply_and_the_default_is_named(pair: Any) -> None:
    assert (await pair.b.ask("POST", "/nlmsf-policy/v1/apply", status=409))["cause"] == "POLICY_NONE"
    info = await pair.b.ask("GET", "/nlmsf-policy/v1/policy", status=200)
    assert (info["version"], info["digest"], info["permits"]) == ("default", "", True)


async def test_a_stay_whose_facts_cannot_be_had_is_not_allowed(pair: Any) -> None:
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    pair.b.lmsf.catalogue._facts.clear()
    pair.b.software.refuse = Refusal("SBOM_MISMATCH", "It is another one.")
    for shown in await pair.ended(name):
        assert (shown["phase"], shown["ending"]["cause"]) == ("RETIRED", "SBOM_MISMATCH")


async def test_a_full_disk_begins_nothing_and_keeps_no_stay_alive(pair: Any, monkeypatch: Any) -> None:
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    full = 0

    async def fail(*args: Any, **kwargs: Any) -> None:
        nonlocal full
        full += 1
        raise apsw.FullError("the disk is full")

    monkeypatch.setattr(pair.b.lmsf.journal, "decided", fail)
    monkeypatch.setattr("outrider.functions.lmsf.policies.log.exception", lambda *args, **kwargs: None)
    await pair.b.under(f"{PERMIT}{STAYS}")
    await pair.ended(name)
    assert full > 0
    monkeypatch.setattr(pair.a.lmsf.journal, "decided", fail)
    monkeypatch.setattr("outrider.sbi.router._log.error", lambda *args, **kwargs: None)
    before = len(pair.a.lmsf.all())
    await pair.migrate(status=500)
    assert len(pair.a.lmsf.all()) == before


async def test_decisions_are_kept_over_a_restart_and_bounded(tmp_path: Any) -> None:
    journal = Journal(tmp_path / "j.db", network="999-70", clock=SystemClock())
    for n in range(20):
        await journal.decided(n, f"m-{n % 2}", b"body", keep=5)
    assert [row[0] for row in await journal.decisions()] == [16, 17, 18, 19, 20]
    journal.close()
    again = Journal(tmp_path / "j.db", network="999-70", clock=SystemClock())
    assert [row[:3] for row in await again.decisions(migration="m-1", after=16)] == [(18, 17, "m-1"), (20, 19, "m-1")]
    assert [row[0] for row in await again.decisions(since_ms=18, limit=1)] == [19]
    again.close()


@pytest.mark.parametrize("query", ["since-ms=x", "after=-1", "limit=1e3", "after=²"])
async def test_a_query_that_is_no_number_is_refused(pair: Any, query: str) -> None:
    refused = await pair.a.ask("GET", f"/nlmsf-policy/v1/decisions?{query}", status=400)
    assert refused["cause"] == "INVALID_QUERY_PARAM"


@pytest.mark.parametrize("who", ["a", "b", "c"])
async def test_any_of_three_refuses_the_way_onward(three: Any, who: str) -> None:
    await three.permit()
    network = getattr(three, who)
    action = "HostService" if who == "c" else "GoOnward"
    await network.under(f'{PERMIT}[[require]]\nid = "no"\nmax_ues = 1\nwhen = {{ actions = ["{action}"] }}\n')
    for there in (three.a, three.b):
        await three.reach(three.first, "SETTLED", at=there)
    if who == "a":
        assert (await three.onward(status=403))["cause"] == "POLICY_UES"
        return
    name = (await three.onward())["migrationId"]
    runner = three.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000)
    shown = await three.a.show(name)
    assert (shown["ending"]["cause"], shown["ending"]["by"]) == ("POLICY_UES", str(network.id))
    assert three.owners() == {B: 40}


async def test_nothing_runs_while_a_judgement_is_awaited(pair: Any) -> None:
    """A migration asks once a look, so a policy costs a look no request of a UE."""
    await pair.b.under(PERMIT)
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await asyncio.gather(*(pair.b.lmsf.get(name).look() for _ in range(50)))
    assert len(await _decisions(pair.b, migration=name)) <= 5
