"""Quantiles of a sample, as every figure here gives them."""

import math
from collections.abc import Iterable

import msgspec


class Quantiles(msgspec.Struct, frozen=True, rename="camel"):
    """Of a sample: how many, the median, the 99th percentile, the largest. None where the sample is empty."""

    count: int = 0
    p50: float | None = None
    p99: float | None = None
    max: float | None = None


def quantiles(values: Iterable[float]) -> Quantiles:
    """By nearest rank: each figure is a value of the sample."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles()

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return Quantiles(len(ordered), at(0.5), at(0.99), round(ordered[-1], 3))
