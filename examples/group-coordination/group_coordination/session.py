"""nsmf-groupsession, hosted in the SMF: a UE's session in its group, and the transactions that it sends.

A transaction is applied once and in order, whichever network serves the UE. It takes a token from npcf-groupqos and
leaves a sighting at namf-grouppresence; both are calls inside the same unit of work, so all three NF services keep
what happened, or none does.
"""

from typing import Annotated
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import outrider.sdk as sdk

from .sbi import Area, GroupId, Problem, Supi, answer, body_of, served_by, service, sibling

RECENT = 8
"""How many transactions a session remembers with their payload."""


class Qos(msgspec.Struct, rename="camel", omit_defaults=True):
    """Terms that npcf-groupqos may be asked for; it judges them."""

    rate: int | None = None
    burst: int | None = None
    validity_ms: int | None = None


class SessionCreate(msgspec.Struct, rename="camel"):
    """Body that opens a session."""

    supi: Supi
    group_id: GroupId
    dnn: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    area: Area | None = None
    qos: Qos | None = None


class Transaction(msgspec.Struct):
    """Body of a transaction: its number at the sender, and what it says."""

    seq: Annotated[int, msgspec.Meta(ge=0)]
    payload: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    area: Area | None = None


class Applied(msgspec.Struct, rename="camel"):
    """A transaction that was applied."""

    seq: int
    payload: str
    at_ms: int


class Session(msgspec.Struct, rename="camel"):
    """The record of a session. `count` and `last_seq` change together, once per transaction applied."""

    group_id: str
    dnn: str
    created_ms: int
    count: int = 0
    last_seq: int | None = None
    recent: list[Applied] = []


def _session() -> Session:
    session = sdk.unit().get("session", type=Session)
    if session is None:
        raise Problem(404, "CONTEXT_NOT_FOUND", "This UE has no session.")
    return session


async def create(request: Request) -> Response:
    """`POST /ue-sessions`: open a session in all three NF services."""
    wanted = await body_of(request, SessionCreate)
    unit = sdk.unit()
    if unit.get("session", type=Session) is not None:
        raise Problem(409, "SESSION_EXISTS", "This UE has a session already.")
    unit.put("session", Session(group_id=wanted.group_id, dnn=wanted.dnn, created_ms=unit.now_ms))
    who = {"supi": wanted.supi, "groupId": wanted.group_id}
    qos = {"qos": wanted.qos} if wanted.qos else {}
    area = {"area": wanted.area} if wanted.area else {}
    await sibling("npcf-groupqos", "POST", "/npcf-groupqos/v1/ue-policies", who | qos)
    await sibling("namf-grouppresence", "POST", "/namf-grouppresence/v1/ue-presences", who | area)
    body = {"groupId": wanted.group_id, "dnn": wanted.dnn, "count": 0, "servedBy": served_by()}
    return answer(201, body, {"location": f"/nsmf-groupsession/v1/ue-sessions/{quote(wanted.supi, safe='')}"})


async def transact(request: Request) -> Response:
    """`POST /ue-sessions/{supi}/transactions`: apply one transaction."""
    transaction = await body_of(request, Transaction)
    session = _session()
    unit = sdk.unit()
    ue = quote(request.path_params["supi"], safe="")
    await sibling("npcf-groupqos", "POST", f"/npcf-groupqos/v1/ue-policies/{ue}/tokens", {"amount": 1})
    sighting = {"area": transaction.area} if transaction.area else {}
    await sibling("namf-grouppresence", "POST", f"/namf-grouppresence/v1/ue-presences/{ue}/sightings", sighting)
    previous_seq = session.last_seq
    session.count += 1
    session.last_seq = transaction.seq
    applied = Applied(seq=transaction.seq, payload=transaction.payload, at_ms=unit.now_ms)
    session.recent = [*session.recent, applied][-RECENT:]
    unit.put("session", session)
    body = {
        "seq": transaction.seq,
        "count": session.count,
        "lastSeq": session.last_seq,
        "previousSeq": previous_seq,
        "servedBy": served_by(),
    }
    return answer(200, body)


async def read(request: Request) -> Response:
    """`GET /ue-sessions/{supi}`: the session as it stands."""
    session = _session()
    return answer(200, msgspec.to_builtins(session) | {"servedBy": served_by()})


async def delete(request: Request) -> Response:
    """`DELETE /ue-sessions/{supi}`: close the session in all three NF services."""
    _session()
    ue = quote(request.path_params["supi"], safe="")
    await sibling("npcf-groupqos", "DELETE", f"/npcf-groupqos/v1/ue-policies/{ue}")
    await sibling("namf-grouppresence", "DELETE", f"/namf-grouppresence/v1/ue-presences/{ue}")
    sdk.unit().delete("session")
    return Response(status_code=204)


_UES = "/nsmf-groupsession/v1/ue-sessions"
app = service(
    {
        _UES: {"POST": create},
        f"{_UES}/{{supi}}": {"GET": read, "DELETE": delete},
        f"{_UES}/{{supi}}/transactions": {"POST": transact},
    }
)
nf = sdk.NfService(app)
