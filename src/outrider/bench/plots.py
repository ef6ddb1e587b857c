"""The figures as drawings: latency over time, how long UEs waited, total by size with its bound, and lag.

SVG, so that a page or a paper can print them; each file is named after what it shows.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrider.bench.figures import Measured, Peer, Result, Size, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTALL = "pip install 'outrider[bench]'"
WIDTH, HEIGHT = 7.0, 3.6
"""Inches, of the column of a paper and a half."""

PHASES = {"before": "#ffffff", "during": "#f3f0e6", "copying": "#e3edf7", "relocating": "#fbe5d6", "after": "#ffffff"}
OURS, PEER, OTHER, LIMIT = "#1f4e79", "#b5482a", "#6b6b6b", "#000000"
FLOOR_MS = 0.1
"""The least that the logarithmic axis of latency shows."""


def missing() -> str | None:
    """What has to be installed before anything can be drawn; None if nothing has."""
    return None if find_spec("matplotlib") else INSTALL


def draw(results: list[Result], directory: Path) -> list[Path]:
    """Draw everything that the results have figures for, into the directory; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path | None] = []
    for result in results:
        size = max((s for s in result.sizes if s.runs), key=lambda s: s.contexts)
        name = f"{title_of(result)}-{size.contexts}"
        files.append(_latency(result, size, directory / f"latency-{_slug(name)}.svg"))
        files.append(_lag(result, size, directory / f"lag-{_slug(name)}.svg"))
        files.append(_total(result, directory / f"total-{_slug(title_of(result))}.svg"))
    files.append(_holds(results, directory / "holds.svg"))
    return [file for file in files if file is not None]


def title_of(result: Result) -> str:
    """What was measured, in a few words."""
    rate = _first(result).seen.writes_per_s
    parts = [result.workload, f"{rate:g} writes/s" if rate else "no load"]
    if result.link != type(result.link)():
        parts.append(str(result.link))
    if result.without is not None:
        parts.append(f"without {result.without}")
    return ", ".join(parts)


