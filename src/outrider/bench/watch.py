"""A migration, looked at until something is so; how far it was at each look is kept."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from outrider.bench.figures import SETTLED, Sample
from outrider.bench.site import POLL_S, ask
from outrider.core.refusal import Refused
from outrider.demo.processes import ProcessFailed
from outrider.demo.stage import MIGRATIONS, Operator

Shown = dict[str, Any]


class Watch:
    """One migration, at its source."""

    def __init__(self, operator: Operator) -> None:
        self.command_s = time.monotonic()
        self.shown: Shown = {}
        self.samples: list[Sample] = []
        self._operator = operator
        self._id = ""

    async def start(self, service: str, target: str, *, move_all: bool) -> None:
        """As `outrider migration start`."""
        self.command_s = time.monotonic()
        wanted = {"service": service, "target": target, "moveAll": move_all}
        self._id = (await ask(self._operator, "POST", MIGRATIONS, wanted))["migrationId"]

    async def order(self, what: str) -> None:
        """As `outrider migration return` or `abort`; ended when the node has answered."""
        await ask(self._operator, "POST", f"{MIGRATIONS}/{self._id}/{what}", {"sentence": "the benchmark asks for it"})

    async def until(self, reached: Callable[[Shown], bool], limit_s: float) -> bool:
        """Whether it was reached within the limit. A migration that ends otherwise is a failure, with its cause.

        A node too busy to answer is asked again.
        """
        until_s = time.monotonic() + limit_s
        while time.monotonic() < until_s:
            try:
                self.shown = await self._operator.migration(self._id)
            except Refused:
                await asyncio.sleep(POLL_S)
                continue
            self._note()
            if reached(self.shown):
                return True
            if self.shown["over"]:
                raise ProcessFailed(
                    f"the migration is {self.phase}: {self.shown['sentence']} {self.shown['waitingFor']} "
                    f"{self.shown.get('refusals')}"
                )
            await asyncio.sleep(POLL_S)
        return False

    @property
    def phase(self) -> str:
        """As it was seen last."""
        return str(self.shown.get("phase", ""))

    @property
    def moved_ues(self) -> int:
        """UEs that are served at the target, as it was seen last."""
        return int((self.shown.get("progress") or {}).get("movedUes", 0))

    def settled(self, limit_s: float) -> str:
        """How the move ended: `SETTLED`, or how far it had come within the limit, in words."""
        if self.phase == SETTLED:
            return SETTLED
        if not self.shown:
            return f"the node did not answer within {limit_s:g} s"
        progress = self.shown.get("progress") or {}
        told = f"{progress.get('copiedUes', 0)} UEs copied, {progress.get('movedUes', 0)} moved"
        return f"{self.phase} after {limit_s:g} s: {told}, waiting for {progress.get('waitingFor') or '?'}"

    def _note(self) -> None:
        progress = self.shown.get("progress") or {}
        self.samples.append(
            Sample(
                round(time.monotonic() - self.command_s, 3),
                self.phase,
                int(progress.get("copiedUes", 0)),
                int(progress.get("movedUes", 0)),
                int(progress.get("lagEntries", 0)),
            )
        )
