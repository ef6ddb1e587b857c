"""What each command of the phase machine does at this network. Every one may be repeated, also after a crash.

An act that is done posts its event; one that waits asks the own keeper, which answers when something is new. What the
partner has to do is not commanded: it follows from what it is told. `Refused` from an act of the way in ends the
migration; on the way back it is tried again (`runner.WAY_BACK`).
"""

from collections.abc import Callable
from typing import Literal

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.request import Action
from outrider.functions.lmsf import clocks, receipt, talks
from outrider.functions.lmsf.instances import selection
from outrider.functions.lmsf.keepers import HostMigration, Rows
from outrider.functions.lmsf.negotiation import uncovered
from outrider.functions.lmsf.runner import Act, Runner
from outrider.protocol import migration as machine
from outrider.protocol.phase import Command, Fact, Role, may_have_moved
from outrider.sbi import headers
from outrider.sbi.client import Unreachable

_SKEW_SAMPLES = 4
_WORKER_TRIES = 100


# ------------------------------------------------------------------------------------- target: preparation


async def fetch_package(r: Runner) -> None:
    """Target: get the package from the source and verify it; it must be what was offered, and hosted here."""
    contract, record = r.contract, r.record
    package = await r.tools.catalogue.fetch(contract.package_digest, record.package_bytes, r.partner)
    if package.sbom_digest != contract.sbom_digest:
        raise Refused(Refusal("SBOM_MISMATCH", "The package's SBOM is not the one that the contract names."))
    if package.manifest != record.manifest:
        raise Refused(Refusal("MANIFEST_MISMATCH", "The package's manifest is not the one that was offered."))
    if reasons := await r.allowed(Action.HOST):  # again: its components are known by now
        raise Refused(*reasons)


async def start_host(r: Runner) -> None:
    """Target: install the package and start a host that owns nothing."""
    package = r.tools.catalogue.get(r.contract.package_digest)
    if package is None:
        raise Refused(Refusal("PACKAGE_UNKNOWN", "The package is gone from this network's catalogue."))
    digest_key = r.record.peer.digest_key if r.record.peer is not None else None
    await r.tools.deployments.prepare(package, home=r.contract.home, migration_id=r.id, digest_key=digest_key)
    await r.tools.deployments.install(r.record.service)
    await r.tools.deployments.run(r.record.service)


async def register_instances(r: Runner) -> None:
    """Target: put the NF instances at the NRF, undiscoverable."""
    await r.tools.deployments.register(r.record.service)
    await r.tools.deployments.change(r.record.service, state="RUNNING")


async def open_staging(r: Runner) -> None:
    """Target: let the keeper take what the source's keeper sends."""
    await _open_way_out(r)


_SIDES: dict[Role, Literal["source", "target", "home"]] = {
    Role.SOURCE: "source",
    Role.GIVER: "source",
    Role.TARGET: "target",
    Role.HOME: "home",
}
"""What a keeper is to a migration."""


async def _open_way_out(r: Runner) -> None:
    """Between source and target; home, where it is a third, takes part too."""
    contract, record = r.contract, r.record
    peer = contract.source if r.row.role is Role.TARGET else contract.target
    third = record.other_store_id if not r.row.role.leads and contract.onward else None
    await _open(r, r.id, _SIDES[r.row.role], peer, third)


async def _open_way_back(r: Runner) -> None:
    """Between target and home, whoever gave."""
    role: Literal["source", "target"] = "target" if r.row.role.leads else "source"
    await _open(r, r.record.return_id, role, r.partner, move_all=True, return_of=r.id)


async def _open(
    r: Runner,
    name: str,
    role: Literal["source", "target", "home"],
    peer: str,
    store_id: str | None = None,
    *,
    move_all: bool | None = None,
    return_of: str | None = None,
) -> None:
    if store_id is None:
        store_id = r.record.peer.store_id if r.record.peer is not None else ""
    await r.tools.keepers.open(
        r.record.service,
        name,
        role=role,
        peer=peer,
        peer_store_id=store_id,
        home=r.contract.home,
        mode=r.contract.mode,
        move_all=r.row.move_all if move_all is None else move_all,
        arrival_evidence=r.contract.arrival_evidence,
        return_of=return_of,
    )


