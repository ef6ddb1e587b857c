"""Tells the partner of a migration where this side stands, until it has the end; and notices when it is silent.

Each message is the whole view and is answered by the partner's whole view, so one that is lost is repaired by the
next. There is news after each step of the machine that matters to the partner; without any, it is told now and then,
because its answer is also how this side learns what it missed.
"""

import asyncio
from typing import Any, Protocol

import msgspec
import structlog

from outrider.core import limits
from outrider.core.refusal import Refused
from outrider.functions.lmsf.ports import Clock, Partners
from outrider.functions.lmsf.record import Migration, View
from outrider.protocol import migration as machine
from outrider.protocol.phase import Phase, over
from outrider.sbi.client import Unreachable

log = structlog.get_logger(__name__)

SCOPE = "nlmsf-negotiation"


class Side(Protocol):
    """One side of a migration, as far as it is told (`runner.Runner`)."""

    record: Migration

    def view(self, partner: str) -> View:
        """What that partner is told."""

    def patient_for(self, partner: str) -> int:
        """Until when that partner has to wait for a human's word, as it is told; 0 if it need not be told."""

    def heard(self, view: View) -> None:
        """The partner has told where it stands."""

    def post(self, event: object) -> None:
        """Something has happened."""

    async def note(self, **changes: Any) -> None:
        """Journal changes of the record that are no event."""


class Teller:
    """The task that tells; only its silence and its answers reach the machine, as events."""

    def __init__(self, side: Side, partner: str, partners: Partners, clock: Clock) -> None:
        self.partner = partner
        self._side = side
        self._giver = partner != side.record.partner
        """Home tells it beside the target: its silence ends nothing."""
        self._partners = partners
        self._clock = clock
        self._news = asyncio.Event()
        self.silent_since_ms: int | None = None
        """Since when the partner has not answered; None while it does."""

    def news(self) -> None:
        """There is something to tell."""
        self._news.set()

    def answered(self) -> None:
        """The partner is there."""
        self.silent_since_ms = None

    @property
    def done(self) -> bool:
        """The partner has the end of this side, or is not told any more."""
        return self._side.record.giver_told if self._giver else self._side.record.told

    async def run(self) -> None:
        """Tell until the partner has the end of this side, or that is given up."""
        pause_ms = float(limits.TELL_RETRY_MIN_MS)
        while not self.done:
            await self._wait()
            # Before PREPARING the target is asked, not told; but for that a human may take longer than a phase.
            early = self._side.record.row.phase in (Phase.NEGOTIATING, Phase.PERMITTING)
            if early and not self._side.patient_for(self.partner):
                continue
            told = self._side.record.row
            answered = await self._tell()
            if over(told) and (answered or self._long_over()):
                await self._side.note(**{"giver_told" if self._giver else "told": True})
            elif answered:
                pause_ms = limits.TELL_RETRY_MIN_MS
            else:
                await self._clock.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, limits.TELL_RETRY_MAX_MS)
                self._news.set()

    async def _wait(self) -> None:
        """Until there is news, or it is time to tell again."""
        waiting = asyncio.create_task(self._news.wait())
        sleeping = asyncio.create_task(self._clock.sleep(limits.TELL_INTERVAL_MS / 1000))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()
        self._news.clear()

    async def _tell(self) -> bool:
        """Tell once; whether the partner has answered, if only that it knows no such migration."""
        side = self._side
        path = f"/nlmsf-negotiation/v1/migrations/{side.record.id}/view"
        try:
            view = side.view(self.partner)
            response = await self._partners.request(self.partner, "PUT", path, scope=SCOPE, json=view)
            if response.status == 200:
                side.heard(msgspec.json.decode(response.body, type=View))
                return True
        except (Unreachable, Refused, msgspec.DecodeError) as error:
            return self._silent(str(error))
        except Exception as error:
            log.exception("migration.teller-failed", migration=side.record.id)
            return self._silent(repr(error))
        if response.status != 404:
            return self._silent(f"it answers {response.status}")
        self.answered()
        if not self._giver or side.record.row.phase in machine.BEFORE:
            side.post(machine.PeerForgot())
        return over(side.record.row)

    def _silent(self, why: str) -> bool:
        side, now_ms = self._side, self._clock.now_ms()
        if self.silent_since_ms is None:
            self.silent_since_ms = now_ms
            log.warning("migration.partner-silent", migration=side.record.id, partner=self.partner, why=why)
        if now_ms - self.silent_since_ms >= limits.TELL_LIMIT_MS and not self._giver:
            side.post(machine.PeerSilent())
        return False

    def _long_over(self) -> bool:
        ended_ms = self._side.record.phases.get(self._side.record.row.phase.value, 0)
        return self._clock.now_ms() - ended_ms > limits.TELL_GIVE_UP_MS
