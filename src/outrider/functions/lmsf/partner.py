"""APIs for one partner: offers, permissions, where each side stands, and the package while it prepares.

Everything that comes here is hostile until it is shown to be the partner's and about a migration with this partner;
one of another network is answered as if it did not exist.
"""

from collections.abc import Callable

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.catalogue import archive_range
from outrider.functions.lmsf.engine import Lmsf
from outrider.functions.lmsf.record import Agreed, Exchange, Offer, View
from outrider.functions.lmsf.runner import Runner
from outrider.functions.lmsf.witness import SignedHead
from outrider.protocol.phase import Phase
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response, problem, refusal_response

_NEGOTIATION = "/nlmsf-negotiation/v1"


def routes(lmsf: Lmsf, network: str, add: Callable[[str, str, Handler], None]) -> None:
    """Add everything that the partner may ask."""
    api = FromPartner(lmsf, network)
    add("POST", f"{_NEGOTIATION}/offers", api.offer)
    add("GET", f"{_NEGOTIATION}/migrations/{{migrationId}}/view", api.view)
    add("PUT", f"{_NEGOTIATION}/migrations/{{migrationId}}/view", api.told)
    add("GET", "/nlmsf-permission/v1/migrations/{migrationId}/exchange", api.own_permissions)
    add("PUT", "/nlmsf-permission/v1/migrations/{migrationId}/exchange", api.exchange)
    add("POST", "/nlmsf-permission/v1/revocations", api.revoke)
    add("GET", "/nlmsf-catalogue/v1/packages/{packageDigest}/archive", api.archive)
    add("PUT", "/nlmsf-audit/v1/migrations/{migrationId}/heads", api.countersign)


class FromPartner:
    """The handlers, for one partner."""

    def __init__(self, lmsf: Lmsf, network: str) -> None:
        self._lmsf = lmsf
        self._network = network

    def _find(self, request: Request) -> Runner:
        runner = self._lmsf.get(request.params["migrationId"])
        if runner is None or self._network not in runner.partners:
            raise Refused(Refusal("MIGRATION_UNKNOWN", "There is no such migration with this network.", status=404))
        return runner

    async def offer(self, request: Request) -> Response:
        """Take the terms and sign them, or refuse with every reason."""
        offer = msgspec.json.decode(request.body, type=Offer)
        sender = self._lmsf.partners.get(self._network)
        if sender is None:
            return refusal_response(Refusal("PARTNER_UNKNOWN", f"{self._network} is no partner of this network."))
        answer = await self._lmsf.offered(offer, sender)
        if isinstance(answer, list):
            return refusal_response(*answer)
        if answer.row.phase is Phase.NEGOTIATING:
            if answer.awaited is not None:
                return refusal_response(answer.awaited)
            return problem(503, "NF_CONGESTION", "The offer is still being judged.", headers=[("retry-after", "1")])
        return json_response(201, Agreed(answer.record.contract, answer.record.store_id))

    async def view(self, request: Request) -> Response:
        """Where this side stands."""
        return json_response(200, self._find(request).view(self._network))

    async def told(self, request: Request) -> Response:
        """The partner tells where it stands; the answer tells where this side stands."""
        runner = self._find(request)
        view = msgspec.json.decode(request.body, type=View)
        if view.network != self._network:
            sentence = f"{self._network} tells as {view.network}."
            return refusal_response(Refusal("VIEW_MISMATCH", sentence, {"network": view.network}))
        runner.heard(view)
        return json_response(200, runner.view(self._network))

    async def own_permissions(self, request: Request) -> Response:
        """Home asks for ours, which it gives to the third; nothing is judged yet."""
        runner = self._find(request)
        if runner.row.role.leads:
            return problem(409, "WRONG_SIDE", "Permissions are exchanged by home's request.")
        return json_response(200, self._lmsf.permissions.exchange(runner.record.service))

    async def exchange(self, request: Request) -> Response:
        """Home gives the permissions of all others, and gets ours and what we have against."""
        runner = self._find(request)
        if runner.row.role.leads:
            return problem(409, "WRONG_SIDE", "Permissions are exchanged by home's request.")
        given = msgspec.json.decode(request.body, type=Exchange)
        return json_response(200, await self._lmsf.exchange(runner, given))

    async def revoke(self, request: Request) -> Response:
        """The partner takes a permission back."""
        revocation = await self._lmsf.permissions.revoke(
            request.body.decode(errors="replace"), signers=(self._network,), given_by=self._network
        )
        await self._lmsf.looked()
        return json_response(201, revocation)

    async def archive(self, request: Request) -> Response:
        """A range of the package that this partner prepares."""
        if not self._lmsf.hands_out(request.params["packageDigest"], self._network):
            sentence = "No migration with this network is being prepared from that package."
            return refusal_response(Refusal("PACKAGE_NOT_OFFERED", sentence))
        return await archive_range(self._lmsf.catalogue, request)

    async def countersign(self, request: Request) -> Response:
        """The partner gives the head of its audit log in a phase; it gets it back with this network's signature."""
        runner = self._find(request)
        given = msgspec.json.decode(request.body, type=SignedHead)
        return json_response(200, await self._lmsf.witness.countersign(given, runner, self._network))
