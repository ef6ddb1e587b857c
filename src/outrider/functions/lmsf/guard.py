"""Who may call: tokens of the own NRF, for the scope of each API, from the own network or from one partner."""

from collections.abc import Awaitable, Callable

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.calls import Calls
from outrider.functions.lmsf.clocks import format_timestamp
from outrider.functions.lmsf.ports import Clock
from outrider.sbi import headers
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import refusal_response
from outrider.sbi.router import Router, guarded
from outrider.sbi.tokens import TokenVerifier

NF_TYPE = "LMSF"
"""No NF type of 3GPP; used in tokens and discovery between LMSFs only, never for an NF service of a package."""


class Guard:
    """Puts a check and the audit log before a handler, and the time of sending on its answer."""

    def __init__(
        self, verifier: TokenVerifier, instance_id: str, network: NetworkId, clock: Clock, calls: Calls
    ) -> None:
        self._verifier = verifier
        self._audience = {NF_TYPE, instance_id}
        self._network = network
        self._clock = clock
        self._calls = calls

    def check(self, request: Request, scope: str, consumer: NetworkId) -> Refusal | None:
        """Why the request may not be served; None if its token allows it."""
        claims = self._verifier.verify(request.headers.get("authorization"), audience=self._audience, scope=scope)
        if isinstance(claims, Refusal):
            return claims
        network = claims.consumer or self._network
        if network != consumer:
            return Refusal(
                "CONSUMER_MISMATCH",
                f"The token belongs to {network}; this is for {consumer}.",
                {"token": str(network), "expected": str(consumer)},
            )
        return None

    def routes(self, router: Router, consumer: NetworkId) -> Callable[[str, str, Handler], None]:
        """Adds routes of the `nlmsf-` APIs to a router; the scope is the API's name, the first part of the path."""

        def add(method: str, template: str, handler: Handler) -> None:
            router.add(method, template, self._guarded(template, consumer, handler))

        return add

    def _guarded(
        self, template: str, consumer: NetworkId, handler: Handler
    ) -> Callable[[Request], Awaitable[Response]]:
        scope = template.split("/")[1]

        async def serve(request: Request) -> Response:
            refusal = self.check(request, scope, consumer)
            if refusal is None:
                refusal = await self._calls.asked(request, template, str(consumer))
            response = refusal_response(refusal) if refusal is not None else await guarded(handler, request)
            await self._calls.answered(request, response, str(consumer))
            response.headers.append((headers.SENDER_TIMESTAMP, format_timestamp(self._clock.now_ms())))
            return response

        return serve
