"""Whether this network hosts software that a partner offers: the one place where supply rules and policy meet.

The supply rules (`[supply]`) say what software may be like, whoever it comes from; the policy says what may happen with
it. Both are asked twice, at the offer, when only manifest and digests are known, and when the package has come, and
all their reasons are told together.
"""

from collections.abc import Sequence

from outrider.core.refusal import Refusal
from outrider.decide.policy.request import Action
from outrider.functions.lmsf.runner import Runner


async def against(r: Runner, action: Action, terms: Sequence[Refusal] = ()) -> list[Refusal]:
    """Every reason of this operator against an action: the given ones, of the software, then of the policy.

    Raises:
        Refused: only a human's word is missing (503); to be tried again.
    """
    reasons = [*terms]
    if action is Action.HOST:
        reasons += await r.tools.catalogue.hosting(r.record.manifest, r.contract.package_digest, r.contract.sbom_digest)
    if reasons:  # a human is asked only about what nothing else is against
        return reasons + (await r.judged(action)).told(r.tools.network)
    return await r.allowed(action)
