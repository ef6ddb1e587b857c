"""What the AMF and the SMF have in common: routes that check tokens, and subscriptions to events."""

import datetime as dt
from collections.abc import Callable, Iterable

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.functions.basic.events import Subscription, Subscriptions, Target, utc_now
from outrider.functions.basic.model import openapi
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem, refusal_response
from outrider.sbi.router import Router
from outrider.sbi.tokens import TokenVerifier


class BasicNf:
    """An NF of the basic part; `router` answers for it."""

    nf_type: str
    basic: str
    """The API that stands in for N1, N2 and N4."""
    events: str
    """The API of its event exposure."""
    event_types: frozenset[str]

    def __init__(
        self,
        network: NetworkId,
        instance_id: str,
        *,
        verifier: TokenVerifier,
        client: SbiClient,
        root: str,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._network = network
        self._instance_id = instance_id
        self._verifier = verifier
        self._root = root
        self._now = now
        self._audience = {self.nf_type, instance_id}
        self.subscriptions = Subscriptions(client, now)
        self.router = Router()
        self.router.add("GET", f"/{self.basic}/v1/openapi.yaml", openapi(self.basic))
        self._route("DELETE", self.events, "/subscriptions/{subscriptionId}", self._unsubscribe)
        self._begin()

    def _begin(self) -> None:
        """Make the NF's own state and routes."""
        raise NotImplementedError

    async def close(self) -> None:
        """End what still runs."""
        await self.subscriptions.close()

    def _route(self, method: str, api: str, template: str, handler: Handler) -> None:
        """Answer what comes with a token for the API."""

        async def checked(request: Request) -> Response:
            claims = self._verifier.verify(request.headers.get("authorization"), audience=self._audience, scope=api)
            return refusal_response(claims) if isinstance(claims, Refusal) else await handler(request)

        self.router.add(method, f"/{api}/v1{template}", checked)

    def _uri(self, api: str, *path: str) -> str:
        return "/".join((self._root, api, "v1", *path))

    def _unsupported(self, asked: Iterable[str], where: str) -> Response | None:
        """The answer to a subscription to events that this NF does not report."""
        wrong = [event for event in asked if event not in self.event_types]
        if not wrong:
            return None
        said = f"This {self.nf_type} reports {', '.join(sorted(self.event_types))}."
        return problem(400, "MANDATORY_IE_INCORRECT", said, invalid_params=[(where, f"{wrong[0]} is not supported")])

    def _keep(self, subscription: Subscription) -> Response | None:
        """Take a subscription unless its first reports were all; the answer if there are too many."""
        refused = None if subscription.over(self._now()) else self.subscriptions.add(subscription)
        return None if refused is None else refusal_response(refused)

    async def _unsubscribe(self, request: Request) -> Response:
        return Response(204) if self.subscriptions.remove(request.params["subscriptionId"]) else self._not_subscribed()

    def _not_subscribed(self) -> Response:
        return problem(404, "SUBSCRIPTION_NOT_FOUND", f"This {self.nf_type} has no such subscription.")


def not_one(target: Target, names: str) -> Response | None:
    """The answer to a subscription that does not say whom it is about; `names` are what it can say that with."""
    if (target.supi is not None) + (target.group is not None) + target.any_ue == 1:
        return None
    return problem(400, "MANDATORY_IE_INCORRECT", f"Exactly one of {names} says whom it is about.")
