"""The audit log of whole migrations: complete, once, whole at both sides, and kept by each for the other."""

import asyncio
import re
from typing import Any

import apsw
import msgspec
import pytest

from outrider.core.audit import AUDIT_HEAD_TYPE, LMSF, Entry, Event, Head, read_event
from outrider.core.audit_check import Verdict
from outrider.core.canonical import canonical
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf import audit_log
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.witness import SignedHead
from outrider.package import audit_export, statements
from outrider.sbi.client import Unreachable
from outrider.sbi.problem import json_response

A, B = "999-70", "999-71-000007ed9d5"
HEADS = "/nlmsf-audit/v1/migrations/{}/heads"


async def events(network: Any, migration: str | None = None) -> list[Event]:
    query = f"&migration-id={migration}" if migration else ""
    answer = await network.ask("GET", f"/nlmsf-audit/v1/events?after=0{query}", status=200)
    assert answer["next"] is None
    return [read_event(canonical(e["event"])) for e in answer["events"]]


async def export(network: Any) -> bytes:
    end = (await network.ask("GET", "/nlmsf-audit/v1/head", status=200))["head"]
    signed = statements.show_head(end.encode())
    assert isinstance(signed, Head)
    lines = (await network.ask("GET", "/nlmsf-audit/v1/events", status=200))["events"]
    kept = [h["head"] for h in await heads(network) if h["event"] <= signed.sequence]
    made = [(canonical(e["event"]), e["hash"]) for e in lines if e["event"]["sequence"] <= signed.sequence]
    return b"".join(audit_export.write(str(network.id), made, kept, end))


async def heads(network: Any) -> list[Any]:
    found: list[Any] = (await network.ask("GET", "/nlmsf-audit/v1/heads", status=200))["heads"]
    return found


async def verified(network: Any, holder: Any) -> Verdict:
    """The network's log as the other network checks it, with what it holds."""
    held = [h["head"] for h in await heads(holder)]
    verdict = audit_export.verify(await export(network), holder.lmsf.permissions.keys, held)
    assert isinstance(verdict, Verdict), verdict
    return verdict


async def settled(*networks: Any) -> None:
    """Every phase of every migration is counter-signed by every partner."""

    def missing(log: audit_log.AuditLog, network: Any) -> int:
        return sum(
            log.kept(str(network.id), partner, recorded.sequence) is None
            for runner in network.lmsf.all()
            for partner in runner.partners
            for recorded in log.phases(runner.id)
        )

    async with asyncio.timeout(60):
        for network in networks:
            while await network.lmsf.journal.audited(lambda log, network=network: missing(log, network)):
                await asyncio.sleep(0.01)


async def whole_way(pair: Any) -> str:
    name = str((await pair.migrate(move_all=True))["migrationId"])
    await pair.reach(name, "SETTLED")
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.ended(name)
    await settled(pair.a, pair.b)
    return name


async def test_after_a_whole_migration_both_logs_are_whole_and_each_holds_the_others_heads(pair: Any) -> None:
    name = await whole_way(pair)
    for network, other in ((pair.a, pair.b), (pair.b, pair.a)):
        for holder in (network, other):
            verdict = await verified(network, holder)
            assert verdict.findings == []
            assert verdict.vouched > 0
        phases = [e.facts["phase"] for e in await events(network, name) if e.kind == "phase"]
        assert phases[0] == "NEGOTIATING"
        assert phases[-1] == "RETIRED"
        assert phases == sorted(set(phases), key=phases.index)
        kept = await heads(network)
        own = [(h["network"], h["givenTo"]) for h in kept if h["network"] == str(network.id)]
        theirs = [(h["network"], h["givenTo"]) for h in kept if h["network"] == str(other.id)]
        assert own == [(str(network.id), str(other.id))] * len(phases)
        assert theirs == [(str(other.id), str(network.id))] * len(theirs)
        assert {h["head"] for h in kept} == {h["head"] for h in await heads(other)}


