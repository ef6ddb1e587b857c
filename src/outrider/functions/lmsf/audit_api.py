"""`nlmsf-audit`: the own log for the operator, and the way for a partner to have a head of its log counter-signed."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from outrider.core import limits
from outrider.core.audit import AUDIT_HEAD_TYPE, Head
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.audit_log import Recorded
from outrider.functions.lmsf.engine import Lmsf
from outrider.functions.lmsf.record import Envelope
from outrider.functions.lmsf.witness import SignedHead
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response

Add = Callable[[str, str, Handler], None]

_AUDIT = "/nlmsf-audit/v1"


class RecordedEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event and its digest, as a line of an export has them."""

    event: msgspec.Raw
    hash: str


class KeptHead(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A head that two networks have signed."""

    event: int
    """The event of this log that records it."""
    network: str
    """Whose log."""
    given_to: str
    migration_id: str
    sequence: int
    hash: str
    head: Envelope


def operator_routes(lmsf: Lmsf, add: Add) -> None:
    """What the own network may ask."""
    api = AuditApi(lmsf)
    add("GET", f"{_AUDIT}/events", api.events)
    add("GET", f"{_AUDIT}/heads", api.heads)
    add("GET", f"{_AUDIT}/head", api.head)


class AuditApi:
    """The operator's handlers."""

    def __init__(self, lmsf: Lmsf) -> None:
        self._lmsf = lmsf

    async def events(self, request: Request) -> Response:
        """Events after a sequence, in order; of one migration, if it is named."""
        after = _after(request)
        migration = request.args().get("migration-id", [None])[0]
        found: list[Recorded] = await self._lmsf.journal.audited(lambda log: log.events(after, migration))
        events = [RecordedEvent(msgspec.Raw(bytes(r.body)), r.hash) for r in found]
        last = found[-1].sequence if found else after
        return json_response(200, {"events": events, "next": last if len(found) == limits.AUDIT_PAGE else None})

    async def heads(self, request: Request) -> Response:
        """Counter-signed heads, of this log and of partners', in the order of the events that record them."""
        after = _after(request)
        found = await self._lmsf.journal.audited(lambda log: log.heads(after))
        heads = [
            KeptHead(
                event=k.event,
                network=k.network,
                given_to=k.given_to,
                migration_id=k.migration,
                sequence=k.sequence,
                hash=k.hash,
                head=bytes(k.envelope).decode(),
            )
            for k in found
        ]
        last = found[-1].event if found else after
        return json_response(200, {"heads": heads, "next": last if len(found) == limits.AUDIT_PAGE else None})

    async def head(self, request: Request) -> Response:
        """The head of the log at this moment, signed by this network."""
        sequence, digest = await self._lmsf.journal.audited(lambda log: log.last())
        head = Head(network=self._lmsf.network, sequence=sequence, hash=digest, at_ms=self._lmsf.clock.now_ms())
        return json_response(200, SignedHead(self._lmsf.signer.sign(head.encode(), AUDIT_HEAD_TYPE).decode()))


def _after(request: Request) -> int:
    text = request.args().get("after", ["0"])[0]
    try:
        sequence: int = msgspec.convert(text, Annotated[int, msgspec.Meta(ge=0, le=2**53)], strict=False)
        return sequence
    except msgspec.ValidationError:
        sentence = f"after={text[:20]!r} is no sequence of an event."
        raise Refused(Refusal("OPTIONAL_QUERY_PARAM_INCORRECT", sentence, {"after": text[:20]}, status=400)) from None
