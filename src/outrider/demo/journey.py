"""One journey of a small group under load, during which things go wrong, and the checker's verdict over it.

There and back (A → B → A), or onward (A → B → C → A): the service goes ahead each time, the group follows, and the
service returns. Whatever goes wrong, the migrations have to end by themselves.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from outrider.core.refusal import Refused
from outrider.demo.checker import Findings
from outrider.demo.course import Options, Run, clients_of, judge, sink_of
from outrider.demo.fault import Fault, Leg, NotFired, Phase
from outrider.demo.injection import inject
from outrider.demo.live import Screen, View
from outrider.demo.outcome import Outcome
from outrider.demo.population import population
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import HOME, MIGRATIONS, TARGET, THIRD, Stage
from outrider.demo.track import Move, make_onward_track, make_track, write_track

UES = 20
RATE = 2.0
OVER_S, STAY_S = 1.5, 3.0

READY_LIMIT_S = 40.0
"""The copy is whole, or the migration aborted, by then, whatever the fault."""

END_LIMIT_S = 60.0
"""The migration is over by then."""

ASK_LIMIT_S = 20.0
"""An order that a node cannot take now is given again until then."""

LATE_NOTIFICATION_S = 15.0
"""A delivery that failed is tried again after up to 5 s; what has not come by then, three tries long, is lost."""

LATE_S = 0.7
"""A fault of RELOCATING comes when the group has been on its way for so long."""

ARRIVED_S = 0.2
"""The last of the group has registered so long after it came."""


class _NotServing(Exception):
    """B serves no more, so the service cannot go on from there: what went wrong has ended its hosting."""


class Journey:
    """There and back."""

    def __init__(
        self, stage: Stage, service: str, service_dir: Path, folder: Path, faults: Sequence[Fault], seed: int
    ) -> None:
        """Its files go into `folder`. Journeys in the same networks have different seeds: each has UEs of its own."""
        self.stage = stage
        self.service = service
        self.findings: Findings | None = None
        self.ids: dict[Leg, str] = {}
        """The migrations, as far as they have begun."""
        self._faults = faults
        self.outcome = Outcome(
            faults=[str(f) for f in faults],
            kinds=[f.sort for f in faults],
            phase=", ".join(dict.fromkeys(f.when for f in faults)),
            files=str(folder),
        )
        self.ues = population(UES, group_size=UES, home=HOME, series=seed)
        track = folder / "given-track.csv"
        track.write_text(write_track(self._track(seed)))
        options = Options(service_dir, ues=UES, rate=RATE, track=track, seed=seed, series=seed)
        self.run = Run(options, stage, Screen(View(HOME, TARGET), Console(file=StringIO())), folder=folder)
        self._injected: list[asyncio.Task[None]] = []
        self._seen = "before the migration"

    def _track(self, seed: int) -> list[Move]:
        moves = make_track(ues=UES, home=HOME, target=TARGET, seed=seed, over_s=OVER_S, stay_s=STAY_S)
        self._home_s = max(m.time_s for m in moves if m.network == HOME)
        return moves

    async def play(self) -> None:
        """Everything, to the verdict."""
        run = self.run
        async with sink_of(run) as sink, clients_of(run, sink) as clients:
            self._sink, self.clients = sink, clients
            opened = await clients.order("open")
            if opened.get("failed"):
                raise ProcessFailed(f"{opened['failed']} of {UES} sessions could not be opened")
            await clients.order("load")
            run.mark("load")
            try:
                await asyncio.sleep(1.5)
                run.mark("begin")
                await self.travel()
                async with asyncio.timeout(END_LIMIT_S):
                    await asyncio.gather(*self._injected)
            finally:
                run.mark("returned")
                for task in self._injected:
                    task.cancel()
                await asyncio.gather(*self._injected, return_exceptions=True)
            await asyncio.sleep(2.0)
            async with asyncio.timeout(60.0):
                await clients.order("stop")
                run.mark("end")
                await clients.order("read")
            self._note(await self._judged())
            async with asyncio.timeout(60.0):
                closed = await clients.order("close")
            if closed["failed"]:
                self.outcome.reasons.append(f"{closed['failed']} sessions and subscriptions could not be ended")

    async def travel(self) -> None:
        """The service goes there, the group follows and comes back, the service returns."""
        shown = await self._go("there")
        if not shown["over"]:
            await self._group(self._home_s, "there")
            shown = await self._return("there")
        self._ended(shown)

    # -------------------------------------------------------------------------------------- steps of a journey

    async def _go(self, leg: Leg) -> dict[str, Any]:
        """Let the service go ahead until UEs can follow; the migration then, which may have been aborted."""
        self._inject(leg, "START")
        self.ids[leg] = await self._start(leg)
        if any((f.leg, f.phase) == (leg, "COPYING") for f in self._faults):
            await self._until(leg, {"COPYING", "RELOCATING", "SETTLED"}, READY_LIMIT_S)
            self._inject(leg, "COPYING")
        shown = await self._until(leg, {"RELOCATING", "SETTLED"}, READY_LIMIT_S)
        self._hold_logs()
        return shown

    def _hold_logs(self) -> None:
        """Keep a name for the logs of keepers away from home: a network that retires erases its own."""
        for operator in self.stage.operators[1:]:
            for log in operator.directory.glob("log/keeper-*.log"):
                held = self.run.directory / f"{operator.name.lower()}-{log.name}"
                if not held.exists():
                    held.hardlink_to(log)

    async def _start(self, leg: Leg) -> str:
        """Order the migration; if the answer is lost, it is looked up."""
        source, target = (None, TARGET) if leg == "there" else (TARGET, THIRD)

        async def begun() -> str | None:
            if leg == "onward" and (await self.stage.a.migration(self.ids["there"]))["over"]:
                raise _NotServing
            for shown in (await self.stage.a.ask("GET", MIGRATIONS))["migrations"]:
                if (shown["service"], shown["target"]) == (self.service, target) and not shown["over"]:
                    return str(shown["migrationId"])
            return None

        return await self._order(lambda: self.stage.a.migrate(self.service, target, source), begun)

    async def _group(
        self, moving_s: float, leg: Leg | None, *, until_s: float | None = None, without: str = ""
    ) -> None:
        """Let the group go on along its track for so long, until that instant of it, while faults of the leg happen."""
        bounds = {} if until_s is None else {"untilS": until_s}
        await self.clients.order("travel", without=without, **bounds)
        there_s = time.monotonic() + moving_s + ARRIVED_S
        await asyncio.sleep(LATE_S)
        if leg is not None:
            self._inject(leg, "RELOCATING")
        await asyncio.sleep(max(0.0, there_s - time.monotonic()))

    async def _return(self, leg: Leg) -> dict[str, Any]:
        """Take the service back; the migration when it is over."""
        stage, migration_id = self.stage, self.ids[leg]

        async def on_its_way() -> str | None:
            shown = await stage.a.migration(migration_id)
            return "yes" if shown["over"] or shown["phase"] in ("RETURNING", "ABORTING") else None

        async def take_back() -> str:
            await stage.a.take_back(migration_id)
            return "yes"

        await self._order(take_back, on_its_way)
        self._inject(leg, "RETURNING")
        return await self._until(leg, set(), END_LIMIT_S)

    async def _order(self, order: Callable[[], Awaitable[str]], done: Callable[[], Awaitable[str | None]]) -> str:
        """Give an order until it is done; the node may be away for a moment."""
        until_s = time.monotonic() + ASK_LIMIT_S
        while True:
            try:
                return await order()
            except (ProcessFailed, Refused):
                with contextlib.suppress(ProcessFailed, Refused):
                    if (found := await done()) is not None:
                        return found
                if time.monotonic() > until_s:
                    raise
                await asyncio.sleep(0.3)

    async def _until(self, leg: Leg, phases: set[str], limit_s: float) -> dict[str, Any]:
        """Wait for a phase, or for the migration's end; the node that is asked may be away for a moment."""
        until_s = time.monotonic() + limit_s
        shown: dict[str, Any] = {"phase": "?", "sentence": "", "over": False}
        while time.monotonic() < until_s:
            with contextlib.suppress(ProcessFailed, Refused):
                shown = await self.stage.a.migration(self.ids[leg])
                self._seen = str(shown["phase"])
                if shown["phase"] in phases or shown["over"]:
                    return shown
            await asyncio.sleep(0.03)
        raise ProcessFailed(
            f"{leg}: not {' or '.join(sorted(phases)) or 'over'} after {limit_s:g} s, but {shown['phase']}: "
            f"{shown['sentence']} waiting for {shown.get('waitingFor')}; {shown.get('progress')}"
        )

    # ---------------------------------------------------------------------------------------- faults, verdict

    def _inject(self, leg: Leg, phase: Phase) -> None:
        for fault in self._faults:
            if (fault.leg, fault.phase) == (leg, phase):
                self._injected.append(asyncio.create_task(self._one(fault), name=str(fault)))

    async def _one(self, fault: Fault) -> None:
        try:
            seen = self._seen
            proof = await inject(fault, self.stage, self._sink, self.service, [ue.supi for ue in self.ues])
            self.outcome.fired.append(f"{proof} ({seen if fault.kind != 'fail-point' else self._seen})")
        except NotFired as error:
            self.outcome.reasons.append(f"NOT FIRED: {error}")
        except (ProcessFailed, OSError) as error:
            self.outcome.reasons.append(f"{fault}: {error}")

    def _ended(self, *shown: dict[str, Any]) -> None:
        """Note how the migrations ended; each with its cause if it was aborted."""
        texts = []
        for each in shown:
            ending = each.get("ending") or {}
            cause = ending.get("cause", "") if isinstance(ending, dict) else ending
            texts.append(f"{each['phase']} {cause}".strip())
            if not each["over"]:
                self.outcome.reasons.append(f"The migration has not ended: {each['phase']}, {each['sentence']}")
            elif each["phase"] == "ABORTED" and not cause:
                self.outcome.reasons.append(f"The migration was aborted without a cause: {each}")
        self.outcome.ended = ", ".join(texts)

    async def _judged(self) -> Findings:
        """The verdict, when the notifications that a fault has put off have come, or are too late."""
        until_s = time.monotonic() + LATE_NOTIFICATION_S
        while True:
            findings = await judge(self.run, allow_failed=True)
            if not findings.notifications_lost or time.monotonic() > until_s:
                return findings
            await asyncio.sleep(1.0)

    def _note(self, findings: Findings) -> None:
        outcome, self.findings = self.outcome, findings
        outcome.reasons += findings.reasons
        outcome.failed, outcome.sent = findings.requests_failed, findings.requests_sent
        worst = [q.max for q in findings.latency_ms.values() if q.max is not None]
        outcome.unavailable_s = round(max(worst) / 1000, 2) if worst else None
        if len(outcome.fired) != len(self._faults) and not any("NOT FIRED" in r for r in outcome.reasons):
            outcome.reasons.append("NOT FIRED: not every fault was done")


