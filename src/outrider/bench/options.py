"""What the user of a measurement may change, and the limits that follow from it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from outrider.bench.workloads import WORKLOADS, Group, Workload


class Link(msgspec.Struct, frozen=True, rename="camel"):
    """Between the networks."""

    rtt_ms: float = 0.0
    mbit: float | None = None
    """Rate of each direction, all connections together; None is as fast as the machine is."""
    reset_every_s: float | None = None
    """How often all connections are broken while contexts move."""

    def __str__(self) -> str:
        said = [f"RTT {self.rtt_ms:g} ms", "no rate limit" if self.mbit is None else f"{self.mbit:g} Mbit/s"]
        return ", ".join(said + ([f"reset every {self.reset_every_s:g} s"] if self.reset_every_s else []))


@dataclass(frozen=True)
class Options:
    """Of every run."""

    workload: str = "uniform"
    writes_per_s: float = 1_000
    link: Link = field(default_factory=Link)
    without: str | None = None
    """A mechanism that is taken out (`ablation`)."""
    group_ues: int | None = None
    group_s: float | None = None
    """How many UEs arrive, and within how long, if not as the workload has it."""
    warm_s: float = 3.0
    """Load before what is counted as `before` begins."""
    before_s: float = 8.0
    after_s: float = 4.0
    probe_s: float = 4.0
    """Of the closed loop that finds what the service can serve; 0 leaves it out."""
    move_limit_s: float | None = None
    sample: int = 1_000
    """UEs that are read at the target afterwards."""
    keep: Path | None = None
    profile: Path | None = None

    @property
    def work(self) -> Workload:
        """The workload."""
        return WORKLOADS[self.workload]

    @property
    def rate_per_s(self) -> float:
        """Writes that are scheduled."""
        return self.writes_per_s if self.work.writes else 0.0

    def group(self, contexts: int) -> Group:
        """The UEs that arrive, of so many contexts."""
        group = self.work.group
        assert group is not None
        ues = max(1, min(group.ues, contexts // 5)) if self.group_ues is None else min(self.group_ues, contexts)
        return replace(group, ues=ues, seconds=group.seconds if self.group_s is None else self.group_s)

    def limit_s(self, contexts: int) -> float:
        """How long a move may take before the run ends without it."""
        return 60.0 + contexts / 4_000 if self.move_limit_s is None else self.move_limit_s

    def seed_limit_s(self, contexts: int) -> float:
        """How long it may take to put the contexts in; ten times what it takes."""
        return 30.0 + contexts / 2_000
