"""Delivers outgoing messages and notifications: per key in order, one under way, only at the owner (PROTOCOL.md §5).

An entry leaves after its unit is durable. It is gone from the outbox with a later commit of the owner, so after a crash
it may be sent again under the same id; a receiver that drops ids it has seen gets each exactly once. A delivery under
way is open work of its key, so in a fault-free relocation nothing is sent twice. The new owner goes on with the first
entry that is left.
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from outrider.core import limits
from outrider.core.ids import key_text
from outrider.core.record import Change, Kind, OutboxBody, Record
from outrider.host.failpoints import reach
from outrider.host.jobs import Elsewhere, Job
from outrider.protocol.messages import Carried
from outrider.protocol.ownership import Ownership
from outrider.sbi import headers
from outrider.sbi.client import Unreachable
from outrider.store.port import Done, Work

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

_decode = msgspec.msgpack.Decoder(OutboxBody).decode
CALLBACK = "Outrider_NotificationDelivery"


class Outbox:
    """One delivery task for each key that has something to deliver here."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(limits.DELIVERIES)
        self.delivered_count = 0

    def start(self) -> None:
        """Go on with what was left at the last stop."""
        for key in self._host.store.outbox_keys():
            self.kick(key)

    def kick(self, key: bytes) -> None:
        """Something of this key may be deliverable now."""
        if key not in self._tasks and key[:1] in (b"u", b"s"):
            task = asyncio.create_task(self._deliver(key), name=f"outbox {key_text(key)}")
            self._tasks[key] = task
            task.add_done_callback(lambda t: self._ended(key, t))

    async def close(self) -> None:
        """Stop delivering."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: bytes, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            self._host.fault(f"outbox of {key_text(key)}", task.exception())

    def _may(self, key: bytes) -> int | None:
        """The epoch at which a delivery of the key may start here now; None if it may not."""
        host = self._host
        row = host.store.row(key)
        actor = host.actors.get(key)
        held = actor is not None and actor.vol.held is not None
        if row.state is not Ownership.OWNED or held or host.stars.frozen(key) or not host.permitted:
            return None
        return row.epoch

    async def _deliver(self, key: bytes) -> None:
        host, backoff_ms = self._host, limits.RESEND_MIN_MS
        while (epoch := self._may(key)) is not None:
            entries = host.store.outbox(key, limits.OUTBOX_BATCH)
            if not entries:
                return
            if not await host.settle_arrival(key):
                await asyncio.sleep(backoff_ms / 1000)  # the worker may be there again then
                backoff_ms = min(2 * backoff_ms, limits.RESEND_MAX_MS)
                continue
            actor = host.actor(key)
            actor.deliveries += 1
            host.stars.open(key)
            done: list[Record] = []
            try:
                async with self._slots:
                    for entry in entries:
                        if done and self._may(key) is None:
                            break
                        if not await self._one(key, entry):
                            break
                        done.append(entry)
                if done:
                    gone = [Change(Kind.OUTBOX, e.nf, e.id, None) for e in done]
                    outcome = await host.committer.submit(Work(key, epoch, gone))
                    if not isinstance(outcome, Done):
                        return
                    host.committed(key, [])
            finally:
                host.stars.closed(key)
                actor.delivery_ended()
            self.delivered_count += len(done)
            if done:
                backoff_ms = limits.RESEND_MIN_MS  # the receiver is there: a backlog is not to wait for seconds
            if len(done) < len(entries) and (not done or self._may(key) is not None):
                await asyncio.sleep(backoff_ms / 1000)
                backoff_ms = min(2 * backoff_ms, limits.RESEND_MAX_MS)

    async def _one(self, key: bytes, entry: Record) -> bool:
        body = _decode(entry.body)
        if body.uri is not None:
            return await self._notify(key, entry, body.uri, body.body)
        assert body.to_key is not None
        return await self._message(key, entry, body, body.to_key)

    async def _notify(self, key: bytes, entry: Record, uri: str, body: bytes) -> bool:
        try:
            response = await self._host.client.request(
                "POST",
                uri,
                headers=[
                    ("content-type", "application/json"),
                    headers.with_callback(CALLBACK),
                    headers.with_idempotency_key(f"{key_text(key)}/{entry.id}"),
                ],
                body=body,
                timeout_s=limits.DELIVERY_LIMIT_MS / 1000,
            )
        except Unreachable as error:
            log.info("notification.failed", key=key_text(key), uri=uri, why=str(error))
            return False
        reach("notification-sent")
        if response.status >= 500 or response.status == 429:
            return False
        if response.status >= 400:
            log.warning("notification.refused", key=key_text(key), uri=uri, status=response.status)
        return True

    async def _message(self, key: bytes, entry: Record, body: OutboxBody, to_key: bytes) -> bool:
        """A message to a shared object is a unit there, wherever that is, with the entry's id as its key."""
        host = self._host
        carried = Carried(
            method="POST", path="", query="", headers=[], body=body.body, answer_id=entry.id, consumer=key.hex(),
            kind="message", name=body.name, nf=body.nf,
        )  # fmt: skip
        now_s = host.now_s()
        job = Job(
            carried, now_s + limits.DELIVERY_LIMIT_MS / 1000, asyncio.get_running_loop().create_future(), now_s,
            keep_answer=True, sender=key,
        )  # fmt: skip
        host.mover.wrote(to_key, key, host.me)
        host.actor(to_key).submit(job)
        answer = await job.reply
        if isinstance(answer, Elsewhere) or answer.status >= 500 or answer.status == 429:
            return False
        if answer.status >= 400:
            log.warning("message.refused", key=key_text(key), to=key_text(to_key), status=answer.status)
        return True
