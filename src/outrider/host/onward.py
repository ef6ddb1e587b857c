"""A network that hosts the service no more: keys that are thought to be there are looked for where they went.

A key that goes from one network to another is decided between these two; a third learns it by asking the first, which
names the second. When the first has nothing left and goes away, nobody could ask it any more. So before that, whoever
looks there is told where its keys went. Only the name changes, durably, and no epoch: a row says where a key probably
is, and never decides anything (PROTOCOL.md §1).
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from outrider.protocol.ownership import Ownership
from outrider.store.port import SetRow

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

_AT_ONCE = 256


async def gone(host: "Host", network: str, to: str) -> int:
    """Look for the keys of a network at another one from now on; how many rows that were. Twice is once."""
    rows = await host.reading(lambda store: store.rows_in(Ownership.FOREIGN))
    there = [(key, row) for key, row in rows.items() if row.peer == network]
    for first in range(0, len(there), _AT_ONCE):
        await asyncio.gather(
            *(
                # A row that has changed meanwhile says something newer, and stays as it is.
                host.committer.submit(SetRow(key, row, msgspec.structs.replace(row, peer=to)))
                for key, row in there[first : first + _AT_ONCE]
            )
        )
    host.forget_routes(network)
    if there:
        host.progress.rows_changed()
        log.info("network.gone", network=network, to=to, rows=len(there))
    return len(there)
