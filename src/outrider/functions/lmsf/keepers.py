"""The keepers' control API, as the LMSF speaks it; every call may be repeated."""

from typing import Any, Literal

import msgspec

from outrider.core.refusal import Refused
from outrider.functions.lmsf.ports import Hosts, Inner
from outrider.functions.lmsf.record import Progress
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from

SCOPE = "outrider-host"
ROOT = "/outrider-host/v1"


class Rows(msgspec.Struct, frozen=True, rename="camel"):
    """How many ownership rows of each state a host has: of partitions (`*p`), and of keys with one of their own."""

    owned: int = 0
    granted: int = 0
    foreign: int = 0


class WorkerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The worker of a host."""

    pid: int = 0
    alive: bool = False


class HostStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What a keeper says of itself; what the LMSF does not need is left out."""

    service: str
    store_id: str
    incarnation: int = 0
    rows: Rows | None = None
    """None from a keeper that does not count its rows; then a migration's own counts must do."""
    worker: WorkerStatus = WorkerStatus()
    digest_key: str | None = None


class HostMigration(msgspec.Struct, frozen=True, rename="camel"):
    """A migration as a keeper reports it."""

    migration_id: str
    role: str
    state: Literal["copying", "following", "relocating", "settled", "aborting", "aborted", "done"]
    copied_ues: int = 0
    total_ues: int = 0
    bytes_sent: int = 0
    bulk_bytes_sent: int = 0
    lag_entries: int = 0
    moved_ues: int = 0
    remaining_ues: int = 0
    doubt_ues: int = 0
    in_doubt: list[str] = []
    in_doubt_count: int = 0
    waiting_for: str = ""
    waits: dict[str, Any] = {}
    cause: str | None = None

    @property
    def doubts(self) -> bool:
        """Whether a key was given away without an answer yet."""
        return bool(self.doubt_ues or self.in_doubt_count or self.in_doubt)

    def progress(self, *, returning: bool) -> Progress:
        """The numbers that people see."""
        return Progress(
            state=self.state,
            copied_ues=self.copied_ues,
            total_ues=self.total_ues,
            bytes_sent=self.bytes_sent,
            bulk_bytes_sent=self.bulk_bytes_sent,
            lag_entries=self.lag_entries,
            moved_ues=self.moved_ues,
            remaining_ues=self.remaining_ues,
            in_doubt=self.in_doubt,
            in_doubt_count=self.in_doubt_count or len(self.in_doubt),
            waiting_for=self.waiting_for,
            waits=self.waits,
            returning=returning,
        )


class _Erased(msgspec.Struct, rename="camel"):
    erased_ues: int = 0


class Keepers:
    """Control of this network's hosts, by service."""

    def __init__(self, inner: Inner, hosts: Hosts) -> None:
        self._inner = inner
        self._hosts = hosts

    async def _send(self, service: str, method: str, path: str, json: object = msgspec.UNSET) -> Response | None:
        """The keeper's answer; None if it knows nothing under that path. No host is no answer: it may be starting."""
        host = self._hosts.get(service)
        if host is None:
            raise Unreachable(f"no host of {service} runs yet", not_sent=True)
        response = await self._inner.request(
            method, f"{host.api_root}{ROOT}{path}", scope=SCOPE, target_nf_type="LMSF", json=json
        )
        if response.status == 404:
            return None
        if response.status in (502, 503, 504):
            raise Unreachable(f"the keeper of {service} is not ready: {response.status}", not_sent=False)
        if response.status >= 400:
            raise Refused(refusal_from(response, f"The keeper of {service} answered {response.status}."))
        return response

    async def status(self, service: str) -> HostStatus:
        """What the keeper says of itself."""
        response = await self._send(service, "GET", "/status")
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

    async def migration(self, service: str, migration_id: str) -> HostMigration | None:
        """A migration as the keeper knows it; None if it does not."""
        response = await self._send(service, "GET", f"/migrations/{migration_id}")
        return None if response is None else msgspec.json.decode(response.body, type=HostMigration)

    async def open(
        self,
        service: str,
        migration_id: str,
        *,
        role: Literal["source", "target"],
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

    async def permit(self, service: str, valid: bool) -> None:
        """Whether the software may serve; without permission it answers 503 and can still give its keys away."""
        await self._send(service, "PUT", "/permission", {"valid": valid})

    async def erase(self, service: str) -> int:
        """Erase all state; how many UEs that were. Refused while a key is owned or in doubt."""
        response = await self._send(service, "POST", "/erase")
        return 0 if response is None else msgspec.json.decode(response.body, type=_Erased).erased_ues
