"""The ownership rows that a host begins with: home owns everything, any other network nothing."""

import asyncio

from outrider.core.ids import PARTITIONS, SHARED_STAR, partition_key
from outrider.host.config import KeeperConfig
from outrider.protocol.ownership import Ownership, Row
from outrider.store.committer import GroupCommitter
from outrider.store.port import ContextStore, SetRow

_HOME_EPOCH = 1
"""Home's first epoch; other networks begin below every epoch that anybody can grant."""


async def first_rows(store: ContextStore, committer: GroupCommitter, config: KeeperConfig) -> None:
    """Write `*p` of every partition, and the row that shared objects follow until they have their own, once."""
    if store.row(SHARED_STAR).peer is not None or store.row(SHARED_STAR).state is Ownership.OWNED:
        return
    nothing = Row(Ownership.FOREIGN, 0)
    first = Row(Ownership.OWNED, _HOME_EPOCH) if config.is_home else Row(Ownership.FOREIGN, 0, config.home_id)
    stars = [*(partition_key(p) for p in range(PARTITIONS)), SHARED_STAR]
    await asyncio.gather(*(committer.submit(SetRow(star, nothing, first)) for star in stars))
