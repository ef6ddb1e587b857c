"""What a context costs to move, and what two keepers hold meanwhile, from few contexts to many.

These are runs of `outrider bench relocation --workload idle` without a peer: nobody writes, all contexts move.
"""

from collections.abc import Callable, Sequence

from outrider.bench import relocation
from outrider.bench.bars import FLAT
from outrider.bench.figures import SETTLED, Size
from outrider.bench.growth.table import Curve, Part, Value, at_most, by, flat
from outrider.bench.options import Options
from outrider.demo.usage import Used

NOTHING = Used(0.0, 0.0)


async def run(sizes: Sequence[int], say: Callable[[str], None]) -> Part:
    """Move so many contexts, in networks of their own each time."""
    options = Options(workload="idle", warm_s=0.5, before_s=0.5, after_s=0.5, sample=200)
    moved = [await relocation.run(options, size, say) for size in sorted(sizes)]
    return part(moved)


def part(moved: Sequence[Size]) -> Part:
    """The table and the bars."""
    rows = [_row(size) for size in moved]
    return Part(
        name="contexts",
        title="Cost of a context, and memory while all of them move",
        ran="One service between two networks, nobody writes, all contexts move: `bench relocation --workload idle`.",
        rows=rows,
        curves=[
            Curve("contexts-cost", "contexts", ["µs of time for each context", "µs of CPU for each context"], "µs"),
            Curve(
                "contexts-memory", "contexts",
                ["keeper A, peak MB", "keeper B, peak MB", "bulk A, peak MB", "bulk B, peak MB"], "MB",
            ),
        ],
        bars=[
            flat("time to move, for each context", FLAT, by(rows, "contexts", "µs of time for each context")),
            flat("CPU, for each context", FLAT, by(rows, "contexts", "µs of CPU for each context")),
            at_most("peak of a keeper, nobody writing", 256, "MB", by(rows, "contexts", "keeper, peak MB")),
            at_most("peak of the bulk work beside it", 256, "MB", by(rows, "contexts", "bulk, peak MB")),
            at_most("contexts lost, doubled or left behind", 0, "", by(rows, "contexts", "wrong")),
        ],
        raw=list(moved),
    )  # fmt: skip


def _row(size: Size) -> dict[str, Value]:
    def peak(name: str) -> float:
        return size.used.get(name, NOTHING).peak_rss_mb

    moving_s = size.moving_s
    wrong = sum(size.sample.get(name, 0) for name in ("lost", "doubled", "unread"))
    return {
        "contexts": size.contexts,
        "state, MB": round(size.state_bytes / 1e6, 1),
        "total, s": size.total_s,
        "copy and change of owner, s": None if moving_s is None else round(moving_s, 2),
        "µs of time for each context": None if moving_s is None else round(1e6 * moving_s / size.contexts, 1),
        "µs of CPU for each context": round(1e6 * size.cpu_s / size.contexts, 1),
        "keeper A, peak MB": peak("keeper A"),
        "keeper B, peak MB": peak("keeper B"),
        "bulk A, peak MB": peak("bulk A"),
        "bulk B, peak MB": peak("bulk B"),
        "keeper, peak MB": max(peak("keeper A"), peak("keeper B")),
        "bulk, peak MB": max(peak("bulk A"), peak("bulk B")),
        "wrong": wrong + (size.contexts - size.moved_ues if size.ended == SETTLED else size.contexts),
    }
