"""Reads of a key that is about to be given away: they go on while its writes wait (PROTOCOL.md §3.1).

A key is held from the moment in which its owner agrees to give it until GRANTED is durable. A GET or HEAD that comes in
that time runs at once, beside the key's actor, on what is committed, and commits nothing itself. No relocation waits
for it: it is no open work, and the key may go while it runs.

Why no answer is stale
    The content is read when this network owns the key, so it is the newest that there is anywhere, and the request has
    come before: the read takes effect at that instant, whatever is written later. Whether the key is still owned in
    that epoch is looked up once more in the step of the event loop in which the answer is given. GRANT leaves in a
    later step than the one that learns that GRANTED is durable, so if the row still says OWNED, nobody else can have
    taken the key by then. If it does not, the answer is dropped, and the request goes where the key has gone.

Its idempotency key means what it means elsewhere (PROTOCOL.md §4.3). What is stored under it in the content that is
read is another request's answer, since none of a read is stored, so the read is 422. Behind a request under the same
key that waits, it waits: whether that one's answer will be stored is not known before.
"""

from typing import TYPE_CHECKING

import structlog

from outrider.core.ids import key_text
from outrider.host import answers
from outrider.host.jobs import Job
from outrider.host.workers import WorkerFault
from outrider.protocol.messages import Answer
from outrider.protocol.ownership import Ownership, Row

if TYPE_CHECKING:
    from outrider.host.actor import Actor
    from outrider.host.host import Host

log = structlog.get_logger()


async def read(host: "Host", actor: "Actor", job: Job) -> None:
    """Answer a job from what is committed of a held key; if that cannot be, it queues again, as a write would."""
    context = host.store.context(actor.key)
    proposal = host.units.answered(context, job) or await host.units.look(context, job)
    actor.reading -= 1
    if not _owned(host.store.row(actor.key), context.row.epoch):
        actor.submit(job)
    elif isinstance(proposal, Answer):
        answers.give(job, proposal)
    elif isinstance(proposal, WorkerFault):
        host.units.failed(actor.key, job, proposal)
    elif proposal.records or proposal.timers or proposal.sends:
        # Its author means it as a write, and before and after a hold it is one: so it waits as writes do.
        log.warning("read.writes", key=key_text(actor.key), method=job.carried.method, nf=job.carried.nf)
        job.writes = True
        actor.submit(job)
    else:
        host.units.run_count += 1
        answers.give(job, Answer(proposal.status, proposal.headers, proposal.body))
    actor.rest()


def _owned(row: Row, epoch: int) -> bool:
    return row.state is Ownership.OWNED and row.epoch == epoch