async def test_every_signature_permission_decision_and_command_is_there_with_actor_and_clause(pair: Any) -> None:
    name = await whole_way(pair)
    at_a, at_b = await events(pair.a), await events(pair.b)
    for log in (at_a, at_b):
        assert all(e.clause and e.sentence for e in log)
        signed = [e.facts["by"] for e in log if e.kind == "signature" and "contract" in e.subject]
        assert sorted(signed) == sorted([A, B, B])  # the contract by both, the receipt by the target
        assert sorted(e.facts["signer"] for e in log if e.kind == "permission") == [A, B]
        decided = [e.sentence for e in log if e.kind == "decision" and e.migration == name]
        assert [s.split(" ")[0] for s in decided] == ["The", "Every"]
    asked = [(e.actor.kind, e.clause) for e in at_a if e.kind == "command"]
    assert ("operator", "nlmsf-migration, POST /migrations") in asked
    assert ("operator", "nlmsf-migration, POST /migrations/{migrationId}/return") in asked
    returning = next(e for e in at_a if e.kind == "phase" and e.facts["phase"] == "RETURNING")
    assert (returning.actor.kind, returning.facts["cause"]) == ("operator", "RETURN_ASKED")
    followed = next(e for e in at_b if e.kind == "phase" and e.facts["phase"] == "RETURNING")
    assert (followed.actor.kind, followed.actor.name) == ("partner", A)


@pytest.mark.parametrize("field", ["hash", "body"])
async def test_one_changed_byte_in_either_log_is_found_by_both(pair: Any, field: str) -> None:
    await whole_way(pair)
    for network, other in ((pair.a, pair.b), (pair.b, pair.a)):
        middle = len(await events(network)) // 2
        db = apsw.Connection(str(network.folder / "lmsf.db"))
        db.execute("DROP TRIGGER audit_kept")
        (value,) = db.execute(f"SELECT {field} FROM audit WHERE sequence = ?", (middle,)).fetchone()
        changed = _flip(value) if isinstance(value, str) else value.replace(b'"atMs":1', b'"atMs":2')
        assert changed != value
        db.execute(f"UPDATE audit SET {field} = ? WHERE sequence = ?", (changed, middle))
        db.close()
        for holder in (network, other):
            found = (await verified(network, holder)).findings
            assert {(f.code, f.facts["sequence"]) for f in found} == {("AUDIT_EDITED", str(middle))}


def _flip(text: str) -> str:
    return ("1" if text[0] != "1" else "2") + text[1:]


async def test_the_log_takes_no_change_and_no_deletion(pair: Any) -> None:
    await whole_way(pair)
    db = apsw.Connection(str(pair.a.folder / "lmsf.db"))
    for statement in (
        "UPDATE audit SET body = x'00'", "DELETE FROM audit", "UPDATE audit_head SET envelope = x'00'",
        "DELETE FROM audit_head",
    ):  # fmt: skip
        with pytest.raises(apsw.ConstraintError):
            db.execute(statement)
    db.close()


async def test_a_log_that_was_changed_is_told_at_the_start_and_once(pair: Any) -> None:
    await whole_way(pair)
    db = apsw.Connection(str(pair.a.folder / "lmsf.db"))
    db.execute("DROP TRIGGER audit_whole; DELETE FROM audit WHERE sequence = 3")
    db.close()
    for _ in range(2):
        await pair.a.restart()
        async with asyncio.timeout(30):
            while not (told := [e for e in await events(pair.a) if e.facts.get("cause") == "AUDIT_CUT"]):
                await asyncio.sleep(0.01)
        assert [(e.facts["sequence"], e.facts["until"]) for e in told] == [("3", "3")]


async def test_a_log_that_was_cut_and_written_anew_is_refused_by_the_partner_that_holds_its_heads(pair: Any) -> None:
    await whole_way(pair)
    known = [h for h in await heads(pair.b) if h["network"] == A]
    last = statements.show_head(known[-1]["head"].encode())
    assert isinstance(last, Head)
    runner = pair.b.lmsf.get(last.migration)
    forked = msgspec.structs.replace(last, hash="f" * 64)
    behind = msgspec.structs.replace(last, sequence=last.sequence - 1)
    other = msgspec.structs.replace(last, sequence=last.sequence + 1, network=B, given_to=A)
    for head, cause in ((forked, "AUDIT_HEAD_FORKED"), (behind, "AUDIT_HEAD_BEHIND"), (other, "AUDIT_HEAD_MISMATCH")):
        signed = pair.a.signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()
        path = HEADS.format(runner.id)
        answer = await pair.a.request(B, "PUT", path, scope="nlmsf-audit", json=SignedHead(signed))
        assert answer.json()["cause"] == cause
        assert [e.actor.name for e in await events(pair.b) if e.facts.get("cause") == cause] == [A]
    again = await pair.a.request(
        B, "PUT", HEADS.format(runner.id), scope="nlmsf-audit",
        json=SignedHead(pair.a.signer.sign(last.encode(), AUDIT_HEAD_TYPE).decode()),
    )  # fmt: skip
    assert again.json() == {"head": known[-1]["head"]}


