"""Faults of a link: cut one way or both, or slow; with proof from the relay's own counts."""

import asyncio
from typing import Literal

from outrider.demo.fault import CUT_S, SLOW_BYTES_PER_S, SLOW_MS, SLOW_S, NotFired
from outrider.demo.processes import Running
from outrider.demo.stage import Stage

Way = Literal["forward", "backward"]
WAYS: tuple[Way, Way] = ("forward", "backward")

BUFFERED_BYTES = 128 * 1024
"""What may have been on its way already, in each direction, when a link got slow."""


class Link:
    """One link of a stage; `forward` is from its first network to its second (of `A-B`, from A to B).

    Each relay's own `forward` is from the one that calls, so the two that lead to the first network count the other
    way round.
    """

    def __init__(self, stage: Stage, name: str) -> None:
        assert stage.relay is not None
        self._relay: Running = stage.relay
        self._rtt_ms = stage.rtt_ms
        number = 4 * [f"{first.name}-{second.name}" for first, second in stage.pairs].index(name)
        self._to_first = (number, number + 1)
        self._to_second = (number + 2, number + 3)

    async def cut(self, direction: str) -> str:
        """Cut `forward`, `backward` or `both`, and heal after `CUT_S`; the proof."""
        dead = WAYS if direction == "both" else (direction,)
        for way in WAYS:
            if way in dead:
                for relay, own in self._directions(way):
                    await self._relay.order("cut", relay=relay, direction=own)
        before = await self._count("bytes")
        await asyncio.sleep(CUT_S)
        after = await self._count("bytes")
        for relay in (*self._to_first, *self._to_second):
            await self._relay.order("heal", relay=relay)
        passed = {way: after[way] - before[way] for way in WAYS}
        if any(passed[way] > 0 for way in WAYS if way in dead):
            raise NotFired(f"{direction} was cut, but bytes passed: {before} → {after}")
        return f"{direction} cut; bytes that passed meanwhile: " + ", ".join(f"{way} {passed[way]}" for way in WAYS)

    async def slow(self) -> str:
        """Let each byte take `SLOW_MS`, and few pass, for `SLOW_S`; the proof."""
        relays = [*self._to_first, *self._to_second]
        for way in WAYS:
            shared = self._directions(way)
            await self._relay.order(
                "rate", bytesPerS=SLOW_BYTES_PER_S, **{own: [r for r, d in shared if d == own] for own in WAYS}
            )
        for relay in relays:
            await self._relay.order("delay", relay=relay, delayMs=SLOW_MS)
        before = await self._count("bytes")
        await asyncio.sleep(SLOW_S)
        after, slowest = await self._count("bytes"), await self._count("slowestMs")
        await self._relay.order("rate", forward=relays, backward=relays)
        for relay in relays:
            await self._relay.order("delay", relay=relay, delayMs=self._rtt_ms / 2)
        passed = {way: after[way] - before[way] for way in WAYS}
        if min(slowest.values()) < SLOW_MS or max(passed.values()) > SLOW_BYTES_PER_S * SLOW_S + BUFFERED_BYTES:
            raise NotFired(f"a slow link took at most {slowest} ms, and passed {passed} bytes")
        return "slow: " + ", ".join(f"{way} {passed[way]} bytes, up to {slowest[way]:.0f} ms" for way in WAYS)

    def _directions(self, way: Way) -> list[tuple[int, Way]]:
        """The relays that this direction of the link passes, with their own name for it."""
        other: Way = "backward" if way == "forward" else "forward"
        return [(r, way) for r in self._to_second] + [(r, other) for r in self._to_first]

    async def _count(self, figure: str) -> dict[Way, float]:
        """Bytes that have passed, or how long the slowest took since the last change of the delay; by direction."""
        told = (await self._relay.order("stats"))[figure]
        gather = sum if figure == "bytes" else max
        return {way: gather(told[relay][own] for relay, own in self._directions(way)) for way in WAYS}
