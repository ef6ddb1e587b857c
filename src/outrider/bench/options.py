"""What the user of a measurement may change, and the limits that follow from it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Of every run."""

    writes_per_s: float = 1_000
    rtt_ms: float = 0.0
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

    def limit_s(self, contexts: int) -> float:
        """How long a move may take before the run ends without it."""
        return 60.0 + contexts / 4_000 if self.move_limit_s is None else self.move_limit_s

    def seed_limit_s(self, contexts: int) -> float:
        """How long it may take to put the contexts in; ten times what it takes."""
        return 30.0 + contexts / 2_000
