"""Looks at what LMSFs write down, say to each other, and do: commit first, forward only, alike at the end.

It is told of each journal's documents at the instant at which they are durable, and of requests and answers as they
leave. It asks nobody, and nothing depends on it.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from outrider.core.permission import Permission
from outrider.core.refusal import Refusal
from outrider.functions.lmsf import receipt
from outrider.functions.lmsf.journal import Kind
from outrider.functions.lmsf.negotiation import terms_of
from outrider.functions.lmsf.record import Migration, View
from outrider.package import statements
from outrider.protocol.ownership import Row
from outrider.protocol.phase import ENDS, Fact, Phase, Role
from outrider.sim.whole.keeper import Keeper
from outrider.sim.whole.ledger import Ledger
from outrider.sim.whole.node import Node
from outrider.sim.whole.trace import Trace, Violation

REVOKED_S = 5.0
"""A revocation takes effect within so long where it is known (`core.limits.PERMIT_CHECK_MS`)."""

SETTLED_S = 2.0
"""A keeper that was restarted has found out by then how far its copies are."""

_VISIBLE = ("REGISTERED", "CANARY_RELEASE")


class _Body(msgspec.Struct, rename="camel"):
    nf_status: str = ""
    custom_info: dict[str, dict[str, str]] = {}


class _Side(NamedTuple):
    network: str
    migration: str


class Notary:
    """See the module."""

    def __init__(self, ledger: Ledger, keepers: Mapping[str, Keeper], trace: Trace) -> None:
        self.nodes: Mapping[str, Node] = {}
        self._ledger = ledger
        self._keepers = keepers
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self.records: dict[_Side, Migration] = {}
        """The durable row of each migration at each network."""
        self._revoked_s: dict[str, dict[str, float]] = {}
        """By network: since when it knows that a permission was taken back, by the permission's id."""
        self._permissions: dict[str, dict[str, Permission]] = {}
        """By network: what it has, by id."""
        ledger.on_grant = self.granted

    # ---------------------------------------------------------------------------------- what is durable

    def kept(self, network: str, kind: Kind, name: str, body: bytes | None) -> None:
        """A document of a journal is durable, or dropped."""
        match kind:
            case "migration" if body is not None:
                self._migration(network, msgspec.json.decode(body, type=Migration))
            case "permission" if body is not None:
                made = statements.show_permission(body)
                assert isinstance(made, Permission)
                self._permissions.setdefault(network, {})[name] = made
            case "revocation":
                known = self._revoked_s.setdefault(network, {})
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
        if now.phase is Phase.RELOCATING and before is not None and before.row.phase is Phase.COPYING:
            self._copied(network, record)
        for other, facts, phase in self._others(record):
            theirs = self.records.get(_Side(other, record.id))
            true = theirs.row.facts if theirs is not None else frozenset()
            if not facts <= true:
                told = ", ".join(sorted(fact.value for fact in facts - true))
                self._wrong("hearsay", f"{network} takes {told} of {other} for true in {record.id}; it is not durable")
            if theirs is not None and phase is not None and phase.rank > theirs.row.phase.rank:
                told = f"{network} takes {other} for {phase.value} in {record.id}; durable there is "
                self._wrong("hearsay", told + theirs.row.phase.value)

    def _copied(self, network: str, record: Migration) -> None:
        """What rests on the copy begins: it is durable, where whoever gives has not been restarted since."""
        keeper = self._keepers[network]
        gives = record.row.role is Role.SOURCE and keeper.host is not None
        if not gives or self._loop.time() - keeper.up_since_s < SETTLED_S:
            return
        assert keeper.host is not None
        if not keeper.host.followers.durable(record.id):
            self._wrong("copied", f"{network} goes on to RELOCATING in {record.id}, and the copy is not durable")

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

    def took_back(self, network: str, permission: str) -> None:
        """A network has told its operator that it knows of a revocation."""
        if permission not in self._revoked_s.get(network, {}):
            self._wrong("commit, then send", f"{network} says that it knows of a revocation, which is not durable")

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
        least = {"relocate": Phase.RETURNING if back else Phase.COPYING, "finish": Phase.RETURNING}.get(verb)
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
        if not any(Phase.COPYING.value in r.phases for r in leads):
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
        if leads is None or Phase.COPYING.value not in leads.phases:
            self._wrong("permitted", f"{network} grants under {record.id}, which home has not let begin")
        known = self._permissions.get(network, {})
        about = {name: p for name, p in known.items() if (p.source, p.target) == (contract.source, contract.target)}
        for party in set(contract.parties) - {p.signer for p in about.values()}:
            self._wrong("permitted", f"{network} grants under {record.id}, and {party} has not permitted it")
        node, now_s = self.nodes[network], self._loop.time()
        if node.disturbed:
            return
        for name, made in about.items():
            known_s = max(self._revoked_s.get(network, {}).get(name, now_s), node.up_since_s)
            if now_s - known_s > REVOKED_S:
                told = f"{network} grants under {record.id}, {now_s - known_s:.1f} s after it knew of a revocation"
                self._wrong("permitted", told)
            if node.clock_ms - made.not_after_ms > REVOKED_S * 1000 and now_s - node.up_since_s > REVOKED_S:
                self._wrong("permitted", f"{network} grants under {record.id}, whose permission has ended before")

    def _wrong(self, rule: str, sentence: str) -> None:
        self._trace.violation(rule, sentence)

    # ------------------------------------------------------------------------------------------ the end

    def judge(self, begun: Mapping[str, tuple[str, ...]]) -> list[Violation]:
        """When everything is over: all sides of each migration have ended, and alike."""
        found = []
        for name, networks in begun.items():
            sides = {n: r for n in networks if (r := self.records.get(_Side(n, name))) is not None}
            phases = {record.row.phase for record in sides.values()}
            if len(phases) > 1 or not phases <= set(ENDS):
                told = ", ".join(f"{network} {record.row.phase.value}" for network, record in sides.items())
                found.append(Violation("ends", f"{name} ends unlike: {told}"))
            found += self._receipts(sides)
        return found

    def _receipts(self, sides: Mapping[str, Migration]) -> list[Violation]:
        """What the target has erased it has signed; home keeps that of what was brought back."""
        found = []
        for network, record in sides.items():
            target = terms_of(record.contract).target
            retired = record.row.phase is Phase.RETIRED and record.row.role.leads
            cleared = record.row.role is Role.TARGET and Fact.PREPARED in record.row.facts
            if record.receipt is None:
                if retired or cleared:
                    found.append(Violation("receipt", f"{network} has none of {record.id}"))
                continue
            keys = [self.nodes[target].key.public_key()]
            read = receipt.read(record.receipt, keys, _receipt(record, target))
            if isinstance(read, Refusal):
                found.append(Violation("receipt", f"that of {record.id} at {network}: {read.sentence}"))
        return found


def _receipt(record: Migration, network: str) -> receipt.Receipt:
    """What has to stand in a receipt, but for number and time."""
    contract = terms_of(record.contract)
    return receipt.Receipt(
        migration_id=record.id,
        contract_digest=contract.digest,
        service=contract.service,
        package_digest=contract.package_digest,
        network=network,
        erased_ues=0,
        software_erased=True,
        erased_at_ms=0,
    )
