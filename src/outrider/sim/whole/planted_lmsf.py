"""Planted faults of LMSFs; see `planted`."""

from typing import Any

import msgspec

from outrider.core.refusal import Refusal
from outrider.functions.lmsf import acts
from outrider.functions.lmsf.deployments import Deployments
from outrider.functions.lmsf.engine import Lmsf
from outrider.functions.lmsf.keepers import Keepers
from outrider.functions.lmsf.permissions import Permissions
from outrider.functions.lmsf.runner import Runner
from outrider.functions.lmsf.teller import Teller
from outrider.package import statements
from outrider.protocol import migration, phase
from outrider.protocol.migration import MIGRATION
from outrider.protocol.phase import Fact, Phase, Row
from outrider.sim.whole.planting import Planted, Put


def _done_before_disk(put: Put) -> None:
    own = Runner._step

    async def twin(self: Runner, event: object, changes: dict[str, Any]) -> None:
        before = self.record
        step = MIGRATION.step(before.row, None, event)
        if step.row != before.row:
            self.record = msgspec.structs.replace(before, row=step.row, **changes)
            self._do(step.commands)
            await self.tools.clock.sleep(0.01)
            self.record = before
        await own(self, event, changes)

    put(Runner, "_step", twin)


def _permission_unwatched(put: Put) -> None:
    async def twin(self: Runner) -> None:
        pass

    put(Runner, "_look_at_permissions", twin)


def _revocation_in_memory(put: Put) -> None:
    async def twin(self: Permissions, envelope: str, *, signers: tuple[str, ...] = (), given_by: str = "") -> Any:
        revocation = statements.read_revocation(envelope.encode(), self.keys)
        assert not isinstance(revocation, Refusal)
        self._revocations[f"{revocation.signer}/{revocation.permission_id}"] = revocation, envelope
        return revocation

    put(Permissions, "revoke", twin)


def _missing_counts_as_given(put: Put) -> None:
    judge = Permissions.judge

    def twin(self: Permissions, contract: Any, manifest: Any, **rest: Any) -> Any:
        verdict = judge(self, contract, manifest, **rest)
        missing = isinstance(verdict, list) and all(reason.code == "PERMISSION_MISSING" for reason in verdict)
        return None if missing else verdict

    put(Permissions, "judge", twin)


def _silence_is_consent(put: Put) -> None:
    silent = Teller._silent

    def twin(self: Teller, why: str) -> bool:
        row = self._side.record.row
        if row.role.leads and row.phase in (Phase.RETURNING, Phase.ABORTING):
            self._side.post(migration.PeerIs(row.peer, row.peer_facts | {Fact.RETURNED}))
        return silent(self, why)

    put(Teller, "_silent", twin)


def _cleared_before_home(put: Put) -> None:
    def twin(row: Row) -> bool:
        return Fact.PREPARED not in row.facts or Fact.RETURNED in row.facts

    put(phase, "may_clear", twin)
    put(migration, "may_clear", twin)


def _abort_forgotten(put: Put) -> None:
    start = Runner.start

    def twin(self: Runner, *, resume: bool) -> None:
        row = self.record.row
        if resume and row.phase is Phase.ABORTING and row.ending is not None:
            row = msgspec.structs.replace(row, phase=row.ending.phase, ending=None)
            self.record = msgspec.structs.replace(self.record, row=row)
        start(self, resume=resume)

    put(Runner, "start", twin)


def _stop_untold(put: Put) -> None:
    async def twin(self: Keepers, service: str, migration_id: str, cause: str) -> bool:
        return True

    put(Keepers, "abort", twin)


def _found_too_early(put: Put) -> None:
    prepare = Deployments.prepare

    async def twin(self: Deployments, package: Any, *, migration_id: str | None = None, **rest: Any) -> Any:
        made = await prepare(self, package, migration_id=migration_id, **rest)
        return await self.change(made.service, nf_status="REGISTERED")

    put(Deployments, "prepare", twin)


def _copy_unawaited(put: Put) -> None:
    wait = acts._wait

    async def twin(r: Runner, name: str, *states: Any, returning: bool = False) -> Any:
        return await wait(r, name, *states, *(("copying",) if "following" in states else ()), returning=returning)

    put(acts, "_wait", twin)


def _offered_anew(put: Put) -> None:
    offered = Lmsf.offered

    async def twin(self: Lmsf, offer: Any, sender: Any) -> Any:
        known = self._runners.pop(offer.migration_id, None)
        if known is not None:
            await known.stop()
        return await offered(self, offer, sender)

    put(Lmsf, "offered", twin)


PLANTED_LMSF: dict[str, Planted] = {
    "done-before-journal": Planted(
        "What a step demands is done before its row is in the journal.", "§3.9", _done_before_disk, True
    ),
    "permission-unwatched": Planted(
        "Permissions are not looked at any more once a migration runs.", "§3.9", _permission_unwatched, True
    ),
    "revocation-in-memory": Planted("A revocation is not journalled.", "§3.9", _revocation_in_memory, True),
    "permission-assumed": Planted(
        "A permission that is missing counts as given.", "§3.9", _missing_counts_as_given, True
    ),
    "silence-is-consent": Planted(
        "A partner that does not answer is taken to have given everything back.",
        "§3.3, §3.9",
        _silence_is_consent,
        True,
    ),
    "cleared-before-home": Planted(
        "A target clears when it has nothing, and does not wait for home to have all.",
        "§3.9",
        _cleared_before_home,
        True,
    ),
    "abort-forgotten": Planted("An abort does not outlive a restart of its node.", "§3.9", _abort_forgotten, True),
    "stop-untold": Planted("An abort does not stop the keeper.", "§3.9", _stop_untold, True),
    "found-too-early": Planted(
        "Consumers find the service at the target before UEs can change owner.", "§7", _found_too_early, True
    ),
    "copy-unawaited": Planted("RELOCATING begins before the copy is durable.", "§7", _copy_unawaited, True),
    "offered-anew": Planted("An offer that comes again begins the migration anew.", "§3.9", _offered_anew, True),
}  # fmt: skip
