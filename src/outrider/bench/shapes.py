"""What a UE context is made of: the service that keeps it, and the records that it has from the beginning.

The services run in workers, so their folders are no part of this package; only the modules that make records are
imported from there, for whoever fills a store or a peer.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outrider.demo.access import Nf

_HERE = Path(__file__).parent
HOME_PREFIX = "99970"

_canonical = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True)
class Shape:
    """One kind of context."""

    service: Path
    """Folder of the service that is moved."""
    session: Nf
    """The NF service that consumers use."""
    records: Callable[[int], dict[str, bytes]]
    """Of a UE, by number: the record `context` of each NF service, as the SDK encodes it."""

    @property
    def root(self) -> str:
        """Path of all sessions."""
        return f"/{self.session.name}/v1/ue-sessions"

    def value(self, number: int) -> bytes:
        """All records of a UE together, for a peer that knows no more than a key and a value."""
        return b"".join(self.records(number).values())


def supi(number: int) -> str:
    """The SUPI of a UE of the home PLMN 999-70."""
    return f"imsi-{HOME_PREFIX}{number:010}"


def creation(number: int) -> dict[str, object]:
    """The body of the request that would create the context of a UE."""
    return {"supi": supi(number), "seed": number}


RECORD = "context"
_COUNTER, _THREE = _HERE / "service", _HERE / "service_of_three"
_SESSION = Nf("SMF", "nsmf-benchcounter", "bench")


@functools.cache
def module_of(service: Path, name: str) -> Any:
    """A module of a service, imported from its folder."""
    if str(service) not in sys.path:
        sys.path.insert(0, str(service))
    return importlib.import_module(name)


def _session(number: int) -> dict[str, bytes]:
    return {_SESSION.name: _canonical.encode(module_of(_COUNTER, "bench_counter.context").make(number))}


def _large(number: int) -> dict[str, bytes]:
    return {_SESSION.name: _canonical.encode(module_of(_COUNTER, "bench_counter.context").make_large(number))}


def _noise(number: int) -> dict[str, bytes]:
    module = module_of(_COUNTER, "bench_counter.context")
    small = {"count": 0, "lastSeq": 0, "smContextRef": f"{number:032x}"}
    return {_SESSION.name: _canonical.encode(small) + b"\n" + module.noise(number)}


def _three(number: int) -> dict[str, bytes]:
    module = module_of(_THREE, "bench_three.context")
    names = ("namf-benchthree", "nsmf-benchthree", "npcf-benchthree")
    return {nf: _canonical.encode(module.make(nf, number)) for nf in names}


SHAPES = {
    "session": Shape(_COUNTER, _SESSION, _session),
    "large": Shape(_COUNTER, _SESSION, _large),
    "noise": Shape(_COUNTER, _SESSION, _noise),
    "three": Shape(_THREE, Nf("AMF", "namf-benchthree", "bench"), _three),
}