@pytest.mark.parametrize("what", ["stranger", "garbage", "large", "unknown field"])
async def test_a_head_that_is_not_the_partners_is_not_counter_signed(pair: Any, what: str) -> None:
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "RELOCATING")
    head = Head(network=A, sequence=99, hash="a" * 64, at_ms=1, given_to=B, migration=name)
    body: Any = {"head": pair.a.signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()}
    expected = {
        "stranger": "AUDIT_HEAD_UNSIGNED", "garbage": "ENVELOPE_MALFORMED", "large": "AUDIT_HEAD_MALFORMED",
        "unknown field": "INVALID_MSG_FORMAT",
    }[what]  # fmt: skip
    match what:
        case "stranger":
            body["head"] = pair.b.signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()
        case "garbage":
            body["head"] = "{}"
        case "large":
            body["head"] += " " * 5000
        case "unknown field":
            body["more"] = 1
    answer = await pair.a.request(B, "PUT", HEADS.format(name), scope="nlmsf-audit", json=body)
    assert answer.json()["cause"] == expected
    assert 99 not in [h["sequence"] for h in await heads(pair.b)]


async def test_a_partner_that_fills_a_migration_with_heads_is_stopped(pair: Any) -> None:
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "RELOCATING")
    causes = []
    for sequence in range(1_000, 1_040):
        head = Head(network=A, sequence=sequence, hash="a" * 64, at_ms=1, given_to=B, migration=name)
        signed = pair.a.signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()
        answer = await pair.a.request(B, "PUT", HEADS.format(name), scope="nlmsf-audit", json=SignedHead(signed))
        causes.append(answer.json().get("cause"))
    assert causes[-1] == "AUDIT_HEADS_TOO_MANY"
    assert len([h for h in await heads(pair.b) if h["network"] == A]) == 32


async def test_a_partner_that_signs_another_head_is_not_believed(pair: Any) -> None:
    other = Head(network=A, sequence=1, hash="b" * 64, at_ms=1, given_to=B)

    def forged(method: str, path: str) -> Any:
        if "nlmsf-audit" not in path:
            return None
        signed = pair.b.signer.countersign(pair.a.signer.sign(other.encode(), AUDIT_HEAD_TYPE), AUDIT_HEAD_TYPE)
        return json_response(200, SignedHead(signed.decode()))

    pair.a.intercept = forged
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "RELOCATING")
    async with asyncio.timeout(30):
        while "AUDIT_HEAD_MISMATCH" not in [e.facts.get("cause") for e in await events(pair.a)]:
            await asyncio.sleep(0.01)
    assert [h for h in await heads(pair.a) if h["network"] == A] == []


async def test_heads_that_could_not_be_given_are_given_after_the_link_is_there_and_after_a_restart(pair: Any) -> None:
    def cut(method: str, path: str) -> Any:
        if "nlmsf-audit" in path:
            raise Unreachable("the link is cut", not_sent=True)

    pair.a.intercept = pair.b.intercept = cut
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")  # nothing waits for it
    assert await heads(pair.a) == []
    await pair.a.restart()
    pair.a.intercept = pair.b.intercept = lambda method, path: None
    await settled(pair.a, pair.b)
    assert (await verified(pair.a, pair.b)).findings == []


