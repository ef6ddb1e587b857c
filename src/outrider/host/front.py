"""The keeper's listener: the NF services' APIs, the partners' lanes, and the control API of the own LMSF.

Every request carries a token of this network's NRF. What a token must say depends on the door: the NF service's scope
and NF type for consumers, `nlmsf-relocation` and the partner's network for lanes, `outrider-host` for control.
"""

import itertools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from outrider.core import limits
from outrider.core.compress import decompress
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.host import answers, control
from outrider.host.arrivals import PATH as ARRIVALS
from outrider.host.finder import Finder
from outrider.host.host import Host
from outrider.host.jobs import Elsewhere, Job
from outrider.host.lanes import Receiver, ack
from outrider.host.link import SCOPE
from outrider.host.marks import hide_in_id
from outrider.host.peer_store import Outlived, StoreLost
from outrider.protocol.messages import Carried, bulk_batch, lane_batch
from outrider.sbi import headers
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem, refusal_response
from outrider.sbi.tokens import Claims, TokenVerifier

PASSED_HEADERS = ("content-type", "accept", "if-match", "if-none-match", "3gpp-sbi-correlation-info")
"""What a handler sees of a request's headers: no credentials, nothing of the way that it came."""

EMERGENCY_PRIORITY = "0"
"""`3gpp-Sbi-Message-Priority` of a request that takes a held UE back (PROTOCOL.md §4.9)."""

_FULL = problem(503, "NF_CONGESTION", "too many requests wait here; nothing was done", headers=[("retry-after", "1")])


