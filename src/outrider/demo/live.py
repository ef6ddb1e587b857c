"""The live view: two networks, where the UEs are, who serves them, and what the migration says of itself."""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

_BAR = 40


@dataclass
class View:
    """What is shown; the run changes it, and draws it a few times a second."""

    home: str
    target: str
    phase: str = "setting up"
    sentence: str = ""
    waiting_for: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    migration: dict[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0
    steps: list[str] = field(default_factory=list)


def draw(view: View) -> RenderableType:
    """The view as it is now."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("", view.home, view.target):
        table.add_column(column, justify="left" if not column else "right")
    for title, key in (("UEs in the network", "inNetwork"), ("answers served by", "servedBy")):
        here = view.progress.get(key, {})
        table.add_row(title, str(here.get(view.home, 0)), str(here.get(view.target, 0)))
    counted = {name: view.progress.get(name, 0) for name in ("sent", "ok", "retried", "failed", "basicFailed")}
    latency = view.progress.get("latencyMs", {})
    p50, p99 = (latency.get(figure) or 0.0 for figure in ("p50", "p99"))
    line = "  ".join(f"{name} {value}" for name, value in counted.items())
    moved, left = view.migration.get("movedUes", 0), view.migration.get("remainingUes", 0)
    share = moved / (moved + left) if moved + left else 0.0
    filled = round(_BAR * share)
    return Group(
        *(Text(f"✓ {step}", style="green") for step in view.steps),
        Text(f"{view.elapsed_s:5.1f} s  {view.phase}", style="bold"),
        Text(f"  {view.sentence}" + (f"; waiting for {view.waiting_for}" if view.waiting_for else ""), style="dim"),
        table,
        Text(f"  contexts at {view.target}: [{'█' * filled}{'·' * (_BAR - filled)}] {moved}"),
        Text(f"  {line}  latency p50 {p50:.1f} ms, p99 {p99:.1f} ms"),
    )


class Screen:
    """Shows a view while a run goes on; on something that is no terminal, only the steps, line by line."""

    def __init__(self, view: View, console: Console) -> None:
        self.view = view
        self._console = console
        self._live = Live(draw(view), console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.update()
            self._live.stop()

    def step(self, sentence: str) -> None:
        """Something is done."""
        self.view.steps.append(sentence)
        if self._live is None:
            self._console.print(f"{self.view.elapsed_s:5.1f} s  {sentence}")
        self.update()

    def update(self) -> None:
        """Draw again."""
        if self._live is not None:
            self._live.update(draw(self.view))
