"""What can go wrong in a run: which fault, where, and when."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fail-point", "kill", "stop", "cut", "slow", "sink", "disk", "memory"]
Phase = Literal["START", "COPYING", "RELOCATING", "RETURNING"]
Leg = Literal["there", "onward"]
"""Which migration the phase is of: A → B, or B → C."""

STOP_S = 3.0
"""How long a process that is stopped stays so."""

CUT_S = 2.0
SLOW_S, SLOW_MS, SLOW_BYTES_PER_S = 4.0, 250.0, 32_000
"""How long a link is slow, how long a byte then is on its way, and how many pass in each direction."""

AWAY_S = 3.0

FIRE_LIMIT_S = 45.0
"""A fault that has not happened by then does not happen in this run."""


class NotFired(Exception):
    """The fault did not happen, so the run says nothing about it."""


@dataclass(frozen=True)
class Fault:
    """What is done, where, and in which phase it is done or becomes possible.

    `where` is a network (`A` is home), a link (`A-B`), or the receiver. `what` is `PLACE:ACTION:COUNT` of a fail-point,
    the process to kill, to stop or to give no more memory, the direction to cut, or the sink's order.
    """

    kind: Kind
    where: str
    what: str
    phase: Phase
    leg: Leg = "there"
    after_s: float = 0.0
    """How long after the phase was seen."""

    @property
    def when(self) -> str:
        """The phase, and of which migration if not of the first."""
        return self.phase if self.leg == "there" else f"{self.leg} {self.phase}"

    @property
    def sort(self) -> str:
        """What it is, wherever it is done."""
        match self.kind:
            case "fail-point":
                return f"{self.what.split(':')[1]} at a step"
            case "kill" | "stop":
                return f"{self.kind} {self.what}"
            case "cut":
                return "link cut both ways" if self.what == "both" else "link cut one way"
            case "slow":
                return "link slow"
            case "disk":
                return "disk full"
            case "memory":
                return f"memory limit, {self.what}"
        return "receiver away"

    def __str__(self) -> str:
        match self.kind:
            case "fail-point":
                place, action, _ = self.what.split(":")
                return f"{action} at {place}, keeper of {self.where}"
            case "kill":
                return f"kill -9 {self.what} of {self.where}"
            case "stop":
                return f"stop {self.what} of {self.where}, {STOP_S:g} s"
            case "cut":
                return f"link {self.where} cut {self.what}, {CUT_S:g} s"
            case "slow":
                return f"link {self.where} slow, {SLOW_S:g} s"
            case "disk":
                return f"disk full for the keeper of {self.where}"
            case "memory":
                return f"no more memory for the {self.what} of {self.where}"
        return f"receiver of notifications: {self.what}, {AWAY_S:g} s"
