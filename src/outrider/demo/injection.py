"""Faults that a run can be given: each is done to real processes or to the real link, and proves that it happened."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from outrider.demo import hunger
from outrider.demo.fault import AWAY_S, FIRE_LIMIT_S, STOP_S, Fault, NotFired
from outrider.demo.link_faults import Link
from outrider.demo.processes import Running
from outrider.demo.stage import Operator, Stage
from outrider.demo.usage import kind
from outrider.network.processes import mark

FILE_BYTES = 64 * 1024
"""A keeper without a disk writes no file beyond that."""


def prepare(operator: Operator) -> None:
    """Let this operator's keepers obey orders for fail-points."""
    operator.env = {
        "OUTRIDER_FAILPOINT_ORDER": str(_order(operator)),
        "OUTRIDER_FAILPOINT_REPORT": str(_report(operator)),
    }


async def inject(fault: Fault, stage: Stage, sink: Running, service: str, supis: Sequence[str] = ()) -> str:
    """Do it, to its end (a link heals, a stopped process goes on); returns the proof, or raises `NotFired`.

    `supis` are UEs of the run, whose requests need memory.
    """
    await asyncio.sleep(fault.after_s)
    if fault.kind in ("cut", "slow"):
        link = Link(stage, fault.where)
        return await (link.slow() if fault.kind == "slow" else link.cut(fault.what))
    if fault.kind == "sink":
        return await _away(sink, fault.what)
    operator = next(o for o in stage.operators if o.name == fault.where)
    match fault.kind:
        case "fail-point":
            return await _at_fail_point(operator, fault.what)
        case "kill":
            return await _kill(operator, fault.what, service)
        case "stop":
            return await _stop(_pid(operator, fault.what, service), fault.what)
        case "disk":
            return await _starve(keeper_pid(operator, service))
        case _:
            log = operator.directory / "log" / f"keeper-{service}.log"
            if fault.what == "bulk":
                return await hunger.no_bulk(keeper_pid(operator, service), log)
            return await hunger.no_more(operator, _pid(operator, fault.what, service), fault.what, log, supis)


def withdraw(stage: Stage) -> None:
    """Take back an order that nothing has obeyed."""
    for operator in stage.operators:
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
    pid = _pid(operator, process, service)
    known = mark(pid)
    os.kill(pid, signal.SIGKILL)
    while mark(pid) == known:
        await asyncio.sleep(0.01)
    return f"{process} {pid} killed"


async def _stop(pid: int, process: str) -> str:
    """Stop a process for a while; it is then as it would be on a machine that has no time for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOP_S)
        state = _state(pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    if state != "T":
        raise NotFired(f"{process} {pid} was to be stopped, and is {state}")
    return f"{process} {pid} stopped for {STOP_S:g} s"


def _state(pid: int) -> str:
    """What the system says that a process does: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


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


def _pid(operator: Operator, process: str, service: str) -> int:
    """The operator's node, or its keeper of the service or that one's worker; `NotFired` if it is not there."""
    if process == "node":
        assert operator.node is not None
        return operator.node.pid
    keeper = keeper_pid(operator, service)
    if process == "keeper":
        return keeper
    found = [child for child in hunger.children(keeper) if kind(child) == "worker"]
    if not found:
        raise NotFired(f"keeper {keeper} has no worker")
    return found[0]


# ------------------------------------------------------------------------------------------------- receiver


async def _away(sink: Running, order: str) -> str:
    before = await sink.order("stats")
    await sink.order(order)
    await asyncio.sleep(AWAY_S)
    during = await sink.order("stats")
    await sink.order("up")
    if during["state"] == "up" or (order == "refuse" and during["refused"] == before["refused"]):
        raise NotFired(f"the receiver was to {order}: {during}")
    return f"{during['state']}, {during['refused'] - before['refused']} refused"
