"""The machine that a figure was measured on; a figure without it says nothing."""

import os
import platform
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, rename="camel"):
    """What there is to know of it."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gb} GB, {self.kernel}, Python {self.python}"


def this_machine() -> Machine:
    """The machine that this runs on; `cores` are those that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(memory / 1e9, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # Processors that are no x86 name no model there.
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.machine()
