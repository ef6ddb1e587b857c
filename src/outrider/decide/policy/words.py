"""Decisions in words: one text for the CLI, whatever asked."""

from collections.abc import Iterator

from outrider.decide.policy.decision import Decision, Effect, Verdict

_VERDICTS = {
    Verdict.ALLOW: "allowed",
    Verdict.REFUSE: "refused",
    Verdict.APPROVAL: "waits for a human's approval",
}
_SIGNS = {Effect.PERMIT: "+", Effect.APPROVED: "+", Effect.APPROVAL: "?"}


def explained(decision: Decision) -> str:
    """The verdict, every reason with rule, clause and facts, and what would change it."""
    return "\n".join(_lines(decision))


def _lines(decision: Decision) -> Iterator[str]:
    yield f"{decision.action.value}: {_VERDICTS[decision.verdict]} by policy {decision.policy}"
    for reason in decision.reasons:
        where = ", ".join(filter(None, (reason.clause, reason.source)))
        name = f"{reason.rule}: " if reason.rule else ""
        against = reason in decision.against
        code = f" [{reason.code}]" if against else ""
        yield f"  {_SIGNS.get(reason.effect, '-')} {name}{reason.sentence}{code}" + (f" ({where})" if where else "")
        for key, value in reason.facts.items() if against else ():
            yield f"      {key}: {value}"
        if against and reason.change:
            yield f"      would change it: {reason.change}"
    if decision.pending:
        yield f"  not judged yet, because the package is not here: {', '.join(decision.pending)}"