def _first(result: Result) -> Size:
    return next(run for size in result.sizes for run in size.runs)


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def axes_of(title: str) -> tuple[Any, "Axes"]:
    """An empty drawing: figure and axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.5)
    return figure, axes


def save(figure: Any, path: Path) -> Path:
    """Write a drawing, with its legend below it."""
    figure.legend(fontsize=7, frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None})
    return path


# ------------------------------------------------------------------------------------------------ drawings


def _latency(result: Result, size: Measured, path: Path) -> Path | None:
    """Median and largest latency of every tenth of a second, from the command on; the phases behind it."""
    run = size.runs[0]
    if not run.seen.writes_per_s:
        return None
    figure, axes = axes_of(f"latency, {title_of(result)}, {size.contexts:,} contexts")
    _phases(run, axes)
    for who, seen, colour in [("ours", run.seen, OURS), *((p.name, p.seen, PEER) for p in size.peers[:1])]:
        series = seen.series
        at = [series.first_s + (step + 0.5) * series.step_ms / 1000 for step in range(len(series.phase))]
        axes.plot(at, _shown(series.p50_ms), color=colour, linewidth=1.0, label=f"{who}: median")
        axes.plot(
            at, _shown(series.max_ms), color=colour, marker=".", markersize=2.5, linestyle="", label=f"{who}: largest"
        )
    axes.set_yscale("log")
    axes.set_xlabel("s from the command", fontsize=8)
    axes.set_ylabel("ms", fontsize=8)
    return save(figure, path)


def _shown(values: Iterable[float | None]) -> list[float]:
    return [float("nan") if value is None else max(value, FLOOR_MS) for value in values]


def _phases(run: Size, axes: "Axes") -> None:
    """Shade each stretch of one phase."""
    series, begun = run.seen.series, 0
    for step in range(1, len(series.phase) + 1):
        if step == len(series.phase) or series.phase[step] != series.phase[begun]:
            from_s, to_s = (series.first_s + at * series.step_ms / 1000 for at in (begun, step))
            colour = PHASES.get(series.phase[begun], "#ffffff")
            known = {text.get_label() for text in axes.patches}
            label = series.phase[begun] if series.phase[begun] in ("copying", "relocating") else ""
            axes.axvspan(from_s, to_s, color=colour, linewidth=0, label=label if label not in known else "")
            begun = step


def _lag(result: Result, size: Measured, path: Path) -> Path | None:
    """Contexts copied and moved, and changes that the target did not have yet."""
    run = size.runs[0]
    if not run.lag:
        return None
    figure, axes = axes_of(f"progress and lag, {title_of(result)}, {size.contexts:,} contexts")
    at = [sample.at_s for sample in run.lag]
    axes.plot(at, [s.copied_ues for s in run.lag], color=OTHER, linewidth=1.0, label="copied")
    axes.plot(at, [s.moved_ues for s in run.lag], color=OURS, linewidth=1.2, label="moved")
    axes.set_xlabel("s from the command", fontsize=8)
    axes.set_ylabel("contexts", fontsize=8)
    behind = axes.twinx()
    behind.plot(at, [s.lag_entries for s in run.lag], color=PEER, linewidth=0.8, label="changes behind")
    behind.set_ylabel("changes behind", fontsize=8, color=PEER)
    return save(figure, path)


def _total(result: Result, path: Path) -> Path | None:
    """Total by size, ours and the peers', over what the link and the disk allow."""
    sizes = [size for size in result.sizes if size.runs]
    if len(sizes) < 2:
        return None
    figure, axes = axes_of(f"total by size, {title_of(result)}")
    runs: list[tuple[str, list[tuple[int, list[Size] | list[Peer]]], str]] = [
        ("ours, from the command", [(s.contexts, s.runs) for s in sizes], OURS),
        *_named([(s.contexts, s.peers) for s in sizes], PEER),
        *_named([(s.contexts, s.dumps) for s in sizes], OTHER),
    ]
    for name, points, colour in runs:
        spreads = [(contexts, Spread.over(run.total_s for run in of)) for contexts, of in points]
        there = [(contexts, spread) for contexts, spread in spreads if spread is not None]
        medians = [spread.median for _, spread in there]
        around = [[s.median - s.min for _, s in there], [s.max - s.median for _, s in there]]
        axes.errorbar([c for c, _ in there], medians, yerr=around, color=colour, marker="o", markersize=3, label=name)
    moving = [(s.contexts, Spread.over(run.moving_s for run in s.runs)) for s in sizes]
    axes.plot(
        [c for c, m in moving if m is not None], [m.median for _, m in moving if m is not None],
        color=OURS, linestyle="--", linewidth=0.9, label="ours, copy and change of owner",
    )  # fmt: skip
    if (bound := result.bound) is not None:
        floor = [bound.seconds(s.runs[0].state_bytes, s.runs[0].wire_bytes) for s in sizes]
        axes.plot([s.contexts for s in sizes], floor, color=LIMIT, linestyle=":", label="bound of link and disk")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([s.contexts for s in sizes], [f"{s.contexts:,}" for s in sizes])
    axes.minorticks_off()
    axes.set_xlabel("contexts", fontsize=8)
    axes.set_ylabel("s", fontsize=8)
    return save(figure, path)


def _named(
    points: list[tuple[int, list[Peer]]], colour: str
) -> list[tuple[str, list[tuple[int, list[Size] | list[Peer]]], str]]:
    name = next((peers[0].name for _, peers in points if peers), None)
    return [] if name is None else [(name, [(contexts, peers) for contexts, peers in points], colour)]


def _holds(results: list[Result], path: Path) -> Path | None:
    """The share of UEs whose longest wait during the move was at most so long, of everything that was measured."""
    figure, axes = axes_of("the longest wait of each UE during the move")
    drawn = 0
    for result in results:
        size = max((s for s in result.sizes if s.runs), key=lambda s: s.contexts)
        sides: list[tuple[str, Size | Peer]] = [(title_of(result), size.runs[0])]
        sides += [(f"{peer.name}, {title_of(result)}", peer) for peer in size.peers[:1]]
        for name, run in sides:
            if run.holds is None:
                continue
            curve = [max(ms, FLOOR_MS) for ms in run.holds.curve_ms]
            share = [step / (len(curve) - 1) for step in range(len(curve))] if len(curve) > 1 else [1.0]
            style = "-" if isinstance(run, Size) else "--"
            axes.plot(curve, share, linewidth=1.0, linestyle=style, label=f"{name}, {size.contexts:,}")
            drawn += 1
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.set_xlabel("ms", fontsize=8)
    axes.set_ylabel("share of UEs", fontsize=8)
    return save(figure, path)