async def self_test(r: Runner) -> None:
    """Target, giver: the worker runs the package, and the networks' clocks are close."""
    status = await r.tools.keepers.status(r.record.service)
    for _ in range(_WORKER_TRIES):
        if status.worker.alive:
            break
        await r.tools.clock.sleep(limits.KEEPER_POLL_MS / 1000)
        status = await r.tools.keepers.status(r.record.service)
    else:
        sentence = "The package's worker does not come up in the sandbox of this network."
        raise Refused(Refusal("WORKER_DEAD", sentence, {"service": r.record.service}, "Read the host's log."))
    skew = clocks.judge_skew([s for _ in range(_SKEW_SAMPLES) if (s := await _sample(r))], r.partner)
    if isinstance(skew, Refusal):
        raise Refused(skew)
    r.post(machine.Prepared(), store_id=status.store_id)


async def _sample(r: Runner) -> clocks.Sample | None:
    sent_ms = r.tools.clock.now_ms()
    response = await r.tools.partners.request(
        r.partner, "GET", f"/nlmsf-negotiation/v1/migrations/{r.id}/view", scope="nlmsf-negotiation"
    )
    received_ms = r.tools.clock.now_ms()
    theirs_ms = clocks.parse_timestamp(response.header(headers.SENDER_TIMESTAMP) or "")
    return None if theirs_ms is None else clocks.Sample(sent_ms, theirs_ms, received_ms)


async def make_discoverable(r: Runner) -> None:
    """Target: consumers of this network find the service; with an area, those that ask for a UE in it."""
    conditions = selection(r.contract.area, NetworkId.parse(r.tools.network))
    await r.tools.deployments.show(
        r.record.service, "REGISTERED" if conditions is None else "CANARY_RELEASE", conditions
    )


# ------------------------------------------------------------------------------------- source: copy and move


async def _wait(r: Runner, name: str, *states: str, returning: bool = False) -> HostMigration | None:
    """Until a migration is in one of the states at the keeper; None if the keeper does not know it (any more)."""
    version = None
    while True:
        answer = await r.tools.keepers.migration(r.record.service, name, after=version, returning=returning)
        if answer is None:
            return None
        known, progress = answer
        r.counted(progress)
        if known.state in states:
            return known
        version = known.version


def _keeper_stopped(known: HostMigration) -> Refused:
    sentence = "The keeper has stopped the migration by itself."
    return Refused(Refusal(known.cause or "KEEPER_ABORTED", sentence, {"keeperState": known.state}, "Read its log."))


def _unknown_to_keeper() -> Unreachable:
    return Unreachable("the keeper does not know the migration", not_sent=True)


async def start_copy(r: Runner) -> None:
    """Source, giver: copy, and follow; and, home too, give UEs that arrive at the target, which needs no copy."""
    if _gave_up_hosting(r):
        sentence = f"{r.record.service} has left {r.tools.network} before anything of it could go onward."
        raise Refused(Refusal("SOURCE_NOT_HOSTING", sentence, {"source": r.tools.network}, status=409))
    if r.row.role is not Role.HOME:
        too_many = uncovered(r.contract, (await r.tools.keepers.status(r.record.service)).ues)
        if too_many is not None:
            raise Refused(too_many)
    await _give(r, "arrived")


async def await_copy(r: Runner) -> None:
    """Source, giver: wait until the copy is durable at the target. Home waits for the giver's word."""
    if r.row.role is Role.HOME:
        await r.reached(lambda row: Fact.COPIED in row.giver_facts)
    else:
        known = await _wait(r, r.id, "following", "relocating", "settled", "aborting", "aborted", "done")
        if known is None:
            raise _unknown_to_keeper()
        if known.state in ("aborting", "aborted", "done"):
            raise _keeper_stopped(known)
    r.post(machine.CopyDurable())


async def relocate(r: Runner) -> None:
    """Source, giver, home: let UEs change owner: those that arrive, or all that the source has."""
    if not _gave_up_hosting(r):
        await _give(r, "all" if r.row.move_all and r.row.role is not Role.HOME else "arrived")


async def _give(r: Runner, sweep: Literal["all", "arrived"]) -> None:
    while not await r.tools.keepers.relocate(r.record.service, r.id, sweep):
        await _open_way_out(r)


def _gave_up_hosting(r: Runner) -> bool:
    """Giver: whether the service has left this network meanwhile, and with it all that there was to give."""
    return r.row.role is Role.GIVER and r.tools.deployments.get(r.record.service) is None


