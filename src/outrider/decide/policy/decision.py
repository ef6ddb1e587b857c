"""What a policy says: a verdict with every reason for it, each with its rule and what would change it."""

import enum
from typing import Literal

import msgspec

from outrider.core.refusal import Refusal
from outrider.decide.policy.request import Action

Outcome = Literal["return", "abort"]
"""What becomes of a migration that may not go on: UEs come home in good order, or it is stopped at once."""


class Verdict(enum.StrEnum):
    """What a policy says, in one word."""

    ALLOW = "allow"
    REFUSE = "refuse"
    APPROVAL = "needs-approval"


class Effect(enum.StrEnum):
    """What a reason does to the verdict."""

    PERMIT = "permit"
    FORBID = "forbid"
    APPROVAL = "approval"
    """Refuses until a human has approved."""
    APPROVED = "approved"
    """Would ask for approval, which a human has given."""
    ABSENT = "no-permit"
    """Nothing permits it."""
    ERROR = "error"
    """It could not be judged, so it is refused."""


class Reason(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One rule's word. `sentence`, `clause`, `source` and `facts` are the operator's own; see `told`."""

    effect: Effect
    code: str
    sentence: str
    rule: str
    """The rule's id."""
    key: str = ""
    """Of a built-in rule: the key that is not met."""
    clause: str = ""
    """What the rule refers to: a paragraph of an agreement, a law."""
    source: str = ""
    """File and line of the rule."""
    facts: dict[str, str] = {}
    change: str = ""
    """What would change it: for a built-in rule the exact bound, for Cedar its `@remedy` or its text."""
    remedy: str = ""
    """What would change it, in words that a partner may read."""
    outcome: Outcome = "return"

    def told(self, network: str, action: Action) -> Refusal:
        """The reason as others get it: the code, a sentence and the remedy, but nothing of the policy's text.

        What a typed rule says is about the terms that the others have too, so they are told that as well.
        """
        facts = {"network": network, "action": action.value}
        why = f": {self.sentence}" if self.key else ""
        said = _TOLD[self.effect].format(network=network, rule=self.rule, why=why)
        return Refusal(self.code, said, facts, self.remedy)


_TOLD = {
    Effect.FORBID: "The policy of {network} does not allow it{why} (rule {rule}).",
    Effect.APPROVAL: "The policy of {network} wants a human's approval first (rule {rule}).",
    Effect.ABSENT: "Nothing in the policy of {network} permits it.",
    Effect.ERROR: "The policy of {network} could not be judged, so it is refused.",
}


class Decision(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one policy says to one request."""

    verdict: Verdict
    action: Action
    policy: str
    """The policy's version: name and digest of its bytes."""
    reasons: tuple[Reason, ...]
    pending: tuple[str, ...] = ()
    """Rules that look at the SBOM, which is not here yet; they are judged when the package is."""

    @property
    def against(self) -> list[Reason]:
        """Every reason why it may not be, as things are."""
        return [r for r in self.reasons if r.effect not in (Effect.PERMIT, Effect.APPROVED)]

    @property
    def outcome(self) -> Outcome:
        """What becomes of a stay that is refused: the harder word wins."""
        return "abort" if any(r.outcome == "abort" for r in self.against) else "return"

    def told(self, network: str) -> list[Refusal]:
        """Every reason against, as others get it; none if it is allowed."""
        return [] if self.verdict is Verdict.ALLOW else [r.told(network, self.action) for r in self.against]


def conclude(action: Action, policy: str, reasons: list[Reason], pending: list[str]) -> Decision:
    """The verdict: an error or a "forbid" refuses, whatever permits; without a permit nothing is allowed.

    Adding a reason that forbids can only make the verdict harder, adding one that permits only softer: each branch
    looks for the presence of one kind, the hard ones first.
    """
    effects = {r.effect for r in reasons}
    if effects & {Effect.ERROR, Effect.FORBID} or Effect.PERMIT not in effects:
        verdict = Verdict.REFUSE
    elif Effect.APPROVAL in effects:
        verdict = Verdict.APPROVAL
    else:
        verdict = Verdict.ALLOW
    return Decision(verdict=verdict, action=action, policy=policy, reasons=tuple(reasons), pending=tuple(pending))
