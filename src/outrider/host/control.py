"""The control API of a host: what the LMSF of the own network may ask of it, and nobody else."""

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.host.host import Host
from outrider.host.migrations import HostMigration
from outrider.host.onward import gone
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem, refusal_response
from outrider.sbi.router import Router

SCOPE = "outrider-host"
"""Of its tokens, and the first part of its paths."""


_UNKNOWN = "this host takes no part in that migration"


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


def routes(host: Host) -> Router:
    """Routes of the control API; the LMSF of the own network is the only caller."""
    control = Control(host)
    router = Router()
    base = f"/{SCOPE}/v1"
    router.add("GET", f"{base}/status", control.status)
    router.add("POST", f"{base}/migrations", control.start)
    router.add("GET", f"{base}/migrations/{{migrationId}}", control.show)
    router.add("POST", f"{base}/migrations/{{migrationId}}/relocate", control.relocate)
    router.add("POST", f"{base}/migrations/{{migrationId}}/abort", control.abort)
    router.add("POST", f"{base}/migrations/{{migrationId}}/finish", control.finish)
    router.add("POST", f"{base}/migrations/{{migrationId}}/may-declare-lost", control.may_declare_lost)
    router.add("POST", f"{base}/migrations/{{migrationId}}/declare-lost", control.declare_lost)
    router.add("POST", f"{base}/gone", control.gone)
    router.add("PUT", f"{base}/permission", control.permission)
    router.add("POST", f"{base}/erase", control.erase)
    return router


def _patience(request: Request) -> tuple[str | None, float]:
    """The version that the caller has, if any, and how long it waits for another one."""
    args = request.args()
    try:
        return args.get("after", [None])[-1], float(args.get("wait-ms", ["0"])[-1])
    except ValueError as error:
        sentence = f"wait-ms is a number of milliseconds: {error}"
        raise Refused(Refusal("OPTIONAL_QUERY_PARAM_INCORRECT", sentence, status=400)) from None


class Control:
    """What the LMSF may ask of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def status(self, request: Request) -> Response:
        """How this host is; with `after`, when it owns everything or nothing any more, or `wait-ms` later."""
        host = self._host
        ownership = await host.progress.ownership(*_patience(request))
        return json_response(
            200,
            {
                **ownership,
                "service": host.config.service,
                "network": host.me,
                "home": host.config.home_id,
                "storeId": host.store.identity.store_id,
                "incarnation": host.store.identity.incarnation,
                "digestKey": host.store.identity.digest_key.hex(),
                "lastLsn": host.store.last_lsn(),
                "permitted": host.permitted,
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
        if known is None and self._host.lost.banned(new.peer_store_id):
            sentence = f"The store {new.peer_store_id} of {new.peer} was declared lost."
            return refusal_response(Refusal("STORE_DECLARED_LOST", sentence, {"peer": new.peer}, status=409))
        if known is None:
            known = msgspec.convert(msgspec.to_builtins(new), HostMigration)
            await self._host.begin(known)
        return json_response(201, await self._host.progress.migration(new.migration_id, None, 0))

    async def show(self, request: Request) -> Response:
        """How far a migration is; with `after`, when its state is another one, or `wait-ms` later."""
        shown = await self._host.progress.migration(request.params["migrationId"], *_patience(request))
        if shown is None:
            return problem(404, "MIGRATION_UNKNOWN", _UNKNOWN)
        return json_response(200, shown)

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

    async def may_declare_lost(self, request: Request) -> Response:
        """Whether the peer's store may be declared lost; changes nothing."""
        migration = self._host.migrations.get(request.params["migrationId"])
        if migration is None:
            return problem(404, "MIGRATION_UNKNOWN", _UNKNOWN)
        refusal = await self._host.lost.why_not(migration, request.json()["storeId"])
        return Response(204) if refusal is None else refusal_response(refusal)

    async def declare_lost(self, request: Request) -> Response:
        """The peer's store will not come back: ban it, and take back what it had."""
        migration = self._host.migrations.get(request.params["migrationId"])
        if migration is None:
            return problem(404, "MIGRATION_UNKNOWN", _UNKNOWN)
        loss = await self._host.lost.declare(migration, request.json()["storeId"])
        return refusal_response(loss) if isinstance(loss, Refusal) else json_response(200, loss)

    async def gone(self, request: Request) -> Response:
        """Another network hosts the service no more: its keys are looked for where they went."""
        said = request.json()
        return json_response(200, {"rows": await gone(self._host, said["network"], said["to"])})

    async def permission(self, request: Request) -> Response:
        """Whether the software may serve: a revoked owner answers 503, keeps its state and may still give it away."""
        await self._host.permit(bool(request.json()["valid"]))
        return Response(204)

    async def erase(self, request: Request) -> Response:
        """Delete all copies; refused while a key is owned or in doubt here."""
        erased = await self._host.erase()
        return refusal_response(erased) if isinstance(erased, Refusal) else json_response(200, {"erasedUes": erased})
