"""The workloads: what the contexts are, who writes to them, and how they come to change owner."""

from dataclasses import dataclass
from typing import Literal

Course = Literal["sweep", "arrive", "visit", "abort", "crash"]
"""`sweep`: all contexts move. `arrive`: those of a group that comes. The others are a sweep, and more."""


@dataclass(frozen=True)
class Group:
    """The UEs that come to the target by themselves, and when."""

    ues: int
    """Of few contexts, a fifth."""
    seconds: float
    requests: int
    while_copying: bool = False
    """Whether the first come as soon as the copy has begun, and not when UEs can change owner."""


@dataclass(frozen=True)
class Workload:
    """One of them."""

    sentence: str
    course: Course = "sweep"
    shape: str = "session"
    skew: float = 0.0
    """Of Zipf's law by which UEs are drawn; 0 is uniformly."""
    writes: bool = True
    """Whether there is a load at the source."""
    group: Group | None = None
    changed: float = 0.0
    """The share of the contexts that is written to at the target."""

    @property
    def peers(self) -> bool:
        """Whether peers can do the same: they know nothing but to move everything once."""
        return self.course == "sweep"


WORKLOADS = {
    "uniform": Workload("writes to UEs drawn uniformly; all contexts move"),
    "idle": Workload("no writes at all; all contexts move", writes=False),
    "zipf": Workload("writes to UEs drawn by Zipf's law, 0.99; all contexts move", skew=0.99),
    "large": Workload("contexts of 64 KB, each written whole; all move", shape="large"),
    "incompressible": Workload("contexts of random bytes; all move", shape="noise"),
    "multi": Workload("three NF services change each context in one unit; all move", shape="three"),
    "storm": Workload(
        "a group arrives at the target within seconds, each UE with 4 requests in order; they alone move",
        course="arrive",
        group=Group(ues=2_000, seconds=10.0, requests=4),
    ),
    "train": Workload(
        "UEs arrive at the target one by one, the first when the copy begins, each with 2 requests; they alone move",
        course="arrive",
        group=Group(ues=2_000, seconds=20.0, requests=2, while_copying=True),
    ),
    "visit": Workload(
        "all contexts move, 5 % are changed at the target, all return; nobody writes at home",
        course="visit",
        writes=False,
        changed=0.05,
    ),
    "abort": Workload("all contexts move, and when half have, the migration is aborted", course="abort"),
    "crash": Workload("the source's keeper is killed when half is copied; all contexts move", course="crash"),
}
"""By name; the first is what `relocation` has always measured."""
