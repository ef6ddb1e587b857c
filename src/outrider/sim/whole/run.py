"""Many seeds, one after the other: for so many, or for so long. Whatever fails is said at once, with its seed."""

import time
from collections.abc import Callable, Iterable
from itertools import count

import msgspec

from outrider.sim.whole.planted import needs_lmsfs, planted
from outrider.sim.whole.play import play
from outrider.sim.whole.scenario import Name, Plan, draw
from outrider.sim.whole.world import Result


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """What many runs came to."""

    seeds: int
    failed: list[Result]
    virtual_s: float
    wall_s: float
    steps: int
    commits: int
    operations: int
    scenarios: dict[str, int]

    @property
    def sentence(self) -> str:
        """For people."""
        per_s = self.seeds / self.wall_s if self.wall_s else 0.0
        return (
            f"{self.seeds} worlds in {self.wall_s:.0f} s ({per_s:.1f} a second), {self.virtual_s:.0f} virtual seconds, "
            f"{self.operations} operations, {self.commits} commits, {self.steps} steps: {len(self.failed)} failed."
        )


def run(
    *,
    first: int = 0,
    seeds: int | None = None,
    minutes: float | None = None,
    scenario: Name | None = None,
    lmsfs: bool | None = None,
    fault: str | None = None,
    stop_at_first: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
) -> Summary:
    """Run seeds from `first` on, until there were so many, or so many minutes are over.

    `lmsfs`: with LMSFs or without; unless that is said, as the fault needs them, or as each seed says.
    """
    begun_s = time.monotonic()
    results: list[Result] = []
    failed: list[Result] = []
    numbers: Iterable[int] = count(first) if seeds is None else range(first, first + seeds)
    with planted(fault):
        for number in numbers:
            if minutes is not None and time.monotonic() - begun_s >= minutes * 60:
                break
            result = play(draw(str(number), scenario, lmsfs=needs_lmsfs(fault) if lmsfs is None else lmsfs))
            results.append(result)
            if result.violations:
                failed.append(result)
            on_result(result)
            if failed and stop_at_first:
                break
    names = [r.title for r in results]
    return Summary(
        seeds=len(results),
        failed=failed,
        virtual_s=round(sum(r.virtual_s for r in results), 1),
        wall_s=round(time.monotonic() - begun_s, 2),
        steps=sum(r.steps for r in results),
        commits=sum(r.commits for r in results),
        operations=sum(r.operations for r in results),
        scenarios={name: names.count(name) for name in sorted(set(names))},
    )


def replay(plan: Plan, fault: str | None = None) -> Result:
    """One scenario again, with its story."""
    with planted(fault):
        return play(plan, story=True)
