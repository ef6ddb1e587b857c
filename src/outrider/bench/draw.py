"""Which UE the next request is for: any, or some much more often than others."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

_GOLDEN = (math.sqrt(5) - 1) / 2


def drawer(contexts: int, skew: float, chance: random.Random) -> Callable[[], int]:
    """Draws UEs 1 … `contexts`: uniformly at skew 0, else by Zipf's law, the n-th most frequent 1/n**skew as often."""
    if not skew:
        return lambda: chance.randrange(contexts) + 1
    upto = list(accumulate(rank**-skew for rank in range(1, contexts + 1)))
    scatter = scattered(contexts)
    return lambda: scatter(bisect_left(upto, chance.random() * upto[-1]))


def scattered(contexts: int) -> Callable[[int], int]:
    """Gives 0, 1, 2 … each a UE of its own, far from the last: UEs of near numbers are neighbours in the store."""
    stride = max(1, int(contexts * _GOLDEN))
    while math.gcd(stride, contexts) != 1:
        stride += 1
    return lambda number: number * stride % contexts + 1