async def test_every_step_is_recorded_once_though_both_nodes_are_killed_in_every_phase(pair: Any) -> None:
    name, release = await pair.held_in("COPYING")
    for _ in range(3):
        await pair.a.restart()
        await pair.b.restart()
    release()
    await pair.reach(name, "SETTLED")
    await pair.b.restart()
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
    await pair.a.restart()
    await pair.ended(name)
    await settled(pair.a, pair.b)
    for network in (pair.a, pair.b):
        logged = [entry.phase for entry in await network.lmsf.journal.events(name)]
        entered = ["NEGOTIATING", *logged]
        steps = [now for before, now in zip(entered, logged, strict=False) if before != now]
        log = await events(network, name)
        assert [e.facts["phase"] for e in log if e.kind == "phase"] == ["NEGOTIATING", *steps]
        assert len([e for e in log if e.kind == "signature"]) == 3
        assert len([e for e in log if e.kind == "decision"]) == 2
        assert (await verified(network, pair.a)).findings == []


async def test_the_same_permission_twice_at_once_is_recorded_once(pair: Any) -> None:
    envelope = statements.sign_permission(pair.a.permission(nonce="7" * 32), pair.a.operator_key).decode()
    await asyncio.gather(*(pair.a.lmsf.permissions.add(envelope) for _ in range(5)))
    kept = [e for e in await events(pair.a) if e.kind == "permission" and e.facts["signer"] == A]
    assert len(kept) == 2  # the one that the fixture gave, and this one


async def full(network: Any) -> Any:
    """The journal's disk is full from now on; what makes room again."""

    def limit(log: audit_log.AuditLog) -> int:
        pages = log._db.execute("PRAGMA page_count").fetchone()[0]
        list(log._db.execute(f"PRAGMA max_page_count = {pages}"))
        return int(pages)

    db = network.lmsf.journal._db
    await asyncio.get_running_loop().run_in_executor(
        network.lmsf.journal._writer, lambda: list(db.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
    )
    await network.lmsf.journal.audited(limit)
    for size in (16, 0, 0, 0):  # large ones, then small ones into what they leave
        facts = {f"f{i}": "y" * 200 for i in range(size)}
        refused = await _fill(network, Entry(LMSF, "decision", "x", "contract", facts=facts))
        assert refused.code == "AUDIT_UNWRITABLE"

    async def free() -> None:
        await network.lmsf.journal.audited(lambda log: list(log._db.execute("PRAGMA max_page_count = 1000000")))

    return free


async def _fill(network: Any, entry: Entry) -> Refusal:
    for _ in range(2_000):
        try:
            await network.lmsf.journal.record(entry)
        except Refused as error:
            return error.refusal
    raise AssertionError("the disk does not fill")


async def test_on_a_full_disk_what_must_be_audited_is_not_done_and_says_why(pair: Any) -> None:
    free = await full(pair.a)
    before = await events(pair.a)
    answer = await pair.migrate(status=503)
    assert answer["cause"] == "AUDIT_UNWRITABLE"
    assert "full" in answer["detail"]
    assert pair.a.lmsf.all() == []
    envelope = statements.sign_permission(pair.a.permission(nonce="7" * 32), pair.a.operator_key)
    answer = await pair.a.ask("POST", "/nlmsf-permission/v1/permissions", body=envelope, status=503)
    assert answer["cause"] == "AUDIT_UNWRITABLE"
    assert len((await pair.a.ask("GET", "/nlmsf-permission/v1/permissions"))["permissions"]) == 1
    assert await events(pair.a) == before
    await free()
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    assert (await verified(pair.a, pair.b)).findings == []


async def test_a_migration_whose_disk_was_full_goes_on_when_there_is_room(pair: Any) -> None:
    name, release = await pair.held_in("COPYING")
    free = await full(pair.b)
    release()
    await asyncio.sleep(0.3)
    assert pair.b.lmsf.get(name).row.phase.value == "COPYING"
    answer = await pair.b.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", status=503)
    assert answer["cause"] == "AUDIT_UNWRITABLE"
    await free()
    await pair.reach(name, "SETTLED")
    await settled(pair.a, pair.b)
    assert (await verified(pair.b, pair.a)).findings == []


async def test_the_same_refusal_again_is_summed_and_other_ones_are_not(pair: Any) -> None:
    for _ in range(20):
        await pair.a.ask("POST", "/nlmsf-permission/v1/revocations", body=b"{}", status=400)
    refusals = [e for e in await events(pair.a) if e.kind == "refusal"]
    assert [(e.facts["cause"], e.actor.kind) for e in refusals] == [("ENVELOPE_MALFORMED", "operator")]
    await pair.a.lmsf.calls.sum()
    summed = [e for e in await events(pair.a) if e.kind == "refusal"][-1]
    assert summed.facts == {"cause": "ENVELOPE_MALFORMED", "times": "19"}


async def test_a_refused_offer_is_in_both_logs_with_every_reason(pair: Any) -> None:
    pair.b.nf_types = frozenset({"AMF"})
    pair.b.lmsf.negotiation._nf_types = pair.b.nf_types
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "ABORTED")
    refused_there = [e for e in await events(pair.b, name) if e.kind == "refusal"]
    refused_here = [e for e in await events(pair.a, name) if e.kind == "refusal"]
    assert refused_there
    assert [e.facts["cause"] for e in refused_here] == [e.facts["cause"] for e in refused_there]
    assert {e.actor.kind for e in refused_there} == {"function"}
    assert {(e.actor.kind, e.actor.name) for e in refused_here} == {("partner", B)}


