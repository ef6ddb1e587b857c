"""What processes and files hold over time, and whether it grows without bound."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from outrider.demo.stage import Stage
from outrider.demo.usage import age_s, family, kind

GROWTH = 1.5
"""So many times as much in the last quarter of the journeys as in the second is growth."""

NOTICED = {"rssMb": 16.0, "fileMb": 8.0, "openFiles": 32.0}
"""Growth by less than this is none: caches fill, and each journey has UEs of its own, whose heads stay."""

LEAST_JOURNEYS = 8
"""With fewer nothing can be said about growth."""

_BARS = "▁▂▃▄▅▆▇█"


class Sample(msgspec.Struct, rename="camel", kw_only=True):
    """What the networks hold after a journey, by what it is and whose: `keeper of A`."""

    at_s: float
    networks: int = 1
    """Which ones, counted from 1: after a failed journey others are set up, which have gathered nothing yet."""
    rss_mb: dict[str, float]
    """Resident memory of each kind of process."""
    open_files: dict[str, float]
    file_mb: dict[str, float]
    """Files by what they are; logs are the operator's to rotate, and only told."""
    age_s: dict[str, float] = {}
    """How long the oldest process of each kind has lived: a fault that ends one ends what it has gathered."""


def sample(stage: Stage, networks: int, began_s: float) -> Sample:
    """Look at the processes and files of all networks."""
    rss: dict[str, float] = defaultdict(float)
    descriptors: dict[str, float] = defaultdict(float)
    ages: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    for operator in stage.operators:
        assert operator.node is not None
        for pid in family(operator.node.pid):
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                count = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                continue  # it has ended
            name = f"{kind(pid)} of {operator.name}"
            rss[name] += pages * 4096 / 1e6
            descriptors[name] += count
            ages[name] = max(ages[name], age_s(pid) or 0.0)
        for file in operator.directory.glob("**/*"):
            try:
                if file.is_file():
                    sizes[f"{_what(file)} of {operator.name}"] += file.stat().st_size / 1e6
            except OSError:
                continue
    rss_mb, open_files, file_mb, ages_s = (
        {name: round(value, 2) for name, value in sorted(each.items())} for each in (rss, descriptors, sizes, ages)
    )
    at_s = round(time.monotonic() - began_s, 1)
    return Sample(
        at_s=at_s, networks=networks, rss_mb=rss_mb, open_files=open_files, file_mb=file_mb, age_s=ages_s
    )  # fmt: skip


def _what(file: Path) -> str:
    if file.suffix == ".log":
        return "logs"
    if file.name.startswith("contexts.db"):
        return "store log" if file.name.endswith("-wal") else "store"
    return "journal" if file.name.startswith("lmsf.db") else "other files"


def longest(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the networks that lived for most journeys."""
    each = [[s for s in samples if s.networks == number] for number in {s.networks for s in samples}]
    return max(each, key=len, default=[])


def growth(samples: Sequence[Sample]) -> list[str]:
    """What grew in the networks that lived for most journeys, in words."""
    samples = longest(samples)
    if len(samples) < LEAST_JOURNEYS:
        return []
    quarter = len(samples) // 4
    found = []
    for field, least in NOTICED.items():
        taken = [msgspec.to_builtins(s)[field] for s in samples]
        for name in sorted({name for each in taken for name in each}):
            if name.startswith("logs"):
                continue
            values = [each.get(name, 0.0) for each in taken]
            early, late = median(values[quarter : 2 * quarter]), median(values[-quarter:])
            if late > GROWTH * early and late - early > least:
                found.append(f"{field} of {name}: {early:g} in the second quarter, {late:g} in the last")
    return found


def curve(values: Sequence[float]) -> str:
    """Values over time as bars, the highest at the top; a place without height is nothing."""
    top = max(values, default=0.0)
    return "".join(_BARS[round((len(_BARS) - 1) * value / top)] if value and top else " " for value in values)