async def await_moved(r: Runner) -> None:
    """Source, giver: wait until all in scope have moved; with arrivals only, that is watched until the return."""
    if r.row.role is Role.HOME:
        await r.reached(lambda row: Fact.MOVED in row.giver_facts)
    if r.row.role is Role.HOME or _gave_up_hosting(r):
        r.post(machine.AllMoved())
        return
    known = await _wait(r, r.id, "settled", "aborting", "aborted", "done")
    if known is None:
        raise _unknown_to_keeper()
    if known.state != "settled":
        raise _keeper_stopped(known)
    r.post(machine.AllMoved())


# ------------------------------------------------------------------------------------------- the way back


def _nothing_here(r: Runner) -> bool:
    """Whether there is certainly no host here whose keys matter to the migration: a target's or giver's was never
    prepared, is disowned or gone; the source's store is lost, and had given nothing. A host that is only being started
    is not nothing.
    """
    if r.row.role is Role.HOME or r.tools.deployments.host(r.record.service) is not None:
        return False
    if r.row.role is Role.GIVER:
        return _gave_up_hosting(r)
    deployment = r.tools.deployments.get(r.record.service)
    lost = deployment is not None and deployment.store_lost
    if r.row.role is Role.SOURCE:
        return lost and not may_have_moved(r.row)
    ours = deployment is not None and deployment.migration_id == r.id
    return not ours or Fact.PREPARED not in r.row.facts or (lost and _disowned(r))


def _disowned(r: Runner) -> bool:
    """Whether home has declared the store here lost and owns every key again: what is left in it counts nothing."""
    return {Fact.LOST, Fact.HOME} <= r.row.peer_facts


async def stop_granting(r: Runner) -> None:
    """Both: the own keeper holds, grants and accepts nothing in this migration any more."""
    cause = r.row.ending.cause if r.row.ending is not None else "ABORTED"
    if not _nothing_here(r):
        await r.tools.keepers.abort(r.record.service, r.id, cause)
    r.undo(f"no UE changes owner any more at {r.tools.network}")
    r.post(machine.Stopped())


async def check_decided(r: Runner) -> None:
    """Giver: wait until the target has answered for every key that it was given."""
    if not _nothing_here(r):
        await _wait(r, r.id, "aborted")
    r.post(machine.Decided())


async def take_back(r: Runner) -> None:
    """Lead: grant nothing more under the way out, and take keys on the way back."""
    await r.tools.keepers.finish(r.record.service, r.id)
    await _open_way_back(r)
    r.post(machine.Receiving())


async def check_whole(r: Runner) -> None:
    """Lead: wait until no key is at the target, or on its way there."""
    if may_have_moved(r.row):
        await _nothing_at(r, r.contract.target)
    r.undo(f"every UE is at {r.tools.network}" if not r.contract.onward else f"no UE is at {r.contract.target}")
    r.post(machine.Whole())


async def _nothing_at(r: Runner, network: str) -> None:
    """Until the own store has no key at that network.

    What went onward from there still has its name in the own store, because the one that gave it told only the one
    that took it. When nothing is left there, all of it has gone: from then on the store looks for it where it went.
    """
    status = await r.tools.keepers.status(r.record.service)
    while network in status.away:
        onward = r.tools.onward(r.record.service, network)
        if onward is not None:
            await r.reached(lambda row: Fact.RETURNED in row.peer_facts)
            await r.tools.keepers.gone(r.record.service, network, onward)
        status = await r.tools.keepers.status(r.record.service, after=status.version)


async def _holding(r: Runner, reached: Callable[[Rows], bool]) -> None:
    """Until the own store has rows of ownership like that."""
    status = await r.tools.keepers.status(r.record.service)
    while not reached(status.rows):
        status = await r.tools.keepers.status(r.record.service, after=status.version)


async def declare_lost(r: Runner) -> None:
    """Source: ban the target's store, which an operator has declared lost, and take back what it had."""
    loss = await r.tools.keepers.declare_lost(r.record.service, r.id, r.record.lost_store)
    if loss is None:
        raise _unknown_to_keeper()
    await r.refresh()
    r.undo(f"{loss.ues} UEs taken back from the lost store {loss.store_id} of {r.partner}")
    r.post(machine.Whole(), loss=loss)


