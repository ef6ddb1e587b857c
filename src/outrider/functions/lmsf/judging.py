"""Whether this operator lets a migration happen: the one place where its supply rules and its policy meet.

The supply rules (`[supply]`) say what software may be like, whoever it comes from; the policy says what may happen with
it. A target asks both at the offer, when only manifest and digests are known, when the package has come, and each
second until something runs from it; all reasons are told together, those of the software first.
"""

from collections.abc import Sequence

from outrider.core.refusal import Refusal
from outrider.decide.policy.policy import BEFORE_PACKAGE
from outrider.decide.policy.request import Action
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.policies import Case, Policies
from outrider.protocol.phase import Role


async def software(catalogue: Catalogue, case: Case) -> list[Refusal]:
    """Every reason against the software of a migration, where it would be hosted and does not run yet."""
    if case.role is not Role.TARGET or case.phase.value not in BEFORE_PACKAGE:
        return []
    return await catalogue.hosting(case.manifest, case.contract.package_digest, case.contract.sbom_digest)


async def against(
    catalogue: Catalogue, policies: Policies, case: Case, action: Action, terms: Sequence[Refusal] = ()
) -> list[Refusal]:
    """Every reason against an action: the given ones about the terms, of the software, then of the policy.

    Raises:
        Refused: only a human's word is missing (503); to be tried again.
    """
    reasons = [*terms, *await software(catalogue, case)]
    decision = await policies.judge(action, case)
    if reasons:  # a human is asked only about what nothing else is against
        return reasons + policies.told(decision)
    return await policies.awaited(case, decision)
