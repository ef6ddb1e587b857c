"""The keeper's listener: the NF services' APIs, the partners' lanes, and the control API of the own LMSF.

Every request carries a token of this network's NRF. What a token must say depends on the door: the NF service's scope
and NF type for consumers, `nlmsf-relocation` and the partner's network for lanes, `outrider-host` for control.
"""

import asyncio
import os
from collections import Counter
from typing import Any

import msgspec

from outrider.core import limits
from outrider.core.compress import decompress
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.host import answers
from outrider.host.arrivals import PATH as ARRIVALS
from outrider.host.finder import Finder
from outrider.host.host import Host
from outrider.host.jobs import Elsewhere, Job
from outrider.host.lanes import Receiver, StoreLost, ack
from outrider.host.link import SCOPE
from outrider.host.migrations import HostMigration
from outrider.protocol.messages import Carried, bulk_batch, lane_batch
from outrider.protocol.ownership import Ownership
from outrider.sbi import headers
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response, problem, refusal_response
from outrider.sbi.router import Router
from outrider.sbi.tokens import Claims, TokenVerifier

CONTROL_SCOPE = "outrider-host"
PASSED_HEADERS = ("content-type", "accept", "if-match", "if-none-match", "3gpp-sbi-correlation-info")
"""What a handler sees of a request's headers: no credentials, nothing of the way that it came."""

EMERGENCY_PRIORITY = 0
"""`3gpp-Sbi-Message-Priority` of a request that takes a held UE back (PROTOCOL.md §4.9)."""


class Front:
    """Answers everything that comes to the keeper's port."""

    def __init__(self, host: Host, verifier: TokenVerifier, arrivals: Handler | None = None) -> None:
        self._host = host
        self._arrivals = arrivals
        self._verifier = verifier
        self._finder = Finder(host.manifest)
        self._nf_types = {nf.name: nf.nf_type for nf in host.manifest.nf_services}
        self._control = _control(host)
        self._open = 0
        self._producers = {
            name: headers.with_producer_id(instance) for name, instance in host.config.nf_instance_ids.items()
        }

    async def __call__(self, request: Request) -> Response:
        """One request."""
        first = request.path.split("/", 2)[1] if request.path.startswith("/") else ""
        if first in self._nf_types:
            return await self._service(first, request)
        if first == "nlmsf-relocation":
            return await self._lane(request)
        if first == ARRIVALS and self._arrivals is not None:
            return await self._arrivals(request)
        if first == "outrider-host":
            claims = self._claims(request, {"LMSF"}, CONTROL_SCOPE)
            return refusal_response(claims) if isinstance(claims, Refusal) else await self._control(request)
        return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", f"this host serves no {first!r}")

    def _claims(self, request: Request, audience: set[str], scope: str) -> Claims | Refusal:
        return self._verifier.verify(request.headers.get("authorization"), audience=audience, scope=scope)

    # ---------------------------------------------------------------------------------- the NF services

    async def _service(self, name: str, request: Request) -> Response:
        host = self._host
        audience = {self._nf_types[name], host.config.nf_instance_ids.get(name, "")}
        claims = self._claims(request, audience, name)
        if isinstance(claims, Refusal):
            return refusal_response(claims)
        found = self._finder.find(request.method, request.path, request.body)
        if isinstance(found, Refusal):
            return refusal_response(found)
        if self._open >= limits.QUEUE_TOTAL:
            return problem(503, "NF_CONGESTION", "too many requests wait here", headers=[("retry-after", "1")])
        try:
            consumer_key = headers.idempotency_key(request.headers.get(headers.REQUEST_INFO))
        except ValueError as error:
            return problem(400, "OPTIONAL_IE_INCORRECT", f"3gpp-Sbi-Request-Info: {error}")
        limit_ms = headers.max_rsp_time_ms(request.headers.get(headers.MAX_RSP_TIME)) or limits.REQUEST_LIMIT_MS
        emergency = request.headers.get(headers.MESSAGE_PRIORITY) == str(EMERGENCY_PRIORITY)
        carried = Carried(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=[(k, request.headers[k]) for k in PASSED_HEADERS if k in request.headers],
            body=request.body,
            answer_id=f"{claims.sub}/{consumer_key}" if consumer_key else f"{host.me}/{os.urandom(8).hex()}",
            consumer=claims.sub,
            kind="emergency" if emergency else "request",
            nf=found.nf.name,
        )
        now_s = host.now_s()
        job = Job(
            carried,
            now_s + min(limit_ms, limits.REQUEST_LIMIT_MS) / 1000,
            asyncio.get_running_loop().create_future(),
            now_s,
            identity=found.identity,
            creates=found.creates,
            keep_answer=consumer_key is not None,
        )
        self._open += 1
        try:
            host.submit(job, found.shared)
            answer = await job.reply
        finally:
            self._open -= 1
        if isinstance(answer, Elsewhere):
            answer = answers.busy(f"the context is at {answer.owner}")
        producer = self._producers.get(name)
        return Response(answer.status, [*answer.headers, producer] if producer else list(answer.headers), answer.body)

    # ---------------------------------------------------------------------------------------- the lanes

    async def _lane(self, request: Request) -> Response:
        host = self._host
        claims = self._claims(request, {"LMSF"}, SCOPE)
        if isinstance(claims, Refusal):
            return refusal_response(claims)
        peer = request.headers.get(headers.ORIGINATING_NETWORK_ID, "")
        if claims.consumer is None or str(claims.consumer) != _canonical(peer):
            detail = "the token's network is not the network that the request comes from"
            return refusal_response(Refusal("NETWORK_MISMATCH", detail, {"network": peer}))
        if not host.migrations.speaks_with(peer):
            detail = f"this host has no migration with {peer}"
            return refusal_response(Refusal("MIGRATION_UNKNOWN", detail, status=404))
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
        receiver: Receiver
        need: list[tuple[bytes, bytes]] = []
        if bulk:
            landing, receiver = host.landing(peer)
        else:
            receiver = host.receiver(peer)
        try:
            through = await receiver.take(batch)
        except StoreLost as lost:
            host.store_lost(peer, str(lost))
            return problem(409, "STORE_LOST", str(lost))
        if bulk:
            need, landing.need = landing.need, []
        return Response(200, [("content-type", "application/msgpack")], ack(host.hello, through, need))


