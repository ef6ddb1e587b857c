"""Looks at what LMSFs write down, say to each other, and do: commit first, forward only, alike at the end.

It is told of each journal's documents at the instant at which they are durable, and of requests and answers as they
leave. It asks nobody, and nothing depends on it.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from outrider.core.limits import PERMIT_CHECK_MS
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.journal import Kind
from outrider.functions.lmsf.negotiation import terms_of
from outrider.functions.lmsf.record import Deployment, Migration, View
from outrider.package import statements
from outrider.protocol.ownership import Row
from outrider.protocol.phase import ENDS, Fact, Phase, Role
from outrider.sim.whole.ledger import Ledger
from outrider.sim.whole.trace import Trace, Violation

REVOKED_S = 5.0
"""A revocation takes effect within so long where it is known (`core.limits.PERMIT_CHECK_MS`)."""

assert PERMIT_CHECK_MS / 1000 < REVOKED_S

_VISIBLE = ("REGISTERED", "CANARY_RELEASE")


class _Body(msgspec.Struct, rename="camel"):
    nf_status: str = ""
    custom_info: dict[str, dict[str, str]] = {}


class _Side(NamedTuple):
    network: str
    migration: str


class Notary:
    """See the module."""

    def __init__(self, ledger: Ledger, trace: Trace) -> None:
        self._ledger = ledger
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self.records: dict[_Side, Migration] = {}
        """The durable row of each migration at each network."""
        self._deployments: dict[str, Deployment] = {}
        """By network; each has one service at most."""
        self._invalid_s: dict[str, dict[str, float]] = {}
        """By network: since when it knows that a permission was taken back, by the permission's id."""
        self._permissions: dict[str, tuple[str, str, str, int]] = {}
        """By id: signer, source, target, and until when."""
        self.disturbed: set[str] = set()
        """Networks whose node stood still or was slow: then nothing has a bound there."""
        self.up_since_s: dict[str, float] = {}
        """Since when each node runs: what it knew before, it looks at again then."""
        ledger.on_grant = self.granted

    # ---------------------------------------------------------------------------------- what is durable

    def kept(self, network: str, kind: Kind, name: str, body: bytes | None) -> None:
        """A document of a journal is durable, or dropped."""
        match kind:
            case "migration" if body is not None:
                self._migration(network, msgspec.json.decode(body, type=Migration))
            case "deployment" if body is None:
                self._deployments.pop(network, None)
            case "deployment" if body is not None:
                self._deployments[network] = msgspec.json.decode(body, type=Deployment)
            case "permission" if body is not None:
                made = statements.show_permission(body)
                if not isinstance(made, Refusal):
                    self._permissions[name] = (made.signer, made.source, made.target, made.not_after_ms)
            case "revocation":
                known = self._invalid_s.setdefault(network, {})
                known.setdefault(name.partition("/")[2], self._loop.time())

    def _migration(self, network: str, record: Migration) -> None:
        side = _Side(network, record.id)
        before, now = self.records.get(side), record.row
        self.records[side] = record
        if before is not None:
            was = before.row
            if now.phase.rank < was.phase.rank or (was.phase in ENDS and now.phase is not was.phase):
                self._wrong("phases", f"{network} goes from {was.phase.value} to {now.phase.value} in {record.id}")
            if not was.facts <= now.facts:
                gone = ", ".join(sorted(fact.value for fact in was.facts - now.facts))
                self._wrong("phases", f"{network} knows {gone} of {record.id} no more")
        for other, facts, phase in self._others(record):
            theirs = self.records.get(_Side(other, record.id))
            true = theirs.row.facts if theirs is not None else frozenset()
            if not facts <= true:
                told = ", ".join(sorted(fact.value for fact in facts - true))
                self._wrong("hearsay", f"{network} takes {told} of {other} for true in {record.id}; it is not durable")
            if theirs is not None and phase is not None and phase.rank > theirs.row.phase.rank:
                told = f"{network} takes {other} for {phase.value} in {record.id}; durable there is "
                self._wrong("hearsay", told + theirs.row.phase.value)

    def _others(self, record: Migration) -> list[tuple[str, frozenset[Fact], Phase | None]]:
        row = record.row
        others: list[tuple[str, frozenset[Fact], Phase | None]] = [(record.partner, row.peer_facts, row.peer)]
        if row.role is Role.HOME:
            others.append((terms_of(record.contract).source, row.giver_facts, None))
        return others

    # ----------------------------------------------------------------------------------- what is said

    def says(self, network: str, path: str, body: bytes) -> None:
        """A network tells a partner where it stands: that is durable there (commit, then send)."""
        if not path.endswith("/view") or not body:
            return
        try:
            view = msgspec.json.decode(body, type=View)
        except msgspec.DecodeError:
            return  # a refusal
        known = self.records.get(_Side(network, view.migration_id))
        row = known.row if known is not None else None
        if row is None and view.phase is Phase.NEGOTIATING and not view.facts:
            return  # which says nothing
        if row is None or not view.facts <= row.facts or view.phase.rank > row.phase.rank:
            durable = f"{row.phase.value} {sorted(f.value for f in row.facts)}" if row is not None else "nothing"
            said = f"{view.phase.value} {sorted(f.value for f in view.facts)}"
            self._wrong("commit, then send", f"{network} says {said} of {view.migration_id}; durable is {durable}")

    def answers(self, network: str, name: str, phase: str) -> None:
        """A network has told its operator where a migration stands."""
        known = self.records.get(_Side(network, name))
        if known is None or Phase(phase).rank > known.row.phase.rank:
            durable = known.row.phase.value if known is not None else "nothing"
            self._wrong("commit, then send", f"{network} answers {phase} for {name}; durable is {durable}")

    # ------------------------------------------------------------------------------------ what is done

    def orders(self, network: str, method: str, path: str) -> None:
        """An LMSF asks something of its keeper that its durable row demands."""
        parts = path.split("/")[3:]
        if method != "POST" or len(parts) < 3:
            return
        _, full, verb = parts
        known = self.records.get(_Side(network, full.removesuffix(".r")))
        back, phase = full.endswith(".r"), known.row.phase if known is not None else Phase.NEGOTIATING
        least = {"relocate": Phase.RETURNING if back else Phase.RELOCATING, "finish": Phase.RETURNING}.get(verb)
        if verb == "abort":
            least = Phase.RETURNING
        if least is not None and phase.rank < least.rank:
            self._wrong("commit, then do", f"{network} has its keeper {verb} {full}; durable there is {phase.value}")

    def registers(self, network: str, method: str, body: bytes) -> None:
        """An LMSF puts an instance at its NRF: what is hosted is found only where UEs can change owner."""
        if method != "PUT":
            return
        said = msgspec.json.decode(body, type=_Body)
        name = said.custom_info.get("lms", {}).get("migrationId")
        if name is None or said.nf_status not in _VISIBLE:
            return
        leads = [r for (_, m), r in self.records.items() if m == name and r.row.role.leads]
        if not any({"RELOCATING", "SETTLED"} & r.phases.keys() for r in leads):
            self._wrong("found too early", f"{network} shows the service to consumers before UEs can change owner")

    def removes(self, network: str) -> None:
        """An LMSF deletes the store of its host."""
        self._ledger.removed(network)

    def granted(self, network: str, key: bytes, row: Row) -> None:
        """A host has granted a key: permitted by all, as far as is known there, and not stopped."""
        record = self.records.get(_Side(network, row.mig or ""))
        if record is None:
            return  # of the way back, which nobody has to permit
        if Fact.STOPPED in record.row.facts:
            self._wrong("stopped", f"{network} grants under {record.id}, which its LMSF has stopped")
        contract = terms_of(record.contract)
        if row.peer != contract.target:
            return  # on its way home
        leads = self.records.get(_Side(contract.home, record.id))
        if leads is None or Phase.RELOCATING.value not in leads.phases:
            self._wrong("permitted", f"{network} grants under {record.id}, which home has not let begin")
        if network in self.disturbed:
            return
        now_s = self._loop.time()
        for permission, known_s in self._invalid_s.get(network, {}).items():
            _, source, target, _ = self._permissions.get(permission, ("", "", "", 0))
            since_s = max(known_s, self.up_since_s.get(network, 0.0))
            if (source, target) == (contract.source, contract.target) and now_s - since_s > REVOKED_S:
                told = f"{network} grants under {record.id}, {now_s - since_s:.1f} s after it knew of a revocation"
                self._wrong("permitted", told)

    def _wrong(self, rule: str, sentence: str) -> None:
        self._trace.violation(rule, sentence)

    # ------------------------------------------------------------------------------------------ the end

    def judge(self, begun: Mapping[str, tuple[str, ...]]) -> list[Violation]:
        """When everything is over: all sides of each migration have ended, and alike."""
        found = []
        for name, networks in begun.items():
            ends = {n: r.row.phase for n in networks if (r := self.records.get(_Side(n, name))) is not None}
            if len(set(ends.values())) > 1 or any(phase not in ENDS for phase in ends.values()):
                told = ", ".join(f"{network} {phase.value}" for network, phase in ends.items())
                found.append(Violation("ends", f"{name} ends unlike: {told}"))
        return found