async def test_a_revocation_is_in_both_logs_and_what_follows_from_it(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    permission = next(p["id"] for p in (await pair.a.ask("GET", "/nlmsf-permission/v1/permissions"))["permissions"]
                      if p["permission"]["signer"] == A)  # fmt: skip
    await pair.a.revoke(permission)
    await pair.ended(name)
    for network in (pair.a, pair.b):
        log = await events(network)
        (revoked,) = [e for e in log if e.kind == "revocation"]
        assert revoked.subject == {"permission": permission}
        assert "PERMISSION_REVOKED" in {e.facts.get("cause") for e in log if e.migration == name}


async def test_no_event_of_any_log_says_who_a_ue_is_though_operators_and_partners_write_it(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    body = {"cause": "OPERATOR_ABORT", "sentence": "the UE imsi-999700000000001 and 999700000000002 complain"}
    await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/abort", body, status=202)
    await pair.a.ask("DELETE", "/nlmsf-catalogue/v1/deployments/imsi-999700000000001")
    await pair.ended(name)
    for network in (pair.a, pair.b):
        for event in await events(network):
            assert re.search(rb"imsi-\d|99970000000000\d", event.encode()) is None
            assert read_event(event.encode()) == event
    assert any("[identity]" in e.sentence for e in await events(pair.a, name))


async def test_all_three_of_a_migration_onward_counter_sign_with_home(three: Any) -> None:
    await three.permit()
    name = (await three.onward())["migrationId"]
    await three.reach(name, "SETTLED")
    await settled(three.a, three.b, three.c)
    at_home = [h for h in await heads(three.a) if h["migrationId"] == name]
    assert {(h["network"], h["givenTo"]) for h in at_home} == {
        (A, B), (A, "999-72"), (B, A), ("999-72", A)
    }  # fmt: skip
    for network in (three.a, three.b, three.c):
        assert (await verified(network, three.a)).findings == []


async def test_a_page_that_is_no_number_is_refused(pair: Any) -> None:
    for after in ("x", "-1", "1.5", "9" * 30):
        answer = await pair.a.ask("GET", f"/nlmsf-audit/v1/events?after={after}", status=400)
        assert answer["cause"] == "OPTIONAL_QUERY_PARAM_INCORRECT"


async def test_a_partner_may_not_read_the_log(pair: Any) -> None:
    for path in ("events", "head", "heads"):
        answer = await pair.b.request(A, "GET", f"/nlmsf-audit/v1/{path}", scope="nlmsf-audit")
        assert answer.status == 404


async def test_a_journal_that_is_closed_refuses_and_is_no_fault(tmp_path: Any) -> None:
    """A node that goes down may still be asked something; the partner asks again."""
    journal = Journal(tmp_path / "lmsf.db", A, SystemClock())
    journal.close()
    with pytest.raises(Refused) as refused:
        await journal.put("package", "p", b"{}")
    assert (refused.value.refusal.code, refused.value.refusal.status) == ("NODE_STOPPING", 503)
