"""Time as the NRF sees it, so that tests decide when a heartbeat is missed."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """`wall_s` is UTC, for tokens and validity times; `steady_s` never jumps, for heartbeats."""

    wall_s: Callable[[], float] = time.time
    steady_s: Callable[[], float] = time.monotonic
