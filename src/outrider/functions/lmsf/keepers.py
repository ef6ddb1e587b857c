"""The keepers' control API, as the LMSF speaks it; every call may be repeated."""

from typing import Any, Literal
from urllib.parse import quote

import msgspec

from outrider.core import limits
from outrider.core.loss import Loss
from outrider.core.refusal import Refused
from outrider.functions.lmsf.ports import Hosts, Inner
from outrider.functions.lmsf.record import Progress
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from

SCOPE = "outrider-host"
ROOT = "/outrider-host/v1"

_DECLARE_S = 60.0
"""Taking back a million keys one by one takes as long; if it takes longer, the next try goes on with the rest."""


class Rows(msgspec.Struct, frozen=True, rename="camel"):
    """How many ownership rows of each state a host has: of partitions (`*p`), and of keys with one of their own."""

    owned: int = 0
    granted: int = 0
    foreign: int = 0


class WorkerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The worker of a host."""

    pid: int = 0
    alive: bool = False


class HostStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a keeper says of itself; what the LMSF does not need is left out."""

    service: str
    store_id: str
    version: str
    """Another one as soon as the host owns everything, or nothing, or has no key at a network any more; or does."""
    rows: Rows
    away: dict[str, int] = {}
    """Rows of keys that are at another network, or were given to it, by network."""
    ues: int = 0
    """Contexts of UEs that the host has."""
    incarnation: int = 0
    worker: WorkerStatus = WorkerStatus()
    digest_key: str | None = None


State = Literal["copying", "following", "relocating", "settled", "aborting", "aborted", "done"]


class HostMigration(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A migration as a keeper reports it; its numbers are in the same document (`Progress`)."""

    state: State
    version: str
    """Another one as soon as something is otherwise that the LMSF decides on."""
    cause: str | None = None


class _Erased(msgspec.Struct, rename="camel"):
    erased_ues: int = 0


def _patience(after: str | None) -> str:
    return "" if after is None else f"?after={quote(after)}&wait-ms={limits.KEEPER_WAIT_MS}"


class Keepers:
    """Control of this network's hosts, by service."""

    def __init__(self, inner: Inner, hosts: Hosts) -> None:
        self._inner = inner
        self._hosts = hosts

    async def _send(
        self, service: str, method: str, path: str, json: object = msgspec.UNSET, *, timeout_s: float = 5.0
    ) -> Response | None:
        """The keeper's answer; None if it knows nothing under that path. No host is no answer: it may be starting."""
        host = self._hosts.get(service)
        if host is None:
            raise Unreachable(f"no host of {service} runs yet", not_sent=True)
        response = await self._inner.request(
            method,
            f"{host.api_root}{ROOT}{path}",
            scope=SCOPE,
            target_nf_type="LMSF",
            json=json,
            timeout_s=timeout_s,
        )
        if response.status == 404:
            return None
        if response.status in (502, 503, 504):
            raise Unreachable(f"the keeper of {service} is not ready: {response.status}", not_sent=False)
        if response.status >= 400:
            raise Refused(refusal_from(response, f"The keeper of {service} answered {response.status}."))
        return response

    async def status(self, service: str, *, after: str | None = None) -> HostStatus:
        """What the keeper says of itself; given a version, when it is another one, or after a moment."""
        response = await self._send(service, "GET", "/status" + _patience(after))
        if response is None:
            raise Unreachable(f"what answers for the keeper of {service} is none", not_sent=True)
        return msgspec.json.decode(response.body, type=HostStatus)

    async def described(self, service: str) -> Any:
        """All that the keeper says of itself, for people; None if it does not answer."""
        try:
            response = await self._send(service, "GET", "/status")
        except (Unreachable, Refused):
            return None
        if response is None:
            return None
        said = response.json()
        said.pop("digestKey", None)  # what two stores share is not for people
        return said

    async def migration(
        self, service: str, migration_id: str, *, after: str | None = None, returning: bool = False
    ) -> tuple[HostMigration, Progress] | None:
        """A migration as the keeper knows it, None if it does not; given a version, as `status`."""
        response = await self._send(service, "GET", f"/migrations/{migration_id}{_patience(after)}")
        if response is None:
            return None
        progress = msgspec.json.decode(response.body, type=Progress)
        known = msgspec.json.decode(response.body, type=HostMigration)
        return known, msgspec.structs.replace(progress, returning=returning)

    async def open(
        self,
        service: str,
        migration_id: str,
        *,
        role: Literal["source", "target", "home"],
        peer: str,
        peer_store_id: str,
        home: str,
        mode: str,
        move_all: bool,
        arrival_evidence: str,
        return_of: str | None = None,
    ) -> None:
        """Make a migration known to the keeper: a source copies, a target takes."""
        body: dict[str, object] = {
            "migrationId": migration_id,
            "role": role,
            "peer": peer,
            "home": home,
            "mode": mode,
            "moveAll": move_all,
            "arrivalEvidence": arrival_evidence,
        }
        if peer_store_id:
            body["peerStoreId"] = peer_store_id
        if return_of is not None:
            body["returnOf"] = return_of
        await self._send(service, "POST", "/migrations", body)

    async def relocate(self, service: str, migration_id: str, sweep: Literal["arrived", "all"]) -> bool:
        """From now on keys may be granted; False if the keeper does not know the migration."""
        return await self._send(service, "POST", f"/migrations/{migration_id}/relocate", {"sweep": sweep}) is not None

    async def abort(self, service: str, migration_id: str, cause: str) -> bool:
        """No hold, grant or acceptance any more; False if the keeper does not know the migration."""
        return await self._send(service, "POST", f"/migrations/{migration_id}/abort", {"cause": cause}) is not None

    async def finish(self, service: str, migration_id: str) -> bool:
        """End the streams, and grant nothing any more; False if the keeper does not know the migration."""
        return await self._send(service, "POST", f"/migrations/{migration_id}/finish") is not None

    async def may_declare_lost(self, service: str, migration_id: str, store_id: str) -> None:
        """Refused if the partner's store is not lost, or this host has no say in it."""
        await self._send(service, "POST", f"/migrations/{migration_id}/may-declare-lost", {"storeId": store_id})

    async def declare_lost(self, service: str, migration_id: str, store_id: str) -> Loss | None:
        """Ban the partner's store and take back what it had; None if the keeper does not know the migration."""
        path = f"/migrations/{migration_id}/declare-lost"
        response = await self._send(service, "POST", path, {"storeId": store_id}, timeout_s=_DECLARE_S)
        return None if response is None else msgspec.json.decode(response.body, type=Loss)

    async def gone(self, service: str, network: str, to: str) -> None:
        """That network hosts the service no more: what is thought to be there is at another one, as far as is known."""
        await self._send(service, "POST", "/gone", {"network": network, "to": to})

    async def permit(self, service: str, valid: bool) -> None:
        """Whether the software may serve; without permission it answers 503 and can still give its keys away."""
        await self._send(service, "PUT", "/permission", {"valid": valid})

    async def erase(self, service: str) -> int:
        """Erase all state; how many UEs that were. Refused while a key is owned or in doubt."""
        response = await self._send(service, "POST", "/erase")
        return 0 if response is None else msgspec.json.decode(response.body, type=_Erased).erased_ues
