"""The figures of a run: of this service, of a peer, and of several runs of both."""

import statistics
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from outrider.bench.arrivals import Arrived
from outrider.bench.bound import Bound
from outrider.bench.holds import Holds
from outrider.bench.options import Link
from outrider.bench.oracle import Judged
from outrider.bench.profile import Hot
from outrider.bench.timeline import Seen
from outrider.demo.machine import Machine
from outrider.demo.usage import Used

SETTLED = "SETTLED"


class Sample(msgspec.Struct, frozen=True, rename="camel"):
    """How far a migration was, as the source's LMSF told it; its keeper's numbers are a second old at most."""

    at_s: float
    """From the command."""
    phase: str
    copied_ues: int
    moved_ues: int
    lag_entries: int
    """Changes that the target does not have yet."""


class Trip(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The way back: of a visit, or of a move that was aborted."""

    asked_s: float
    """Until the request for it was answered."""
    whole_s: float | None
    """Until every UE was home; None if that was not within the limit."""
    ues: int
    """Contexts that were away when it began."""
    bytes: int
    """On the wire, both ways, from the request until the end."""
    stream_bytes: int
    """On the wire before, while contexts were changed at the target: what the shadow at home was sent already."""


class Proof(msgspec.Struct, frozen=True, rename="camel"):
    """How long it takes to prove that two stores are equal, at the target's store when the run is over."""

    compare_s: float
    """To read the digests of all partitions, as a mark compares them."""
    recompute_s: float
    """To compute every digest anew from the records."""


class Size(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One run of ours. Times in seconds from the command; None if the move did not come so far within its limit."""

    workload: str = "uniform"
    contexts: int
    round: int
    link: Link
    without: str | None = None
    """The mechanism that was taken out."""
    state_bytes: int
    seed_s: float
    capacity_per_s: float | None
    """Writes a second that the service served in a closed loop before; None if that was not asked for."""
    ended: str
    """`SETTLED`, or how far the move had come when its time was up, in words."""
    total_s: float | None
    prepare_s: float | None
    copy_s: float | None
    relocate_s: float | None
    moved_ues: int
    marks_wrong: int
    grant_bodies: dict[str, int]
    wire_bytes: int
    waits: dict[str, dict[str, float]]
    seen: Seen
    sample: dict[str, int]
    used: dict[str, Used]
    hot: dict[str, list[Hot]] = {}
    """Where the keepers spent their time, if a profile was asked for."""
    holds: Holds | None = None
    """The longest wait of each UE during the move; None without a load."""
    judged: Judged | None = None
    arrived: Arrived | None = None
    back: Trip | None = None
    recovery_s: float | None = None
    """From the death of the source's keeper until a write that was due after it was served."""
    resets: int = 0
    """How often all connections between the networks were broken during the move."""
    proof: Proof | None = None
    lag: list[Sample] = []

    @property
    def moving_s(self) -> float | None:
        """Copy and change of ownership: what depends on the number of contexts."""
        return None if self.copy_s is None or self.relocate_s is None else self.copy_s + self.relocate_s

    @property
    def wire_share(self) -> float:
        """Bytes between the borders, both ways, writes forwarded and TLS included, for each byte of state."""
        return self.wire_bytes / self.state_bytes

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes of the two networks."""
        return sum(use.cpu_s for name, use in self.used.items() if name not in ("load", "relay"))

    @property
    def peak_share(self) -> float:
        """Peak memory of all processes of the two networks, for each byte of state."""
        return _peak_mb(self.used) * 1e6 / self.state_bytes

    @property
    def back_share(self) -> float | None:
        """Bytes of the way back, with what the shadow was sent before it, for each byte of the way out."""
        return None if self.back is None else (self.back.bytes + self.back.stream_bytes) / self.wire_bytes


class Peer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One run of a peer with the same contexts under the same load."""

    name: str
    contexts: int
    round: int
    state_bytes: int
    fill_s: float
    ended: str
    total_s: float | None
    """From the command until a client of the source is sent to the target."""
    states_s: dict[str, float]
    """When the source first showed each state of the migration, from the command."""
    wire_bytes: int
    """What the target has received for the migration; its own count."""
    seen: Seen
    sample: dict[str, int]
    used: dict[str, Used]
    holds: Holds | None = None

    @property
    def wire_share(self) -> float:
        """Bytes to the target for each byte of state."""
        return self.wire_bytes / self.state_bytes

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the two servers."""
        return sum(use.cpu_s for name, use in self.used.items() if name != "load")

    @property
    def peak_share(self) -> float:
        """Peak memory of the two servers, for each byte of state."""
        return _peak_mb(self.used) * 1e6 / self.state_bytes


def _peak_mb(used: dict[str, Used]) -> float:
    return sum(use.peak_rss_mb for name, use in used.items() if name not in ("load", "relay"))


class Spread(msgspec.Struct, frozen=True):
    """A figure over all runs of a size in which it was reached."""

    median: float
    min: float
    max: float
    runs: int

    @classmethod
    def over(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of the runs that have the figure; None if none has it."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return cls(round(statistics.median(there), 4), round(min(there), 4), round(max(there), 4), len(there))


class Measured(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All runs of one size."""

    contexts: int
    runs: list[Size]
    peers: list[Peer]
    """Those that the bars are judged with."""
    dumps: list[Peer] = []
    """Those that are only shown beside."""
    broken: list[str] = []
    """Runs that could not be made to their end, and why."""
    summary: dict[str, Any] = {}
    """Median and spread of every figure of the printed table, ours and the peer's."""

    @property
    def settled(self) -> bool:
        """Whether the move came to its end in every run."""
        return all(run.ended == SETTLED for run in self.runs)


class Bar(msgspec.Struct, frozen=True, rename="camel"):
    """One row of the design's section 12."""

    kpi: str
    bar: str
    measured: str
    verdict: Literal["PASS", "MISS", "NOT MEASURED"]


class Result(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All sizes of one workload, on one machine."""

    command: str
    workload: str = "uniform"
    link: Link = Link()
    without: str | None = None
    machine: Machine
    load_average: float
    """Of the machine over the minute before the run: above 0 something else ran too."""
    fsync: str
    peer: str
    """The peer and its version, or why there is none."""
    sizes: list[Measured]
    bars: list[Bar]
    bound: Bound | None = None