async def give_back(r: Runner) -> None:
    """Target: give every key back to home."""
    service, name = r.record.service, r.record.return_id
    await r.tools.keepers.finish(service, r.id)
    while True:
        await _open_way_back(r)
        if await _wait(r, name, "following", "relocating", "settled", returning=True) is None:
            continue
        await r.tools.keepers.relocate(service, name, "all")
        if await _wait(r, name, "settled", returning=True) is not None:
            return


async def check_empty(r: Runner) -> None:
    """Target: wait until the own store owns and has granted nothing; it refuses to be erased before."""
    if not _nothing_here(r) and not _disowned(r):
        await _holding(r, lambda rows: not rows.owned and not rows.granted)
    r.post(machine.Empty())


async def finish(r: Runner) -> None:
    """Lead, giver: end the streams of both ways; of a service that was removed meanwhile there are none."""
    if r.tools.deployments.get(r.record.service) is None:
        return
    for name in (r.record.return_id, r.id):
        await r.tools.keepers.finish(r.record.service, name)


async def clear(r: Runner) -> None:
    """Target: deregister, erase, stop, delete; then sign that it is done.

    The keeper refuses to erase while it owns or has granted a key; so does this act, and is tried again.
    """
    tools, service = r.tools, r.record.service
    deployment = tools.deployments.get(service)
    if deployment is not None and deployment.migration_id == r.id:
        await tools.deployments.withdraw(service)
        if not _nothing_here(r):
            # Journalled before the store is gone: afterwards nobody can count it.
            count = await _erase(r)
            await r.note(erased_ues=max(count, r.record.erased_ues or 0))
        await tools.deployments.clear(service)
    if tools.deployments.hosted(r.contract.package_digest) == 0:
        await tools.catalogue.drop_fetched(r.contract.package_digest)
        r.undo(f"NF instances, host, state and software removed at {tools.network}")
    word = receipt.sign(_receipt(r, tools.network, r.record.erased_ues or 0), tools.signer)
    r.post(machine.Cleared(), receipt=word)


async def _erase(r: Runner) -> int:
    try:
        return await r.tools.keepers.erase(r.record.service)
    except Refused:
        if not _disowned(r):
            raise
        return r.progress.moved_ues if r.progress is not None else 0  # they go with the whole store, just after this


def _receipt(r: Runner, network: str, erased_ues: int) -> receipt.Receipt:
    return receipt.Receipt(
        migration_id=r.id,
        contract_digest=r.contract.digest,
        service=r.record.service,
        package_digest=r.contract.package_digest,
        network=network,
        erased_ues=erased_ues,
        software_erased=True,
        erased_at_ms=r.tools.clock.now_ms(),
    )


async def close(r: Runner) -> None:
    """Lead: check the target's receipt, and keep it."""
    word = r.record.peer.receipt if r.record.peer is not None else None
    if word is None:
        raise Refused(Refusal("RECEIPT_MISSING", f"{r.partner} says that it is clear, but sent no receipt."))
    checked = receipt.read(word, r.tools.permissions.keys.get(r.partner, ()), _receipt(r, r.partner, 0))
    if isinstance(checked, Refusal):
        raise Refused(checked)
    r.post(machine.Closed(), receipt=word)


ACTS: dict[Command, Act] = {
    Command.SEND_OFFER: talks.send_offer,
    Command.JUDGE_OFFER: talks.judge_offer,
    Command.CHECK_PERMISSIONS: talks.check_permissions,
    Command.FETCH_PACKAGE: fetch_package,
    Command.START_HOST: start_host,
    Command.REGISTER_INSTANCES: register_instances,
    Command.OPEN_STAGING: open_staging,
    Command.SELF_TEST: self_test,
    Command.START_COPY: start_copy,
    Command.AWAIT_COPY: await_copy,
    Command.RELOCATE: relocate,
    Command.AWAIT_MOVED: await_moved,
    Command.MAKE_DISCOVERABLE: make_discoverable,
    Command.STOP_GRANTING: stop_granting,
    Command.CHECK_DECIDED: check_decided,
    Command.TAKE_BACK: take_back,
    Command.CHECK_WHOLE: check_whole,
    Command.DECLARE_LOST: declare_lost,
    Command.GIVE_BACK: give_back,
    Command.CHECK_EMPTY: check_empty,
    Command.FINISH: finish,
    Command.CLEAR: clear,
    Command.CLOSE: close,
}
