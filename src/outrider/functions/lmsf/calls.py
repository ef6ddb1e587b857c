"""What callers ask and are refused, in the audit log: every command of the operator, every "no" to anybody.

A command is recorded before it is done, so one that cannot be recorded is not done. A refusal is recorded after it is
given; the same one to the same caller once a minute, with how often, so that a partner cannot fill the disk.
"""

from dataclasses import dataclass

import structlog

from outrider.core import limits
from outrider.core.audit import Actor, Entry, clause_of, refused
from outrider.core.canonical import sha256_hex
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import refusal_from

log = structlog.get_logger(__name__)

_ASKS_ONLY = ("GET", "HEAD", "OPTIONS")
_NOT_ALLOWED = (401, 403)
_REFUSED = (400, 401, 403, 409, 413, 422)
"""Answers that are a "no". 404, 429 and 5xx say that something is not there, or not now."""


@dataclass(slots=True)
class _Given:
    """A refusal that was given to one caller, and how often since it was recorded last."""

    actor: Actor
    refusal: Refusal
    recorded_ms: int
    times: int = 0


class Calls:
    """Records commands and refusals of one LMSF's APIs."""

    def __init__(self, network: str, journal: Journal, clock: Clock) -> None:
        self._network = network
        self._journal = journal
        self._clock = clock
        self._given: dict[tuple[Actor, str], _Given] = {}

    async def asked(self, request: Request, template: str, consumer: str) -> Refusal | None:
        """An allowed request has come; why it must not be done: what the operator asks for must be recorded first."""
        upload = "/uploads/" in template
        if consumer != self._network or request.method in _ASKS_ONLY or upload:
            return None
        api, _, path = template[1:].partition("/v1")
        facts = {name: value for name, value in request.params.items() if name != "migrationId"}
        command = Entry(
            Actor("operator", self._network),
            "command",
            f"The operator asks for {request.method} {path}.",
            f"{api}, {request.method} {path}",
            _migration(request),
            {"request": sha256_hex(request.body)} if request.body else {},
            facts,
        )
        try:
            await self._journal.record(command)
        except Refused as error:
            return error.refusal
        return None

    async def answered(self, request: Request, response: Response, consumer: str) -> None:
        """A request was answered; a refusal is recorded."""
        if response.status not in (_NOT_ALLOWED if request.method in _ASKS_ONLY else _REFUSED):
            return
        own = consumer == self._network
        actor = Actor("operator", self._network) if own else Actor("partner", consumer)
        if response.status == 401 and own:
            actor = Actor("function", "a consumer without a good token")
        refusal = refusal_from(response, f"The answer is {response.status}.")
        now_ms = self._clock.now_ms()
        known = self._given.get((actor, refusal.code))
        if known is not None and now_ms - known.recorded_ms < limits.AUDIT_REFUSALS_MS:
            known.times += 1
            return
        await self.sum(now_ms)
        self._given[actor, refusal.code] = _Given(actor, refusal, now_ms)
        facts = dict(request.params) | refusal.facts
        entry = refused(actor, refusal, _migration(request))
        await self._record(entry._replace(facts={"cause": refusal.code, "method": request.method} | facts))

    async def sum(self, now_ms: int | None = None) -> None:
        """Record how often refusals were given again whose minute is over; all of them at the end."""
        for key, given in list(self._given.items()):
            if now_ms is not None and now_ms - given.recorded_ms < limits.AUDIT_REFUSALS_MS:
                continue
            del self._given[key]
            if given.times:
                again = f"{given.refusal.code} was given {given.times} more times: {given.refusal.sentence}"
                facts = {"cause": given.refusal.code, "times": str(given.times)}
                clause = clause_of(given.refusal.code)
                await self._record(Entry(given.actor, "refusal", again, clause, facts=facts))

    async def _record(self, entry: Entry) -> None:
        try:
            await self._journal.record(entry)
        except Refused as error:
            log.error("audit.refusal-not-recorded", cause=entry.facts.get("cause"), why=str(error))


def _migration(request: Request) -> str:
    name = request.params.get("migrationId", "")
    return name if len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "._-") for c in name) else ""
