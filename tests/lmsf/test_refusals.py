"""Each "no" before a UE moves: its own cause, at both networks, and nothing left behind."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.refusal import Refusal
from outrider.functions.lmsf.ports import HostFailed

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
DAY_MS = 86_400_000


async def _refused(pair: Any, cause: str, **wanted: Any) -> Any:
    """Start a migration that is refused; nothing has moved, and nothing stays at the target."""
    name = (await pair.migrate(move_all=True, **wanted))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000), await pair.a.show(name)
    if pair.b.lmsf.get(name) is not None:
        _, target = await pair.ended(name)
        assert target["phase"] == "ABORTED"
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["ending"]["cause"]) == ("ABORTED", cause)
    assert shown["ending"]["sentence"]
    assert pair.world.grants == [] or all(g[1] == "removed" for g in pair.world.grants)
    pair.whole_at_home()
    await pair.clear_at_target()
    assert len(await pair.a.discovered()) == 1
    return shown


async def test_an_nf_type_that_the_target_lacks(networks: Any) -> None:
    networks.b.nf_types = frozenset({"AMF", "SMF"})
    await networks.b.restart()
    await networks.a.deploy()
    shown = await _refused(networks, "NF_TYPE_ABSENT")
    assert shown["readLogOf"] == B
    assert shown["refusals"][0]["facts"]["nfType"] == "PCF"
    assert "PREPARING" not in shown["phases"]


async def test_a_machine_that_the_package_is_not_for(networks: Any, monkeypatch: Any) -> None:
    await networks.a.deploy()
    deployed = networks.a.lmsf.deployments
    digest = deployed.get(SERVICE).package_digest
    package = networks.a.lmsf.catalogue._packages[digest]
    other = msgspec.structs.replace(package.manifest, architectures=["riscv128"])
    networks.a.lmsf.catalogue._packages[digest] = msgspec.structs.replace(package, manifest=other)
    await _refused(networks, "ARCHITECTURE_ABSENT")


async def test_a_service_that_the_target_has_already(pair: Any) -> None:
    await pair.b.deploy()
    name = (await pair.migrate())["migrationId"]
    shown = await pair.reach(name, "ABORTED", at=pair.a)
    assert shown["ending"]["cause"] == "SERVICE_PRESENT"


async def test_a_target_without_room(pair: Any, monkeypatch: Any) -> None:
    from outrider.core import limits

    monkeypatch.setattr(limits, "DISK_RESERVE_BYTES", 1 << 60)
    await _refused(pair, "NO_ROOM")


async def test_a_contract_that_the_partner_changed(pair: Any) -> None:
    from outrider.core.contract import CONTRACT_TYPE
    from outrider.functions.lmsf import negotiation

    def other_terms(envelope: str) -> str:
        contract = negotiation.terms_of(envelope)
        changed = msgspec.structs.replace(contract, max_ues=5)
        once = pair.a.signer.sign(changed.encode(), CONTRACT_TYPE)
        signed = pair.b.signer.countersign(once, CONTRACT_TYPE)
        assert isinstance(signed, bytes)
        return signed.decode()

    pair.b.lmsf.negotiation.sign = other_terms
    await _refused(pair, "CONTRACT_CHANGED")


async def test_a_contract_that_the_partner_did_not_sign(pair: Any) -> None:
    pair.b.lmsf.negotiation.sign = lambda envelope: envelope
    await _refused(pair, "CONTRACT_NOT_SIGNED")


async def test_a_deadline_that_passes_while_copying(pair: Any) -> None:
    name, release = await pair.held_in("COPYING")
    pair.later(3_600)
    source, _ = await pair.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("ABORTED", "DEADLINE_PASSED")
    release()
    pair.whole_at_home()
    await pair.clear_at_target()


async def test_a_deadline_that_passed_before_the_target_looks(pair: Any) -> None:
    pair.b.clock.ahead_ms = 7_200_000
    await _refused(pair, "DEADLINE_PASSED")


async def test_a_deadline_that_passes_before_all_have_moved(pair: Any) -> None:
    pair.world.budget = 5
    name = (await pair.migrate(move_all=True, deadlineS=5_000, stayS=100_000))["migrationId"]
    await pair.reach(name, "RELOCATING")
    pair.later(5_000)
    source, target = await pair.ended(name)
    assert (source["phase"], target["phase"]) == ("ABORTED", "ABORTED")
    assert source["ending"]["cause"] == "DEADLINE_PASSED"
    pair.whole_at_home()
    await pair.clear_at_target()


Prepare = Callable[[Any], Awaitable[Any]]


async def _no_a(pair: Any) -> None:
    await pair.b.permit()


async def _no_b(pair: Any) -> None:
    await pair.a.permit()


def _both(**changes: Any) -> Prepare:
    async def permit(pair: Any) -> None:
        await pair.a.permit()
        now = pair.b.clock.now_ms()
        await pair.b.permit(**{k: v(now) if callable(v) else v for k, v in changes.items()})

    return permit


async def _revoked(pair: Any) -> None:
    await pair.a.permit()
    await pair.b.revoke(await pair.b.permit())


async def _forged(pair: Any) -> None:
    await pair.a.permit()
    await pair.b.permit(Ed25519PrivateKey.generate())


@pytest.mark.parametrize(
    ("prepare", "cause", "network"),
    [
        (_no_a, "PERMISSION_MISSING", A),
        (_no_b, "PERMISSION_MISSING", B),
        (_both(package_digest="0" * 64), "PERMISSION_PACKAGE_MISMATCH", B),
        (_both(sbom_digest="0" * 64), "PERMISSION_SBOM_MISMATCH", B),
        (_both(purpose="something else"), "PERMISSION_PURPOSE_MISMATCH", B),
        (_both(not_after_ms=lambda now: now - 1, not_before_ms=lambda now: now - 2), "PERMISSION_EXPIRED", B),
        (_both(not_before_ms=lambda now: now + DAY_MS, not_after_ms=lambda now: now + 2 * DAY_MS),
         "PERMISSION_NOT_YET_VALID", B),
        (_revoked, "PERMISSION_REVOKED", B),
        (_forged, "PERMISSION_SIGNER_UNKNOWN", B),
    ],
)  # fmt: skip
async def test_a_permission_that_is_missing_or_does_not_hold(
    networks: Any, prepare: Prepare, cause: str, network: str
) -> None:
    await networks.a.deploy()
    await prepare(networks)
    shown = await _refused(networks, cause)
    assert shown["refusals"][0]["facts"]["network"] == network
    assert "PREPARING" not in shown["phases"], "nothing is fetched without permission"


async def test_the_target_refuses_by_itself_what_the_source_would_take(pair: Any) -> None:
    pair.a.lmsf.permissions.judge = lambda *args, **kwargs: None
    pair.b.lmsf.permissions.judge = lambda *args, **kwargs: [Refusal("PERMISSION_EXPIRED", "It is over.")]
    shown = await _refused(pair, "PERMISSION_EXPIRED")
    assert shown["ending"]["by"] == B


async def test_a_package_that_was_changed_on_the_way(pair: Any) -> None:
    import struct

    from outrider.sbi.http import Response

    def garble(method: str, path: str) -> Response | None:
        if not path.endswith("/archive"):
            return None
        return Response(206, [], struct.pack("<I", 7) * 1024 * 150)

    pair.b.intercept = garble
    pair.b.software.verify = lambda archive: Refusal("SIGNATURE_INVALID", "The vendor's signature does not fit.")
    await _refused(pair, "SIGNATURE_INVALID")


async def test_another_package_than_the_contracts(pair: Any) -> None:
    pair.b.software.other = {"digest": hashlib.sha256(b"other").hexdigest()}
    await _refused(pair, "DIGEST_MISMATCH")


async def test_another_sbom_than_the_contracts(pair: Any) -> None:
    pair.b.software.other = {"sbom_digest": hashlib.sha256(b"other").hexdigest()}
    await _refused(pair, "SBOM_MISMATCH")


async def test_another_manifest_than_the_offers(pair: Any) -> None:
    from outrider.core.manifest import Manifest

    deployed = pair.a.lmsf.deployments.get(SERVICE)
    other: Manifest = msgspec.structs.replace(deployed.manifest, description="another")
    pair.b.software.other = {"manifest": other}
    await _refused(pair, "MANIFEST_MISMATCH")


async def test_a_vendor_that_the_target_does_not_trust(pair: Any) -> None:
    pair.b.software.refuse = Refusal("VENDOR_UNKNOWN", "The package is not signed by a vendor that is trusted here.")
    shown = await _refused(pair, "VENDOR_UNKNOWN")
    assert shown["readLogOf"] == B


async def test_clocks_that_differ(pair: Any) -> None:
    pair.b.clock.ahead_ms = 30_000
    pair.b.lmsf.permissions.judge = lambda *args, **kwargs: None
    await _refused(pair, "CLOCK_SKEW")


async def test_a_host_that_does_not_start(pair: Any) -> None:
    pair.b.hosts.fail = "the worker was refused by Landlock"
    shown = await _refused(pair, "HOST_FAILED")
    assert "Landlock" in shown["ending"]["sentence"]


async def test_a_worker_that_does_not_come_up(pair: Any) -> None:
    started = pair.b.hosts.start

    async def start(spec: Any, stores: Any) -> Any:
        host = await started(spec, stores)
        pair.world.keeper(B).worker_alive = False
        return host

    pair.b.hosts.start = start
    await _refused(pair, "WORKER_DEAD")


async def test_a_target_that_never_gets_ready(pair: Any, monkeypatch: Any) -> None:
    from outrider.functions.lmsf import runner
    from outrider.protocol.phase import Phase

    monkeypatch.setitem(runner.PHASE_LIMITS_MS, Phase.PREPARING, 30_000)

    async def start(spec: Any, stores: Any) -> Any:
        await pair.b.clock.sleep(60)
        raise HostFailed("not ready after 60 s")

    pair.b.hosts.start = start
    shown = await _refused(pair, "PHASE_OVERDUE")
    assert "PREPARING took longer" in shown["ending"]["sentence"]


async def test_a_partner_that_never_answers_the_offer(pair: Any, monkeypatch: Any) -> None:
    from outrider.functions.lmsf import runner
    from outrider.protocol.phase import Phase

    monkeypatch.setitem(runner.PHASE_LIMITS_MS, Phase.NEGOTIATING, 30_000)
    pair.a.cut = True
    shown = await _refused(pair, "PHASE_OVERDUE")
    assert shown["phases"].keys() == {"NEGOTIATING", "ABORTING", "ABORTED"}


@pytest.mark.parametrize(
    ("wanted", "status", "cause"),
    [
        ({"service": "nothing-here"}, 404, "SERVICE_UNKNOWN"),
        ({"target": "001-01"}, 404, "PARTNER_UNKNOWN"),
        ({"maxUes": 0}, 400, "TERMS_INVALID"),
        ({"arrivalEvidence": "none"}, 400, "TERMS_INVALID"),
        ({"deadlineS": -5}, 400, "TERMS_INVALID"),
        ({"unknown": 1}, 400, "INVALID_MSG_FORMAT"),
    ],
)
async def test_a_wish_that_cannot_be(pair: Any, wanted: dict[str, Any], status: int, cause: str) -> None:
    body = {"service": SERVICE, "target": B} | wanted
    answer = await pair.a.ask("POST", "/nlmsf-migration/v1/migrations", body, status=status)
    assert answer["cause"] == cause
    assert pair.a.lmsf.all() == []


async def test_one_migration_of_a_service_at_a_time(pair: Any) -> None:
    name = (await pair.migrate())["migrationId"]
    answer = await pair.migrate(status=409)
    assert (answer["cause"], answer["facts"]["migrationId"]) == ("SERVICE_MIGRATING", name)


async def test_a_hosted_service_is_not_the_targets_to_send(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    wanted = {"service": SERVICE, "target": A}
    assert (await pair.b.ask("POST", "/nlmsf-migration/v1/migrations", wanted, status=409))["cause"] == "NOT_HOME"
    answer = await pair.b.ask("DELETE", f"/nlmsf-catalogue/v1/deployments/{SERVICE}", status=409)
    assert answer["cause"] == "SERVICE_MIGRATING"


async def test_nothing_to_return_before_a_ue_can_have_moved(pair: Any) -> None:
    pair.world.frozen = True
    name = (await pair.migrate())["migrationId"]
    await pair.reach(name, "PREPARING")
    answer = await pair.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=409)
    assert answer["cause"] == "NOTHING_TO_RETURN"


async def test_a_service_with_more_ues_than_the_contract_covers_is_not_begun(pair: Any) -> None:
    refused = await pair.migrate(maxUes=39, status=409)
    assert (refused["cause"], refused["facts"]) == ("UES_EXCEEDED", {"ues": "40", "maxUes": "39"})
    assert (await pair.migrate(maxUes=40))["phase"] == "NEGOTIATING"


async def test_nothing_is_copied_of_a_service_that_has_grown_beyond_the_contract(pair: Any) -> None:
    name, release = await pair.held_in("PREPARING", maxUes=40)
    _grow(pair)
    release()
    source, target = await pair.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("ABORTED", "UES_EXCEEDED")
    assert target["ending"]["cause"] == "UES_EXCEEDED"
    assert name not in pair.world.keeper(A).migrations


async def test_a_service_that_grows_beyond_the_contract_comes_home(pair: Any) -> None:
    name = (await pair.migrate(move_all=True, maxUes=40))["migrationId"]
    await pair.reach(name, "SETTLED")
    _grow(pair)
    source, _ = await pair.ended(name)
    assert (source["phase"], source["ending"]["cause"]) == ("RETIRED", "UES_EXCEEDED")


def _grow(pair: Any) -> None:
    """One more UE is created at home."""
    pair.world.keeper(A).rows["ue:new"] = ("owned", "")


async def test_offers_that_were_taken_before_there_was_a_host_do_not_pass_the_limit(
    pair: Any, monkeypatch: Any
) -> None:
    from outrider.core import limits

    deployments = pair.b.lmsf.deployments
    judge = type(pair.b.lmsf.negotiation)._not_to_host

    def filled_since(self: Any, *args: Any) -> list[Refusal]:
        reasons = judge(self, *args)
        monkeypatch.setattr(limits, "HOSTED_SERVICES", 0)
        return reasons

    monkeypatch.setattr(type(pair.b.lmsf.negotiation), "_not_to_host", filled_since)
    name = (await pair.migrate())["migrationId"]
    shown = await pair.reach(name, "ABORTED", at=pair.a)
    assert shown["ending"]["cause"] == "NO_ROOM"
    assert "PREPARING" in shown["phases"]
    assert deployments.hosted() == 0
