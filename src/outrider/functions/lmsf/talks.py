"""What two LMSFs say to each other before anything is prepared: the offer, its answer, and both permissions."""

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.negotiation import check_answer
from outrider.functions.lmsf.record import Agreed, Exchange, Offer
from outrider.functions.lmsf.runner import Runner
from outrider.protocol import migration as machine
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from


class _Refusals(msgspec.Struct):
    refusals: list[Refusal] = []


def refusals_from(response: Response, otherwise: str) -> list[Refusal]:
    """Every reason that a partner's refusal gives, the one that it is about first."""
    first = refusal_from(response, otherwise)
    try:
        more = msgspec.json.decode(response.body, type=_Refusals).refusals
    except msgspec.DecodeError:
        more = []
    return more or [first]


def _busy(response: Response, partner: str) -> None:
    """Answers that say nothing about the request are as good as none."""
    if response.status in (401, 429, 500, 502, 503, 504):
        raise Unreachable(f"{partner} answers {response.status}", not_sent=False)


async def send_offer(r: Runner) -> None:
    """Source: send the offer; the answer is the same contract, signed by both."""
    record, partner = r.record, r.partner
    offer = Offer(
        migration_id=r.id, contract=record.contract, manifest=record.manifest, package_bytes=record.package_bytes
    )
    response = await r.tools.partners.request(
        partner, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer
    )
    if response.status not in (200, 201):
        _busy(response, partner)
        reasons = refusals_from(response, f"{partner} does not take the offer.")
        _refuse(r, machine.OfferJudged, reasons, partner)
        return
    agreed = msgspec.json.decode(response.body, type=Agreed)
    refusal = check_answer(r.contract, agreed.contract, r.tools.permissions.keys)
    if refusal is not None:
        _refuse(r, machine.OfferJudged, [refusal], partner)
        return
    r.post(machine.OfferJudged(), contract=agreed.contract)


def _refuse(r: Runner, event: type, reasons: list[Refusal], by: str) -> None:
    ending = r.ending(reasons[0].code, reasons[0].sentence, by=by)
    r.post(event(ending), refusals=reasons)


async def judge_offer(r: Runner) -> None:
    """Target: check the terms; sign them if there is nothing against."""
    tools, record = r.tools, r.record
    partner = tools.partners.get(r.partner)
    if partner is None:
        raise Refused(Refusal("PARTNER_UNKNOWN", f"{r.partner} is no partner of this network any more."))
    now_ms = tools.clock.now_ms()
    reasons = tools.negotiation.judge(r.contract, record.manifest, partner, record.package_bytes, now_ms)
    if reasons:
        _refuse(r, machine.OfferJudged, reasons, tools.network)
        return
    signed = tools.negotiation.sign(record.contract)
    if isinstance(signed, Refusal):
        _refuse(r, machine.OfferJudged, [signed], tools.network)
        return
    r.post(machine.OfferJudged(), contract=signed)


async def check_permissions(r: Runner) -> None:
    """Source: exchange permissions with the target; both sides judge the same ones."""
    tools, partner = r.tools, r.partner
    response = await tools.partners.request(
        partner,
        "PUT",
        f"/nlmsf-permission/v1/migrations/{r.id}/exchange",
        scope="nlmsf-permission",
        json=tools.permissions.exchange(r.record.service),
    )
    if response.status != 200:
        _busy(response, partner)
        _refuse(r, machine.Judged, refusals_from(response, f"{partner} does not exchange permissions."), partner)
        return
    answer = msgspec.json.decode(response.body, type=Exchange)
    presented = await tools.permissions.take(answer, partner)
    verdict = tools.permissions.judge(r.contract, r.record.manifest, instances=1, presented=presented)
    own = verdict if isinstance(verdict, list) else []
    if own or answer.refusals:
        said = {reason.code for reason in own}
        reasons = [*own, *(reason for reason in answer.refusals if reason.code not in said)]
        _refuse(r, machine.Judged, reasons, tools.network if own else partner)
        return
    r.post(machine.Judged())
