"""What LMSFs say to each other before anything is prepared: the offer, its answers, and all permissions."""

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.request import Action
from outrider.functions.lmsf.negotiation import check_answer
from outrider.functions.lmsf.record import Agreed, Exchange, Offer
from outrider.functions.lmsf.runner import Runner
from outrider.protocol import migration as machine
from outrider.protocol.phase import Role
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from, refusals_from


def _busy(response: Response, partner: str) -> None:
    """Answers that say nothing about the request are as good as none."""
    if response.status in (401, 429, 500, 502, 503, 504):
        refusal = refusal_from(response, "")
        if refusal.code == "APPROVAL_PENDING":
            raise Unreachable(f"{refusal.sentence} {refusal.remedy}", not_sent=False)
        raise Unreachable(f"{partner} answers {response.status}", not_sent=False)


async def send_offer(r: Runner) -> None:
    """Lead: send the offer; the answer is the same contract, signed by all who have had it.

    Where another network gives, that one signs first: the target then sees that the source agrees.
    """
    contract = r.record.contract
    if reasons := await r.allowed(Action.ONWARD if r.contract.onward else Action.SEND):
        _refuse(r, machine.OfferJudged, reasons, r.tools.network)
        return
    changes: dict[str, str] = {}
    signed = [r.tools.network]
    for partner in reversed(r.partners):
        signed.append(partner)
        agreed = await _offer(r, partner, contract, changes.get("other_store_id", ""))
        refusal = agreed if isinstance(agreed, list) else None
        if isinstance(agreed, Agreed):
            wrong = check_answer(r.contract, agreed.contract, r.tools.permissions.keys, signed)
            refusal = [wrong] if wrong is not None else None
        if refusal is not None:
            _refuse(r, machine.OfferJudged, refusal, partner)
            return
        assert isinstance(agreed, Agreed)
        contract = agreed.contract
        if partner != r.partner:
            changes["other_store_id"] = agreed.store_id
    r.post(machine.OfferJudged(), contract=contract, **changes)


async def _offer(r: Runner, partner: str, contract: str, other_store_id: str) -> Agreed | list[Refusal]:
    record = r.record
    offer = Offer(
        migration_id=r.id,
        contract=contract,
        manifest=record.manifest,
        package_bytes=record.package_bytes,
        other_store_id=other_store_id,
    )
    response = await r.tools.partners.request(
        partner, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer
    )
    if response.status not in (200, 201):
        _busy(response, partner)
        return refusals_from(response, f"{partner} does not take the offer.")
    return msgspec.json.decode(response.body, type=Agreed)


def _refuse(r: Runner, event: type, reasons: list[Refusal], by: str) -> None:
    ending = r.ending(reasons[0].code, reasons[0].sentence, by=by)
    r.post(event(ending), refusals=reasons)


async def judge_offer(r: Runner) -> None:
    """Target, giver: check the terms; sign them if there is nothing against."""
    tools, record = r.tools, r.record
    partner = tools.partners.get(r.partner)
    if partner is None:
        raise Refused(Refusal("PARTNER_UNKNOWN", f"{r.partner} is no partner of this network any more."))
    now_ms = tools.clock.now_ms()
    reasons = tools.negotiation.judge(r.contract, record.manifest, record.package_bytes, now_ms)
    action = Action.ONWARD if r.row.role is Role.GIVER else Action.HOST
    if reasons := await r.allowed(action, reasons):
        _refuse(r, machine.OfferJudged, reasons, tools.network)
        return
    signed = tools.negotiation.sign(record.contract)
    if isinstance(signed, Refusal):
        _refuse(r, machine.OfferJudged, [signed], tools.network)
        return
    r.post(machine.OfferJudged(), contract=signed)


async def check_permissions(r: Runner) -> None:
    """Lead: exchange permissions with the others; all sides judge the same ones, and each its own policy.

    Where there are three, home asks each for its own first, judges them, and then gives them all to each.
    """
    tools, presented = r.tools, []
    if reasons := await r.allowed(Action.SIGN):
        _refuse(r, machine.Judged, reasons, tools.network)
        return
    three = len(r.partners) > 1
    for partner in r.partners if three else ():
        answer = await _exchange(r, "GET", partner)
        if isinstance(answer, list):
            _refuse(r, machine.Judged, answer, partner)
            return
        presented += await tools.permissions.take(answer, partner)
    if three:
        alone = tools.permissions.judge(r.contract, r.record.manifest, instances=1, presented=presented)
        if isinstance(alone, list):
            _refuse(r, machine.Judged, alone, tools.network)
            return
    against: list[tuple[str, list[Refusal]]] = []
    for partner in r.partners:
        given = tools.permissions.exchange(r.record.service, *(p for p in r.contract.parties if p != partner))
        if three:
            given = msgspec.structs.replace(given, contract=r.record.contract)
        answer = await _exchange(r, "PUT", partner, given)
        if isinstance(answer, list):
            _refuse(r, machine.Judged, answer, partner)
            return
        presented += await tools.permissions.take(answer, partner)
        against.append((partner, answer.refusals))
    verdict = tools.permissions.judge(r.contract, r.record.manifest, instances=1, presented=presented)
    against.insert(0, (tools.network, verdict if isinstance(verdict, list) else []))
    every: list[Refusal] = []
    for _, more in against:
        said = {(reason.code, reason.facts.get("network")) for reason in every}
        every += [reason for reason in more if (reason.code, reason.facts.get("network")) not in said]
    if every:
        _refuse(r, machine.Judged, every, next(network for network, more in against if more))
        return
    r.post(machine.Judged())


async def _exchange(r: Runner, method: str, partner: str, given: object = msgspec.UNSET) -> Exchange | list[Refusal]:
    path = f"/nlmsf-permission/v1/migrations/{r.id}/exchange"
    response = await r.tools.partners.request(partner, method, path, scope="nlmsf-permission", json=given)
    if response.status != 200:
        _busy(response, partner)
        return refusals_from(response, f"{partner} does not exchange permissions.")
    return msgspec.json.decode(response.body, type=Exchange)
