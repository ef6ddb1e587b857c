"""Looks at every commit of every network, at the instant at which it is durable (PROTOCOL.md §11, I1 to I5).

It knows of each key what the durable rows of all networks say, and which unit of it was committed last, by whomever.
It is told; it asks nobody, and nothing depends on it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from outrider.core.ids import key_text, star_of
from outrider.core.record import NO_HEAD, Head, digest_of
from outrider.protocol.messages import Accepted, Grant, LaneBatch, Refused
from outrider.protocol.ownership import Ownership, Row
from outrider.sim.whole.trace import Trace
from outrider.store.port import ContextStore, Done, Operation, Outcome, SetRow, Take, Work

if TYPE_CHECKING:
    from outrider.sim.whole.disk import DiskStore

_NOTHING = Row(Ownership.FOREIGN, 0)


class Ledger:
    """See the module."""

    def __init__(self, trace: Trace) -> None:
        self.rows: dict[str, dict[bytes, Row]] = {}
        """The durable rows of each network."""
        self.begun = False
        """All networks have their first rows: from then on each key has an owner, or is granted."""
        self.keys: set[bytes] = set()
        self.adrift: set[bytes] = set()
        """Keys whose owner's store is gone; what becomes of them is home's operator's to say."""
        self.commits = 0
        self.on_grant: Callable[[str, bytes, Row], None] = lambda network, key, row: None
        """Is told of each grant that is durable."""
        self._newest: dict[bytes, Head | None] = {}
        self._grants: dict[tuple[bytes, int], tuple[str, str | None]] = {}
        """Who has given which epoch of a key, and to whom."""
        self._outcomes: dict[tuple[bytes, int], tuple[str, bool]] = {}
        """Who has decided about it, and whether it was taken."""
        self._trace = trace

    # ------------------------------------------------------------------------------------- what happens

    def opened(self, network: str, store: ContextStore) -> None:
        """A store was opened: what was durable must be in it."""
        found = store.own_rows(b"", b"\xff")
        known = self.rows.get(network)
        for key in sorted(found.keys() | known.keys()) if known is not None else ():
            if found.get(key) != known.get(key):  # type: ignore[union-attr]
                told = f"{network} has {key_text(key)} {found.get(key)} after a crash; durable was "
                self._trace.violation("durability", told + str(known.get(key)))  # type: ignore[union-attr]
        self.rows[network] = found

    def lost(self, network: str) -> None:
        """A network's store is gone for good."""
        for key in sorted(self.keys | self.rows.get(network, {}).keys()):
            row = self.effective(network, key)
            granted = any(
                r.state is Ownership.GRANTED and r.peer == network
                for n in self.rows
                if n != network and (r := self.effective(n, key))
            )
            if row.state is not Ownership.FOREIGN or granted:
                self.adrift.add(key)
        self.rows.pop(network, None)

    def removed(self, network: str) -> None:
        """A network deletes its store: nothing may be owned there, granted, or under way to there."""
        for key in sorted(self.keys | self.rows.get(network, {}).keys()):
            if key in self.adrift or (key[:1] in (b"u", b"s") and key not in self.keys):
                continue
            row = self.effective(network, key)
            if row.state is not Ownership.FOREIGN:
                told = f"{network} deletes its store, where {key_text(key)} is {row.state.value}"
                self._trace.violation("cleared", told)
            for giver in self.rows:
                given = self.effective(giver, key)
                if given.state is Ownership.GRANTED and given.peer == network and giver != network:
                    told = f"{network} deletes its store, to which {giver} has granted {key_text(key)}"
                    self._trace.violation("cleared", told)
        self.rows.pop(network, None)

    def committed(
        self, network: str, store: "DiskStore", operations: Sequence[Operation], outcomes: Sequence[Outcome]
    ) -> None:
        """These operations are durable at that network."""
        self.commits += 1
        rows = self.rows.setdefault(network, {})
        for operation, outcome in zip(operations, outcomes, strict=True):
            if not isinstance(outcome, Done):
                continue
            if isinstance(operation, Work):
                self._unit(network, operation, outcome)
            elif isinstance(operation, SetRow | Take):
                self._with_content(network, operation)
                self._row(rows, operation)
                self._decided(network, operation)
                self._look(network, operation)
                if isinstance(operation, Take):
                    self._taken(network, store, operation)

    def sent(self, network: str, batch: LaneBatch) -> None:
        """A frame leaves a network: what it says of a key is durable there (commit, then send)."""
        for m in batch.messages:
            match m:
                case Grant(key=key, x=x):
                    said, right = "GRANT", self._grants.get((key, x), ("", None))[0] == network
                case Accepted(key=key, x=x):
                    row = self.effective(network, key)
                    said, right = "ACCEPTED", row.epoch > x or (row.epoch == x and not row.refused)
                case Refused(key=key, x=x):
                    said, right = "REFUSED", self._outcomes.get((key, x)) == (network, False)
                case _:
                    continue
            if not right and not self.adrift:
                told = f"{network} says {said}({x}) of {key_text(key)}, whose durable row there is "
                self._trace.violation("commit, then send", told + str(self.effective(network, key)))

    # ------------------------------------------------------------------------------------------- rules

    def effective(self, network: str, key: bytes) -> Row:
        """The row that holds for a key at a network."""
        rows = self.rows.get(network, {})
        star = star_of(key)
        return rows.get(key) or (rows.get(star) if star is not None else None) or _NOTHING

    def owners(self, key: bytes) -> list[str]:
        """The networks that own a key."""
        return [n for n in self.rows if self.effective(n, key).state is Ownership.OWNED]

    def granted(self) -> list[tuple[str, bytes]]:
        """What is in doubt, and where."""
        return [
            (network, key)
            for network, rows in self.rows.items()
            for key, row in sorted(rows.items())
            if row.state is Ownership.GRANTED
        ]

    def _row(self, rows: dict[bytes, Row], operation: SetRow | Take) -> None:
        before = rows.get(operation.key)
        if before is not None and operation.row.epoch < before.epoch:
            told = f"{key_text(operation.key)} falls from epoch {before.epoch} to {operation.row.epoch}"
            self._trace.violation("I3", told)
        for key in operation.drop:
            rows.pop(key, None)
        rows.update(operation.keep)
        rows[operation.key] = operation.row
        self._note(operation.key)

    def _decided(self, network: str, operation: SetRow | Take) -> None:
        """I2: one grant of each epoch, and one answer to it."""
        key, row = operation.key, operation.row
        if row.state is Ownership.GRANTED:
            self.on_grant(network, key, row)
            given = self._grants.setdefault((key, row.epoch), (network, row.peer))
            if given != (network, row.peer):
                told = f"{network} gives epoch {row.epoch} of {key_text(key)} to {row.peer}"
                self._trace.violation("I2", f"{told}; {given[0]} has given it to {given[1]}")
        elif isinstance(operation, Take) or (row.state is Ownership.FOREIGN and row.refused):
            outcome = (network, isinstance(operation, Take))
            if self._outcomes.setdefault((key, row.epoch), outcome) != outcome:
                self._trace.violation("I2", f"epoch {row.epoch} of {key_text(key)} is decided twice, now by {network}")

    def _with_content(self, network: str, operation: SetRow | Take) -> None:
        """I4: a key that another network owned comes with its content, in one commit."""
        came = operation.row.state is Ownership.OWNED and self.effective(network, operation.key).state is (
            Ownership.FOREIGN
        )
        if came and self.begun and isinstance(operation, SetRow) and operation.key not in self.adrift:
            self._trace.violation("I4", f"{network} owns {key_text(operation.key)} without having taken its content")

    def _note(self, key: bytes) -> None:
        if key[:1] in (b"u", b"s") and len(key) > 1:
            self.keys.add(key)

    def _look(self, network: str, operation: SetRow | Take) -> None:
        if not self.begun:
            return
        touched = {operation.key, *operation.drop, *operation.keep}
        if operation.key[:1] == b"p":
            touched |= {k for k in self.keys if star_of(k) == operation.key}
        for key in sorted(touched):
            owners = self.owners(key)
            if len(owners) > 1:
                self._trace.violation("I1", f"{key_text(key)} is owned by {' and by '.join(owners)}")
            elif owners:
                if key in self.adrift:
                    self.adrift.discard(key)
                    self._newest[key] = None
            elif key not in self.adrift and not any(
                self.effective(n, key).state is Ownership.GRANTED for n in self.rows
            ):
                self._trace.violation("I1", f"nobody owns {key_text(key)}, and nobody has granted it, by {network}")

    def _unit(self, network: str, work: Work, outcome: Done) -> None:
        key, head = work.key, outcome.head
        self._note(key)
        row = self.effective(network, key)
        if row.state is not Ownership.OWNED or row.epoch != work.epoch:
            told = f"{network} commits a unit of {key_text(key)} at epoch {work.epoch}; its row says {row.state.value}"
            self._trace.violation("I5", f"{told} {row.epoch}")
        if head is None:
            return
        newest = self._newest.get(key, NO_HEAD)
        if newest is not None and (head.n != newest.n + 1 or head.epoch < newest.epoch):
            told = f"{network} commits unit {head.n} of {key_text(key)} at epoch {head.epoch}; the newest is "
            self._trace.violation("I3", f"{told}unit {newest.n} at epoch {newest.epoch}")
        self._newest[key] = head

    def _taken(self, network: str, store: "DiskStore", take: Take) -> None:
        """I4: what is taken is what was committed last, to the last byte."""
        keys = [take.key]
        if take.key[:1] == b"p":
            own = self.rows[network]
            keys = [k for k in self.keys if star_of(k) == take.key and k not in own]
        for key in sorted(keys):
            newest = self._newest.get(key, NO_HEAD)
            if newest is None or key in self.adrift:
                self._newest[key] = store.context(key).head
                continue
            context = store.context(key)
            if context.head != newest:
                told = f"{network} takes {key_text(key)} with unit {context.head.n}; the newest is unit {newest.n}"
                self._trace.violation("I4", told)
            elif digest_of(context.records, store.identity.digest_key) != newest.digest:
                self._trace.violation("I4", f"{network} takes {key_text(key)} with other records than were given")
