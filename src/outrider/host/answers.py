"""Answers that a keeper gives by itself: 503 where nothing happened, 504 where that is not known (PROTOCOL.md §4.7)."""

import msgspec

from outrider.host.jobs import Elsewhere, Job
from outrider.protocol.messages import Answer

_PROBLEM = [("content-type", "application/problem+json")]


def problem(status: int, cause: str, detail: str, *headers: tuple[str, str]) -> Answer:
    """ProblemDetails (TS 29.571) as an answer."""
    body = msgspec.json.encode({"status": status, "cause": cause, "detail": detail})
    return Answer(status, [*_PROBLEM, *headers], body)


def busy(detail: str, cause: str = "NF_CONGESTION") -> Answer:
    """503: certainly no effect."""
    return problem(503, cause, f"{detail}; nothing was done, try again", ("retry-after", "1"))


def timed_out() -> Answer:
    """504: unknown; a retry with the same idempotency key gets the one true answer."""
    detail = "no answer of the network that serves this UE; a retry with the same idempotency key is safe"
    return problem(504, "TIMED_OUT_REQUEST", detail)


def turn_away(job: Job, detail: str, cause: str = "NF_CONGESTION") -> None:
    """Do not run a job: 503. One that may have run elsewhere ends in 504, for this network alone cannot know."""
    give(job, timed_out() if job.sent else busy(detail, cause))


def give(job: Job, answer: Answer | Elsewhere) -> None:
    """Answer a job, once; a second answer (a replay) is dropped."""
    if not job.reply.done():
        job.reply.set_result(answer)
