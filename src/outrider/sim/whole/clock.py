"""Wall clocks: one for each network, wrong by a bit, and now and then by a jump. The loop's time is everybody's."""

import asyncio

UTC_MS = 1_750_000_000_000


class WallClock:
    """What a network takes for UTC."""

    def __init__(self, skew_ms: int) -> None:
        self.skew_ms = skew_ms

    def utc_ms(self) -> int:
        """Milliseconds since 1970, as this network has them."""
        return UTC_MS + int(asyncio.get_running_loop().time() * 1000) + self.skew_ms
