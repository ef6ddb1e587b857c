"""How many arrivals a network may assert without proof, so that it cannot pull contexts of UEs that are not there.

Where the contract takes the target's word for an arrival (`target-asserted`), nothing but this stands between a target
and all contexts of the service. Each migration has a token bucket. Its size follows the number of UEs: real arrivals
do, and what matters is how long it would take to get them all.
"""

from dataclasses import dataclass

import structlog

from outrider.core import limits

log = structlog.get_logger()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float
    told_s: float = float("-inf")
    refused: int = 0


class Asserted:
    """The buckets of one host, by migration and peer."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def passes(self, migration_id: str, peer: str, ues: int, now_s: float) -> bool:
        """Count one asserted arrival of a migration of so many UEs; False if it is one too many."""
        per_s = max(limits.ASSERTED_PER_S, limits.ASSERTED_SHARE_PER_S * ues)
        full = per_s * limits.ASSERTED_BURST_S
        bucket = self._buckets.setdefault((migration_id, peer), _Bucket(full, now_s))
        bucket.tokens = min(full, bucket.tokens + (now_s - bucket.at_s) * per_s)
        bucket.at_s = now_s
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return True
        bucket.refused += 1
        if now_s - bucket.told_s >= 1.0:
            log.warning(
                "arrivals.too-many", migration=migration_id, peer=peer, per_s=int(per_s), refused=bucket.refused
            )
            bucket.told_s, bucket.refused = now_s, 0
        return False
