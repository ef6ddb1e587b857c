"""A refusal: the value that every "no" is made of."""

import msgspec


class Refusal(msgspec.Struct, frozen=True, rename="camel"):
    """Why something is not done: a stable code, a sentence, the facts behind it, and what would change it.

    Refusals are decisions, so they are returned, never raised; on the wire they become ProblemDetails whose
    `cause` is the code (TS 29.500 §5.2.7).
    """

    code: str
    sentence: str
    facts: dict[str, str] = {}
    remedy: str = ""
    status: int = 403

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}" + (f" {self.remedy}" if self.remedy else "")


class Refused(Exception):
    """Carries a `Refusal` through code that can only raise; caught at the edge and turned into ProblemDetails.

    `refusals` are all reasons, where there are several; `refusal` is the first.
    """

    def __init__(self, refusal: Refusal, *others: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.refusals = (refusal, *others)