def _canonical(network: str) -> str:
    try:
        return str(NetworkId.parse(network))
    except ValueError:
        return ""


# ---------------------------------------------------------------------------------------- the control API


class NewMigration(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Body of `POST /outrider-host/v1/migrations`."""

    migration_id: str
    role: str
    peer: str
    home: str
    mode: str = "async"
    move_all: bool = False
    arrival_evidence: str = "target-asserted"
    peer_store_id: str | None = None


def _control(host: Host) -> Router:
    """Routes of the control API; the LMSF of the own network is the only caller."""
    control = Control(host)
    router = Router()
    base = "/outrider-host/v1"
    router.add("GET", f"{base}/status", control.status)
    router.add("POST", f"{base}/migrations", control.start)
    router.add("GET", f"{base}/migrations/{{migrationId}}", control.show)
    router.add("POST", f"{base}/migrations/{{migrationId}}/relocate", control.relocate)
    router.add("POST", f"{base}/migrations/{{migrationId}}/abort", control.abort)
    router.add("POST", f"{base}/migrations/{{migrationId}}/finish", control.finish)
    router.add("PUT", f"{base}/permission", control.permission)
    router.add("POST", f"{base}/erase", control.erase)
    return router


def _rows(host: Host) -> dict[str, int]:
    """How many ownership rows are in each state; a partition counts as one."""
    states = Counter(row.state for row in host.store.own_rows(b"", b"\xff").values())
    return {state.value: states[state] for state in Ownership}


class Control:
    """What the LMSF may ask of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def status(self, request: Request) -> Response:
        """How this host is."""
        host = self._host
        return json_response(
            200,
            {
                "service": host.config.service,
                "network": host.me,
                "home": host.config.home_id,
                "storeId": host.store.identity.store_id,
                "incarnation": host.store.identity.incarnation,
                "digestKey": host.store.identity.digest_key.hex(),
                "lastLsn": host.store.last_lsn(),
                "permitted": host.permitted,
                "rows": _rows(host),
                "held": sum(1 for a in host.actors.values() if a.vol.held is not None),
                "waiting": sum(len(a.queue) for a in host.actors.values()),
                "forwards": len(host.forwards),
                "unitsRun": host.units.run_count,
                "answersReplayed": host.units.replayed_count,
                "timersFired": host.timers.fired_count,
                "delivered": host.outbox.delivered_count,
                "grantBodies": host.grants.sent_bodies,
                "waits": host.waits.summary(),
                "worker": host.worker.status(),
                "migrations": [m.migration_id for m in host.migrations.all],
                "copies": host.followers.copies(),
            },
        )

    async def start(self, request: Request) -> Response:
        """Take part in a migration; the same again is the same."""
        new = msgspec.convert(request.json(), NewMigration)
        known = self._host.migrations.get(new.migration_id)
        if known is None:
            known = msgspec.convert(msgspec.to_builtins(new), HostMigration)
            await self._host.begin(known)
        return json_response(201, await self._host.migrations.summary(known))

    async def show(self, request: Request) -> Response:
        """How far a migration is."""
        migration = self._host.migrations.get(request.params["migrationId"])
        if migration is None:
            return problem(404, "MIGRATION_UNKNOWN", "this host takes no part in that migration")
        return json_response(200, await self._host.migrations.summary(migration))

    async def relocate(self, request: Request) -> Response:
        """From now on keys change owner."""
        sweep = request.json().get("sweep", "arrived") if request.body else "arrived"
        if sweep not in ("arrived", "all"):
            return problem(400, "MANDATORY_IE_INCORRECT", "sweep is arrived or all", invalid_params=[("sweep", sweep)])
        changed = await self._host.migrations.change(request.params["migrationId"], relocating=True, sweep=sweep)
        if isinstance(changed, Refusal):
            return refusal_response(changed)
        if changed.role == "source":
            self._host.mover.start(changed)
        return Response(204)

    async def abort(self, request: Request) -> Response:
        """No key changes owner under this migration any more."""
        cause = request.json().get("cause", "ABORTED") if request.body else "ABORTED"
        changed = await self._host.abort(request.params["migrationId"], cause)
        return refusal_response(changed) if isinstance(changed, Refusal) else Response(204)

    async def finish(self, request: Request) -> Response:
        """The migration is over here."""
        changed = await self._host.finish(request.params["migrationId"])
        return refusal_response(changed) if isinstance(changed, Refusal) else Response(204)

    async def permission(self, request: Request) -> Response:
        """Whether the software may serve: a revoked owner answers 503, keeps its state and may still give it away."""
        await self._host.permit(bool(request.json()["valid"]))
        return Response(204)

    async def erase(self, request: Request) -> Response:
        """Delete all copies; refused while a key is owned or in doubt here."""
        erased = await self._host.erase()
        return refusal_response(erased) if isinstance(erased, Refusal) else json_response(200, {"erasedUes": erased})
