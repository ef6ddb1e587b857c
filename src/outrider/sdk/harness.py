"""A keeper in memory around an author's NF services; the public names are in `outrider.sdk.testing`."""

import hashlib
import tomllib
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, overload

import msgspec

from outrider.sdk import rules, wire
from outrider.sdk.instances import Instance, Services, rebuilds
from outrider.sdk.unit import Reply

T = TypeVar("T")

START_MS = 1_900_000_000_000
NETWORK = {"mcc": "999", "mnc": "70"}
_DELIVERIES = 2_000
_canonical = msgspec.json.Encoder(order="sorted")


class HandlerFailed(AssertionError):
    """A handler raised, or proposed what the keeper refuses; the request would have got a 500."""


class Notification(NamedTuple):
    """A notification that a consumer would have got."""

    uri: str
    value: Any


class Step(NamedTuple):
    """One action of a scenario, what came of it, and the records after it; for comparing runs."""

    what: str
    outcome: object
    records: dict[tuple[str, str, str], bytes]


class _Place(NamedTuple):
    """A network with a worker in it."""

    network: dict[str, str]
    instance: Instance


class _Context:
    """What the keeper has of one key."""

    def __init__(self, place: str, identity: str | None) -> None:
        self.place = place
        self.identity = identity
        self.records: dict[tuple[str, str], bytes] = {}
        self.timers: dict[tuple[str, str], tuple[int, bytes]] = {}

    def carry(self) -> None:
        """To bytes and back, as on the way to another network."""
        image = msgspec.msgpack.encode((list(self.records.items()), list(self.timers.items())))
        Image = tuple[list[tuple[tuple[str, str], bytes]], list[tuple[tuple[str, str], tuple[int, bytes]]]]  # noqa: N806
        records, timers = msgspec.msgpack.decode(image, type=Image)
        self.records, self.timers = dict(records), dict(timers)


