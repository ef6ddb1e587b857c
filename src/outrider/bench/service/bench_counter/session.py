"""nsmf-benchcounter: open a session, count a transaction, read the count. A plain ASGI app, no framework.

A record is JSON; what stands after a line's end, if anything, is bytes that are kept as they are.
"""

import json
from typing import Any

import outrider.sdk as sdk

from . import context

ROOT = "/nsmf-benchcounter/v1/ue-sessions"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    path, method = scope["path"], scope["method"]
    body = json.loads((await receive()).get("body") or b"{}")
    if path == ROOT and method == "POST":
        status, said = _create(body)
    elif method == "POST" and path.endswith("/transactions"):
        status, said = _count(body)
    elif method == "GET":
        status, said = _read()
    else:
        status, said = 404, {"status": 404, "cause": "RESOURCE_URI_STRUCTURE_NOT_FOUND"}
    kind = b"application/json" if status < 400 else b"application/problem+json"
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def _create(body: Any) -> tuple[int, Any]:
    unit = sdk.unit()
    if unit.get_bytes(context.RECORD) is not None:
        return 409, {"status": 409, "cause": "SESSION_EXISTS"}
    unit.put(context.RECORD, context.make(body["seed"]))
    return 201, {"count": 0}


def _count(body: Any) -> tuple[int, Any]:
    unit = sdk.unit()
    record = unit.get_bytes(context.RECORD)
    if record is None:
        return 404, {"status": 404, "cause": "CONTEXT_NOT_FOUND"}
    text, end, rest = record.partition(b"\n")
    session = json.loads(text)
    session["count"] += 1
    session["lastSeq"] = body["seq"]
    if end:
        unit.put_bytes(context.RECORD, json.dumps(session).encode() + end + rest)
    else:
        unit.put(context.RECORD, session)
    return 200, {"count": session["count"], "servedBy": unit.network}


def _read() -> tuple[int, Any]:
    unit = sdk.unit()
    record = unit.get_bytes(context.RECORD)
    if record is None:
        return 404, {"status": 404, "cause": "CONTEXT_NOT_FOUND"}
    session = json.loads(record.partition(b"\n")[0])
    return 200, {"count": session["count"], "lastSeq": session["lastSeq"], "servedBy": unit.network}


nf = sdk.NfService(app)