class Front:
    """Answers everything that comes to the keeper's port."""

    def __init__(self, host: Host, verifier: TokenVerifier, arrivals: Handler | None = None) -> None:
        self._host = host
        self._arrivals = arrivals
        self._verifier = verifier
        self._finder = Finder(host.manifest)
        instances = host.config.nf_instance_ids
        self._audiences = {nf.name: {nf.nf_type, instances.get(nf.name, "")} for nf in host.manifest.nf_services}
        self._control = control.routes(host)
        self._open = 0
        self._producers = {name: [headers.with_producer_id(instance)] for name, instance in instances.items()}
        self._unnamed = f"{host.me}/{os.urandom(8).hex()}/"
        self._unnamed_count = itertools.count()

    def __call__(self, request: Request) -> Awaitable[Response]:
        """One request."""
        first = _first(request.path)
        return self._service(first, request) if first in self._audiences else self._other(first, request)

    async def _other(self, first: str, request: Request) -> Response:
        if first == "nlmsf-relocation":
            return await self._lane(request)
        if first == ARRIVALS and self._arrivals is not None:
            return await self._arrivals(request)
        if first == control.SCOPE:
            claims = self._claims(request, {"LMSF"}, control.SCOPE)
            return refusal_response(claims) if isinstance(claims, Refusal) else await self._control(request)
        return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", f"this host serves no {first!r}")

    def refuse(self, path: str, header: Callable[[str], str | None]) -> Response | None:
        """The answer to a consumer's request for which there is no room, before anything of it is read or checked.

        Control, lanes and notifications of arrivals always have room, and so have emergencies.
        """
        if not self._full() or _first(path) not in self._audiences:
            return None
        return None if header(headers.MESSAGE_PRIORITY) == EMERGENCY_PRIORITY else _FULL

    def _full(self) -> bool:
        return self._open >= limits.QUEUE_TOTAL or self._host.units.congested()

    def _claims(self, request: Request, audience: set[str], scope: str) -> Claims | Refusal:
        return self._verifier.verify(request.headers.get("authorization"), audience=audience, scope=scope)

    # ---------------------------------------------------------------------------------- the NF services

    async def _service(self, name: str, request: Request) -> Response:
        host = self._host
        claims = self._claims(request, self._audiences[name], name)
        if isinstance(claims, Refusal):
            return refusal_response(claims)
        found = self._finder.find(request.method, request.path, request.body)
        if isinstance(found, Refusal):
            return refusal_response(found)
        emergency = request.headers.get(headers.MESSAGE_PRIORITY) == EMERGENCY_PRIORITY
        if not emergency and self._full():
            return _FULL
        try:
            consumer_key = headers.idempotency_key(request.headers.get(headers.REQUEST_INFO))
        except ValueError as error:
            return problem(400, "OPTIONAL_IE_INCORRECT", f"3gpp-Sbi-Request-Info: {error}")
        limit_ms = headers.max_rsp_time_ms(request.headers.get(headers.MAX_RSP_TIME)) or limits.REQUEST_LIMIT_MS
        carried = Carried(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=[(k, request.headers[k]) for k in PASSED_HEADERS if k in request.headers],
            body=request.body,
            answer_id=f"{claims.sub}/{hide_in_id(consumer_key, found.identity)}"
            if consumer_key
            else self._unnamed + str(next(self._unnamed_count)),
            consumer=claims.sub,
            kind="emergency" if emergency else "request",
            nf=found.nf.name,
        )
        now_s = host.now_s()
        job = Job(
            carried,
            now_s + min(limit_ms, limits.REQUEST_LIMIT_MS) / 1000,
            host.loop.create_future(),
            now_s,
            identity=found.identity,
            creates=found.creates,
            keep_answer=consumer_key is not None,
        )
        self._open += 1
        try:
            actor = host.actor_for(job, found.shared)
            if actor is not None:
                await actor.serve(job)
            answer = await job.reply
        finally:
            self._open -= 1
        if isinstance(answer, Elsewhere):
            answer = answers.busy(f"the context is at {answer.owner}")
        return Response(answer.status, answer.headers + self._producers.get(name, []), answer.body)

    # ---------------------------------------------------------------------------------------- the lanes

    async def _lane(self, request: Request) -> Response:
        claims = self._claims(request, {"LMSF"}, SCOPE)
        if isinstance(claims, Refusal):
            return refusal_response(claims)
        peer = request.headers.get(headers.ORIGINATING_NETWORK_ID, "")
        if claims.consumer is None or str(claims.consumer) != _canonical(peer):
            detail = "the token's network is not the network that the request comes from"
            return refusal_response(Refusal("NETWORK_MISMATCH", detail, {"network": peer}))
        bulk = request.path.endswith("/bulk")
        try:
            batch: Any = bulk_batch.decode(request.body) if bulk else lane_batch.decode(decompress(request.body))
        except (ValueError, msgspec.DecodeError) as error:
            return problem(400, "INVALID_MSG_FORMAT", f"not a frame: {error}")
        return await self._take(peer, batch, bulk)

    async def _take(self, peer: str, batch: Any, bulk: bool) -> Response:
        host = self._host
        if batch.to_store not in (None, "", host.store.identity.store_id):
            return problem(409, "STORE_LOST", f"this store is {host.store.identity.store_id}, not {batch.to_store}")
        if host.lost.banned(batch.store_id):
            return problem(409, "STORE_DECLARED_LOST", f"the store {batch.store_id} was declared lost by its home")
        if not host.migrations.speaks_with(peer):
            return _no_migration(peer)
        receiver: Receiver
        need: list[tuple[bytes, bytes]] = []
        if bulk:
            landing, receiver = host.peers.landing(peer)
        else:
            receiver = host.peers.receiver(peer)
        try:
            through = await receiver.take(batch)
        except StoreLost as lost:
            if not isinstance(lost, Outlived):
                if not host.migrations.open_with(peer):
                    # Nothing is at stake with the store that was known. The peer's new one has spoken before the
                    # migration with it is known here; it comes again.
                    return _no_migration(peer)
                host.store_lost(peer, str(lost))
            return problem(409, "STORE_LOST", str(lost))
        if bulk:
            need, landing.need = landing.need, []
        return Response(200, [("content-type", "application/msgpack")], ack(host.hello, through, need))


def _no_migration(peer: str) -> Response:
    return refusal_response(Refusal("MIGRATION_UNKNOWN", f"this host has no migration with {peer}", status=404))


def _first(path: str) -> str:
    """The first segment of a path."""
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _canonical(network: str) -> str:
    try:
        return str(NetworkId.parse(network))
    except ValueError:
        return ""