class Harness:
    """A keeper in memory around the NF services of one package. Everything happens in order, in virtual time."""

    def __init__(
        self,
        services: Services,
        *,
        network: dict[str, str] = NETWORK,
        now_ms: int = START_MS,
        code: Path | None = None,
        same: Callable[[Reply], object] | None = None,
    ) -> None:
        """`code` is a directory to import from; `same` reduces a reply to what must be equal in every run."""
        self.notifications: list[Notification] = []
        self.steps: list[Step] = []
        self.now_ms = now_ms
        self._services = services
        self._code = code
        self._same = same or (lambda reply: (reply.status, sorted(reply.headers), reply.body))
        self._places: dict[str, _Place] = {}
        self.home = network_name(network)
        self.networks = {self.home: dict(network)}
        self._contexts: dict[str, _Context] = {}
        self._outbox: list[tuple[str, wire.Send]] = []
        self._units = 0
        self._sent = 0
        self.after_step: Callable[[], Awaitable[None]] | None = None

    @classmethod
    def of_project(cls, directory: Path, **options: Any) -> Self:
        """The services of an `outrider.toml`, imported from its directory."""
        return cls(services_of(directory), code=directory, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for place in list(self._places):
            await self.drop(place)

    # ------------------------------------------------------------------------------------------------- actions

    async def request(
        self,
        nf: str,
        method: str,
        path: str,
        *,
        ue: str | None = None,
        shared: str | None = None,
        json: object = msgspec.UNSET,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
    ) -> Reply:
        """A consumer's request about a UE (by its identity) or a shared object; delivers what it sends as well."""
        fields = list(headers)
        if json is not msgspec.UNSET:
            body = _canonical.encode(json)
            fields.append(("content-type", "application/json"))
        path, _, query = path.partition("?")
        proposal = await self._act(
            f"{method} {path}",
            self._key(ue, shared, create=True),
            kind="request",
            nf=nf,
            method=method,
            path=path,
            query=query,
            headers=fields,
            body=body,
        )
        return Reply(proposal.status, proposal.headers, proposal.body)

    async def advance(self, by_ms: int) -> None:
        """Let time pass: each timer that comes due fires, in order, with the clock at its due time."""
        end_ms = self.now_ms + by_ms
        while (due := self._next_timer(end_ms)) is not None:
            due_ms, key, nf, name, data = due
            self.now_ms = max(self.now_ms, due_ms)
            del self._contexts[key].timers[nf, name]
            await self._act(f"timer {name} of {nf}", key, kind="timer", nf=nf, name=name, body=data)
        self.now_ms = end_ms

    async def relocate(self, *, to_network: dict[str, str], ue: str | None = None) -> None:
        """Move everything, or one UE, to another network: other memory, `on_arrival`, and nothing but the records."""
        if not rebuilds(self._services):
            raise TypeError("to relocate, name the services as 'module:attribute' or give a function that makes them")
        place = network_name(to_network)
        self.networks[place] = dict(to_network)
        # A UE that joins others goes to their worker; otherwise it is a new process.
        if ue is None:
            await self.drop(place)
        await self.move([self._key(ue, None)] if ue is not None else list(self._contexts), place)

    # --------------------------------------------------------------------------------------------------- looks

    @overload
    def record(self, nf: str, name: str, *, ue: str | None = None, shared: str | None = None) -> Any: ...
    @overload
    def record(
        self, nf: str, name: str, *, ue: str | None = None, shared: str | None = None, type: type[T]
    ) -> T | None: ...
    def record(self, nf: str, name: str, *, ue: str | None = None, shared: str | None = None, type: Any = Any) -> Any:
        """The value of a record as committed; None if there is none."""
        body = self._context(ue, shared).records.get((nf, name))
        return None if body is None else msgspec.json.decode(body, type=type)

    def names(self, nf: str, *, ue: str | None = None, shared: str | None = None) -> list[str]:
        """The names of an NF service's records, sorted."""
        return sorted(name for owner, name in self._context(ue, shared).records if owner == nf)

    def armed(self, nf: str, name: str, *, ue: str | None = None, shared: str | None = None) -> int | None:
        """When a timer will fire; None if it is not armed."""
        due = self._context(ue, shared).timers.get((nf, name))
        return None if due is None else due[0]

    def keys(self) -> list[str]:
        """The keys of all UEs and shared objects there are."""
        return list(self._contexts)

    def context_bytes(self, *, ue: str | None = None, shared: str | None = None) -> bytes:
        """All of a context's records as carried, to look for what must not be in it."""
        return msgspec.msgpack.encode(list(self._context(ue, shared).records.items()))

    # ------------------------------------------------------------------------------------------------ the keeper

    def _key(self, ue: str | None, shared: str | None, *, create: bool = False) -> str:
        if (ue is None) == (shared is None):
            raise TypeError("name either a UE or a shared object")
        key = f"shared:{shared}" if ue is None else "ue:" + hashlib.blake2b(ue.encode(), digest_size=16).hexdigest()
        if create:
            self._contexts.setdefault(key, _Context(self.home, ue))
        return key

    def _context(self, ue: str | None, shared: str | None) -> _Context:
        key = self._key(ue, shared)
        return self._contexts.get(key) or _Context(self.home, ue)

    async def _at(self, place: str) -> _Place:
        if place not in self._places:
            instance = Instance(self._services, self._code)
            with instance.active():
                await instance.engine.start()
            self._places[place] = _Place(self.networks[place], instance)
        return self._places[place]

    async def drop(self, place: str) -> None:
        """End the worker at a place; the next one there has new memory."""
        if (old := self._places.pop(place, None)) is not None:
            with old.instance.active():
                await old.instance.engine.stop()
            old.instance.discard()

    async def move(self, keys: list[str], place: str) -> None:
        """Take these keys to a place and run their arrival there."""
        for key in keys:
            context = self._contexts[key]
            if context.place != place:
                context.carry()
                context.place = place
                await self._unit(key, kind="arrival", nf="")
        self.home = place if len(keys) == len(self._contexts) else self.home
        await self._deliver()

    async def _act(self, what: str, key: str, **run: Any) -> wire.Proposal:
        """One step: a unit, what it sent delivered, and the record of it."""
        seen = len(self.notifications)
        try:
            proposal = await self._unit(key, **run)
            await self._deliver()
        except HandlerFailed as failure:
            self.note(what, f"failed: {str(failure).splitlines()[-1]}")
            raise
        reply = Reply(proposal.status, proposal.headers, proposal.body)
        self.note(what, (self._same(reply), self.notifications[seen:]))
        if self.after_step is not None:
            await self.after_step()
        return proposal

    def note(self, what: str, outcome: object) -> None:
        """Keep what came of a step."""
        records = {(k, *at): body for k, context in self._contexts.items() for at, body in context.records.items()}
        self.steps.append(Step(what, outcome, records))

    async def _deliver(self) -> None:
        for _ in range(_DELIVERIES):
            if not self._outbox:
                return
            entry_id, send = self._outbox.pop(0)
            if send.uri is not None:
                self.notifications.append(Notification(send.uri, msgspec.json.decode(send.body)))
            else:
                key = self._key(None, send.shared, create=True)
                await self._unit(key, kind="message", nf=send.nf, name=send.name, body=send.body, entry_id=entry_id)
        raise HandlerFailed(f"after {_DELIVERIES} messages there are still more; do handlers answer each other?")

    async def _unit(self, key: str, **run: Any) -> wire.Proposal:
        context = self._contexts[key]
        place = await self._at(context.place)
        self._units += 1
        services = place.instance.engine.services
        unit = wire.Run(
            unit=self._units,
            key=key,
            now_ms=self.now_ms,
            records=[(nf, name, body) for (nf, name), body in context.records.items()],
            timers=[(nf, name, due_ms) for (nf, name), (due_ms, _) in context.timers.items()],
            identity=context.identity,
            network=place.network,
            instances={nf: _instance_id(place.network, nf) for nf in services},
            **run,
        )
        with place.instance.active():
            result = await place.instance.engine.run(unit, self._read)
        if isinstance(result, wire.Failure):
            raise HandlerFailed(result.error)
        engine = place.instance.engine
        hello = wire.Hello(wire.PROTOCOL_VERSION, list(services), engine.handlers("timer"), engine.handlers("message"))
        if (wrong := rules.broken_rule(unit, result, hello)) is not None:
            raise HandlerFailed(f"the keeper would refuse what the handler proposes: {wrong}")
        self._commit(context, result)
        return result

    async def _read(self, shared: str) -> list[tuple[str, str, bytes]]:
        context = self._context(None, shared)
        return [(nf, name, body) for (nf, name), body in context.records.items()]

    def _commit(self, context: _Context, proposal: wire.Proposal) -> None:
        for nf, name, body in proposal.records:
            if body is None:
                context.records.pop((nf, name), None)
            else:
                context.records[nf, name] = body
        for nf, name, after_ms, data in proposal.timers:
            context.timers.pop((nf, name), None)
            if after_ms is not None:
                context.timers[nf, name] = self.now_ms + after_ms, data
        for send in proposal.sends:
            self._sent += 1
            self._outbox.append((f"{self._sent:016x}", send))

    def _next_timer(self, end_ms: int) -> tuple[int, str, str, str, bytes] | None:
        due = [
            (due_ms, key, nf, name, data)
            for key, context in self._contexts.items()
            for (nf, name), (due_ms, data) in context.timers.items()
            if due_ms <= end_ms
        ]
        return min(due, default=None)


def services_of(project: Path) -> dict[str, str]:
    """The NF services that a project's `outrider.toml` names, as `module:attribute`."""
    manifest = tomllib.loads((project / "outrider.toml").read_text())
    return {spec["name"]: spec["app"] for spec in manifest["nf_services"]}


def network_name(network: dict[str, str]) -> str:
    """A network's name here: `MCC-MNC[-NID]`."""
    return "-".join(network[part] for part in ("mcc", "mnc", "nid") if part in network)


def _instance_id(network: dict[str, str], nf: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{nf}.{network_name(network)}"))
