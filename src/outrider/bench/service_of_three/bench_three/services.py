"""Three NF services: a transaction at the first is one at each of its siblings, in the same unit of work."""

import json
from typing import Any

import outrider.sdk as sdk

from . import context

SIBLINGS = ("nsmf-benchthree", "npcf-benchthree")


class App:
    """One of them, a plain ASGI app."""

    def __init__(self, nf: str, siblings: tuple[str, ...] = ()) -> None:
        self._nf = nf
        self._siblings = siblings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = (await receive()).get("body") or b"{}"
        status, said = await self._answer(scope["method"], scope["path"], body)
        kind = b"application/json" if status < 400 else b"application/problem+json"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        unit = sdk.unit()
        record = unit.get(context.RECORD)
        if record is None:
            return 404, {"status": 404, "cause": "CONTEXT_NOT_FOUND"}
        if method == "POST":
            record["count"] += 1
            record["lastSeq"] = json.loads(body)["seq"]
            unit.put(context.RECORD, record)
        counts = [record["count"]]
        for nf in self._siblings:
            reply = await unit.call(nf, method, path.replace(self._nf, nf, 1), body=body if method == "POST" else b"")
            if not reply.ok:
                return reply.status, {"status": reply.status, "cause": "SIBLING_REFUSED"}
            counts.append(reply.json()["count"])
        return 200, {
            "count": record["count"], "lastSeq": record["lastSeq"], "counts": counts, "servedBy": unit.network,
        }  # fmt: skip


amf = sdk.NfService(App("namf-benchthree", SIBLINGS))
smf = sdk.NfService(App("nsmf-benchthree"))
pcf = sdk.NfService(App("npcf-benchthree"))
