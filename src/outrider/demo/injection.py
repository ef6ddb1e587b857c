"""Faults that a run can be given: each is done to real processes or to the real link, and proves that it happened."""

import asyncio
import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from outrider.demo.processes import Running
from outrider.demo.stage import Operator, Stage
from outrider.network.processes import mark

Kind = Literal["fail-point", "kill", "cut", "sink", "disk"]
Phase = Literal["START", "COPYING", "RELOCATING", "RETURNING"]

STOP_S = 3.0
"""How long a process that stopped itself stays so."""

CUT_S = 2.0
AWAY_S = 3.0
FILE_BYTES = 64 * 1024
"""A keeper without a disk writes no file beyond that."""

FIRE_LIMIT_S = 45.0
"""A fail-point that was not reached by then is not reached in this run."""


@dataclass(frozen=True)
class Fault:
    """What is done, at which network (`A` is home), and in which phase it is done or becomes possible.

    `what` is `PLACE:ACTION:COUNT` of a fail-point, the process to kill, the direction to cut, or the sink's order.
    """

    kind: Kind
    where: str
    what: str
    phase: Phase

    def __str__(self) -> str:
        match self.kind:
            case "fail-point":
                place, action, _ = self.what.split(":")
                return f"{action} at {place}, keeper of {self.where}"
            case "kill":
                return f"kill -9 {self.what} of {self.where}"
            case "cut":
                return f"link cut {self.what}, {CUT_S:g} s"
            case "disk":
                return f"disk full for the keeper of {self.where}"
        return f"receiver of notifications: {self.what}, {AWAY_S:g} s"


class NotFired(Exception):
    """The fault did not happen, so the run says nothing about it."""


def prepare(operator: Operator) -> None:
    """Let this operator's keepers obey orders for fail-points."""
    operator.env = {
        "OUTRIDER_FAILPOINT_ORDER": str(_order(operator)),
        "OUTRIDER_FAILPOINT_REPORT": str(_report(operator)),
    }


async def inject(fault: Fault, stage: Stage, sink: Running, service: str) -> str:
    """Do it, to its end (a link heals, a stopped process goes on); returns the proof, or raises `NotFired`."""
    operator = stage.a if fault.where == "A" else stage.b
    match fault.kind:
        case "fail-point":
            return await _at_fail_point(operator, fault.what)
        case "kill":
            return await _kill(operator, fault.what, service)
        case "cut":
            return await _cut(stage, fault.what)
        case "disk":
            return await _starve(keeper_pid(operator, service))
        case _:
            return await _away(sink, fault.what)


def withdraw(stage: Stage) -> None:
    """Take back an order that nothing has obeyed."""
    for operator in (stage.a, stage.b):
        _order(operator).unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------- fail-points


def _order(operator: Operator) -> Path:
    return operator.directory.parent / f"fail-point-{operator.name.lower()}"


def _report(operator: Operator) -> Path:
    return operator.directory.parent / f"fired-{operator.name.lower()}.txt"


async def _at_fail_point(operator: Operator, what: str) -> str:
    report = _report(operator)
    before = report.stat().st_size if report.exists() else 0
    fresh = _order(operator).with_suffix(".new")
    fresh.write_text(what)
    fresh.rename(_order(operator))
    place, action, _ = what.split(":")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRE_LIMIT_S):
            while not report.exists() or report.stat().st_size == before:
                await asyncio.sleep(0.05)
    fired = report.read_text()[before:].strip() if report.exists() else ""
    if not fired.startswith(f"{place}:{action}:"):
        raise NotFired(f"{place} was not reached at {operator.name}")
    if action == "stop":
        await asyncio.sleep(STOP_S)
        os.kill(int(fired.rpartition(":")[2]), signal.SIGCONT)
    return fired


# ------------------------------------------------------------------------------------------------ processes


async def _kill(operator: Operator, process: str, service: str) -> str:
    if process == "node":
        assert operator.node is not None
        pid = operator.node.pid
        await operator.kill()
        await operator.run()
        return f"node {pid} killed and started again"
    keeper = keeper_pid(operator, service)
    pid = keeper if process == "keeper" else _worker_pid(keeper)
    known = mark(pid)
    os.kill(pid, signal.SIGKILL)
    while mark(pid) == known:
        await asyncio.sleep(0.01)
    return f"{process} {pid} killed"


async def _starve(pid: int) -> str:
    """Take the disk from a process; it has to end, because what it cannot make durable it must not say."""
    known = mark(pid)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRE_LIMIT_S):
            while mark(pid) == known:
                await asyncio.sleep(0.05)
            return f"keeper {pid} ended without a disk"
    raise NotFired(f"keeper {pid} goes on without a disk")


def keeper_pid(operator: Operator, service: str) -> int:
    """The process of the service's keeper; `NotFired` if there is none."""
    try:
        found: dict[str, Any] = msgspec.json.decode(
            (operator.directory / "services" / service / "keeper.pid").read_bytes()
        )
    except FileNotFoundError:
        raise NotFired(f"there is no keeper at {operator.name}") from None
    return int(found["pid"])


def _worker_pid(keeper: int) -> int:
    children = [c for task in Path(f"/proc/{keeper}/task").iterdir() for c in (task / "children").read_text().split()]
    if not children:
        raise NotFired(f"keeper {keeper} has no worker")
    return int(children[0])


# ------------------------------------------------------------------------------------------- link, receiver


async def _cut(stage: Stage, direction: str) -> str:
    """Cut the link from A to B (`forward`), the other way, or both; each relay's own direction is the caller's way."""
    assert stage.relay is not None
    relay = stage.relay
    for number, forward in enumerate(("B", "B", "A", "A")):  # who calls through it
        ways = {"forward": "forward" if forward == "A" else "backward", "both": "both"}
        ways["backward"] = "backward" if forward == "A" else "forward"
        await relay.order("cut", relay=number, direction=ways[direction])
    before = await _passed(relay)
    await asyncio.sleep(CUT_S)
    after = await _passed(relay)
    await relay.order("heal")
    grew = {way for way in ("forward", "backward") if after[way] - before[way] > 0}
    dead = {"forward", "backward"} if direction == "both" else {direction}
    if grew & dead:
        raise NotFired(f"{direction} was cut, but bytes passed: {before} → {after}")
    return f"{direction} cut; bytes that passed meanwhile: " + ", ".join(f"{w} {after[w] - before[w]}" for w in after)


async def _passed(relay: Running) -> dict[str, int]:
    """Bytes that have passed from A to B (`forward`) and back."""
    to_a, to_a_bulk, to_b, to_b_bulk = (await relay.order("stats"))["bytes"]
    return {
        "forward": to_b["forward"] + to_b_bulk["forward"] + to_a["backward"] + to_a_bulk["backward"],
        "backward": to_b["backward"] + to_b_bulk["backward"] + to_a["forward"] + to_a_bulk["forward"],
    }


async def _away(sink: Running, order: str) -> str:
    before = await sink.order("stats")
    await sink.order(order)
    await asyncio.sleep(AWAY_S)
    during = await sink.order("stats")
    await sink.order("up")
    if during["state"] == "up" or (order == "refuse" and during["refused"] == before["refused"]):
        raise NotFired(f"the receiver was to {order}: {during}")
    return f"{during['state']}, {during['refused'] - before['refused']} refused"
