"""The registry: who is registered, since when unheard, and what changes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Literal

from outrider.functions.nrf.profile import Document, Profile, read

INSTANCES = 10_000
"""NF instances in one registry: a large core has some hundreds."""

SUSPEND_AFTER_TIMERS = 2
"""An instance unheard for so many heartbeat timers is SUSPENDED: one lost heartbeat is forgiven."""

REMOVE_AFTER_TIMERS = 12
"""An instance unheard for so many heartbeat timers is removed."""

Event = Literal["NF_REGISTERED", "NF_PROFILE_CHANGED", "NF_DEREGISTERED"]


@dataclass(frozen=True)
class Instance:
    """A registered NF instance; each change makes a new one."""

    document: Document
    profile: Profile
    etag: str

    @property
    def identity(self) -> str:
        """The NF instance id, in lower case: the same UUID is the same instance."""
        return self.profile.nf_instance_id.lower()


@dataclass(frozen=True)
class Change:
    """What happened to an instance."""

    event: Event
    before: Instance | None
    after: Instance | None


class Full(Exception):
    """The registry takes no more instances."""


class Registry:
    """NF instances by id and type. Soft state: after a restart the heartbeats find nothing and everyone registers."""

    def __init__(self, heartbeat_s: int, steady_s: Callable[[], float], on_change: Callable[[Change], None]) -> None:
        self.heartbeat_s = heartbeat_s
        self._steady_s = steady_s
        self._on_change = on_change
        self._instances: dict[str, Instance] = {}
        self._by_type: dict[str, dict[str, Instance]] = {}
        self._heard_s: dict[str, float] = {}
        self._run = token_hex(4)
        self._versions = 0

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

    def get(self, identity: str) -> Instance | None:
        """The instance with that id."""
        return self._instances.get(identity.lower())

    def of_type(self, nf_type: str) -> Iterable[Instance]:
        """The instances of an NF type."""
        return self._by_type.get(nf_type, {}).values()

    def put(self, document: Document) -> tuple[Instance, bool]:
        """Register or replace, with both forms of the services in `document`; the flag says that it is new."""
        document = document | {"heartBeatTimer": self.heartbeat_s}
        profile = read(document)
        before = self.get(profile.nf_instance_id)
        if before is None and len(self._instances) >= INSTANCES:
            raise Full
        if before is not None and before.document == document:
            self.heard(before.identity)
            return before, False
        after = self._store(document, profile, before)
        self.heard(after.identity)
        self._on_change(Change("NF_PROFILE_CHANGED" if before else "NF_REGISTERED", before, after))
        return after, before is None

    def heard(self, identity: str) -> None:
        """The instance is alive."""
        self._heard_s[identity] = self._steady_s()

    def remove(self, identity: str) -> bool:
        """Deregister; False if there is no such instance."""
        before = self._instances.pop(identity.lower(), None)
        if before is None:
            return False
        del self._by_type[before.profile.nf_type][before.identity]
        del self._heard_s[before.identity]
        self._on_change(Change("NF_DEREGISTERED", before, None))
        return True

    def expire(self) -> None:
        """Suspend those unheard for long, remove those unheard for longer."""
        now = self._steady_s()
        for identity, heard_s in tuple(self._heard_s.items()):
            silent_s = now - heard_s
            if silent_s >= REMOVE_AFTER_TIMERS * self.heartbeat_s:
                self.remove(identity)
            elif silent_s >= SUSPEND_AFTER_TIMERS * self.heartbeat_s:
                before = self._instances[identity]
                if before.profile.nf_status != "SUSPENDED":
                    document = before.document | {"nfStatus": "SUSPENDED"}
                    after = self._store(document, read(document), before)
                    self._on_change(Change("NF_PROFILE_CHANGED", before, after))

    def postpone(self, pause_s: float) -> None:
        """Forgive everyone a pause in which we, not they, were away."""
        for identity in self._heard_s:
            self._heard_s[identity] += pause_s

    def _store(self, document: Document, profile: Profile, before: Instance | None) -> Instance:
        self._versions += 1
        after = Instance(document, profile, f'"{self._run}-{self._versions}"')
        if before is not None and before.profile.nf_type != profile.nf_type:
            del self._by_type[before.profile.nf_type][before.identity]
        self._instances[after.identity] = after
        self._by_type.setdefault(profile.nf_type, {})[after.identity] = after
        return after
