"""Golden traces: short stories of the protocol in `traces/*.txt`, run through the real machine.

A story is blocks of a command, `----`, and what came of it. `world` begins one (bounds of `sim.values.Bounds`); every
other command is the beginning of what a network may do next, as the search words it. A message that a story never lets
arrive is lost. Rewrite with `python tests/protocol/test_traces.py --rewrite`, and commit only what you understand.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.sim.model import Driver
from outrider.sim.values import NAMES, Bounds, Change, Msg, net_text, put

TRACES = sorted((Path(__file__).parent / "traces").glob("*.txt"))


def _may(driver: Driver, nets: tuple, sent: list[Msg]) -> Iterator[tuple[int, Change]]:  # type: ignore[type-arg]
    for i, net in enumerate(nets):
        yield from ((i, change) for change in driver.alone(i, net))
    for m in sent:
        yield from ((m.target, change) for change in driver.hear(nets[m.target], m))


def run(story: str) -> str:
    """The story with what really comes of each command."""
    out = []
    for block in story.strip().split("\n\n"):
        head = block.split("\n----")[0]
        command = next((line for line in head.splitlines() if not line.startswith("#")), None)
        if command is None:
            out.append(head)
            continue
        if command.startswith("world"):
            bounds = {name: int(value) for name, value in (word.split("=") for word in command.split()[1:])}
            driver, sent = Driver(Bounds(units=True, **bounds)), list[Msg]()  # type: ignore[arg-type]
            nets = tuple(driver.first(i) for i in range(driver.bounds.networks))
            lines = [f"{NAMES[i]}: {net_text(net, driver.keys)}" for i, net in enumerate(nets)]
        else:
            labels = {c.label: (i, c) for i, c in reversed([*_may(driver, nets, sent)])}
            label = next((label for label in reversed(labels) if label.startswith(command)), None)
            assert label is not None, f"{command!r} cannot happen here; what can: {', '.join(labels)}"
            i, change = labels[label]
            assert change.fault is None, change.fault
            lines = [why] if (why := change.label.partition(": ")[2]) else []
            if net_text(change.net, driver.keys) != net_text(nets[i], driver.keys):
                lines.append(f"{NAMES[i]}: {net_text(change.net, driver.keys)}")
            lines += [f"to {NAMES[m.target]}: {m}" for m in change.sent]
            nets, sent = put(nets, i, change.net), sent + [m for m in change.sent if m not in sent]
        out.append("\n".join([head, "----", *(lines or ["nothing changes"])]))
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    assert run(path.read_text()) == path.read_text()


if __name__ == "__main__" and "--rewrite" in sys.argv:
    for path in TRACES:
        path.write_text(run(path.read_text()))