class OnwardJourney(Journey):
    """To B, onward to C without coming home, and home from there; B retires while UEs are at C."""

    def _track(self, seed: int) -> list[Move]:
        track = make_onward_track(ues=UES, home=HOME, between=TARGET, target=THIRD, seed=seed, over_s=OVER_S)
        self._onward_s, self._home_s = track.onward_s, track.home_s
        self._last_s = track.moves[-1].time_s
        self.outcome.route = "A → B → C → A"
        return track.moves

    async def travel(self) -> None:
        """The service goes to B and to C, each time before the group, and home."""
        there = await self._go("there")
        if there["over"]:
            self._ended(there)
            return
        await self._group(self._onward_s, "there", until_s=self._onward_s)
        onward: dict[str, Any] | None
        try:
            onward = await self._go("onward")
        except _NotServing:
            onward = None
        if onward is None or onward["over"]:
            await self._group(self._last_s - self._onward_s, "onward", without=THIRD)
            self._ended(await self._return("there"), *([onward] if onward else []))
            return
        await self._group(self._home_s - self._onward_s, "onward", until_s=self._home_s)
        there = await self.leave_between()
        await self._group(self._last_s - self._home_s, None)
        self._ended(there, await self.come_home())

    async def leave_between(self) -> dict[str, Any]:
        """Nobody is at B any more: it gives back what is left there, and is erased."""
        return await self._return("there")

    async def come_home(self) -> dict[str, Any]:
        """Nobody is at C any more."""
        return await self._return("onward")
