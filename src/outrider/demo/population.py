"""The UE group: who the UEs are, which groups they form, and when each of them has something to send."""

import random
from collections.abc import Iterator
from typing import NamedTuple

SERIES = 1_000_000
"""SUPIs set aside for each series of UEs."""


class Ue(NamedTuple):
    """One UE: its number from 1, a name for histories (never its identity), its SUPI, its group."""

    number: int
    name: str
    supi: str
    group: str


def population(ues: int, *, group_size: int, home: str, series: int = 0) -> list[Ue]:
    """The UEs of a run; their SUPIs belong to the home network `MCC-MNC[-NID]`. Each series has UEs of its own."""
    mcc, mnc = home.split("-")[:2]
    digits = 15 - len(mcc + mnc)
    width = len(str(ues))
    group = f"group-{series}" if series else "group"
    return [
        Ue(
            n,
            f"ue-{n:0{width}}",
            f"imsi-{mcc}{mnc}{series * SERIES + n:0{digits}}",
            f"{group}-{(n - 1) // group_size + 1}",
        )
        for n in range(1, ues + 1)
    ]


class Due(NamedTuple):
    """A transaction is due `at_s` after the start; `overlaps`: it does not wait for the answer to the one before."""

    at_s: float
    overlaps: bool


def transactions(ue: Ue, *, rate: float, overlap: float, seed: int) -> Iterator[Due]:
    """When a UE sends, without end: `rate` per second on average, between half and one and a half of the interval.

    It is decided beforehand, so a slow answer makes nothing rarer. `overlap` is the share of transactions that are
    sent while another one may be on its way, so that there is an order to be lost.
    """
    chance = random.Random(f"{seed}/{ue.number}/transactions")
    at_s = chance.uniform(0, 1 / rate)
    while True:
        yield Due(at_s, chance.random() < overlap)
        at_s += chance.uniform(0.5, 1.5) / rate


def basic_requests(ue: Ue, *, rate: float, seed: int) -> Iterator[float]:
    """When a UE renews its registration, without end; none if `rate` is 0."""
    chance = random.Random(f"{seed}/{ue.number}/basic")
    at_s = chance.uniform(0, 1 / rate) if rate else 0.0
    while rate:
        yield at_s
        at_s += chance.uniform(0.5, 1.5) / rate
