"""From a partner: every request on its listeners is checked, then handed to a keeper or a function of the node."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.functions.n32 import checks, paths
from outrider.functions.n32.meter import Meter
from outrider.sbi import headers as names
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem, refusal_response

NOT_SENT = "outrider-not-sent"
"""Response header of a 504: `true` if the request certainly reached nobody, so it had no effect."""

LOG_INTERVAL_S = 1.0
"""A hostile partner must not fill the disk: each cause of refusal is logged at most so often, all are counted."""

_log = structlog.get_logger(__name__)

Keepers = Callable[[str], str | None]
"""apiRoot of the keeper of a service here; None if this network does not host the service."""


class Inbound:
    """The handler of one listener of one partner."""

    def __init__(
        self,
        partner: NetworkId,
        channel: paths.Channel,
        *,
        own: NetworkId,
        keepers: Keepers,
        local: Handler,
        client: SbiClient,
        meter: Meter,
    ) -> None:
        self._partner = partner
        self._channel: paths.Channel = channel
        self._own = own
        self._keepers = keepers
        self._local = local
        self._client = client
        self._meter = meter
        self._logged_s: dict[str, float] = {}
        self.closed = False
        """Set when the link is taken down: connections that are still open get no further."""

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the partner."""
        if self.closed:
            return problem(503, "NF_CONGESTION", f"{self._own} has closed this link.", headers=[(NOT_SENT, "true")])
        size = len(request.body)
        way = self._admit(request, size)
        if isinstance(way, Refusal):
            return self._refuse(request, way)
        taken = self._meter.enter(size, paced=way.paced)
        if taken is not None:
            response = self._refuse(request, taken)
            response.headers.append(("retry-after", "1"))
            return response
        answered = 0
        try:
            service = paths.service_of(request.path)
            response = await (self._to_function(request) if service is None else self._to_keeper(request, service))
            answered = len(response.body)
            return response
        finally:
            self._meter.leave(size, answered)

    def _admit(self, request: Request, size: int) -> paths.Way | Refusal:
        """The checks, in this order: path, size, the network that it names, the network that its token names."""
        way = paths.way(self._channel, request.method, request.path)
        if way is None:
            return Refusal(
                "PATH_NOT_ALLOWED",
                f"{request.method} {request.path} does not cross the border on the {self._channel} listener.",
            )
        if size > way.body_bytes:
            return Refusal(
                "PAYLOAD_TOO_LARGE",
                f"A body for {request.path} may have {way.body_bytes} bytes, this one has {size}.",
                status=413,
            )
        return checks.origin(request.headers, self._partner) or checks.token(request.headers, self._partner) or way

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        self._meter.refused[refusal.code] += 1
        now = time.monotonic()
        if now - self._logged_s.get(refusal.code, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged_s[refusal.code] = now
            _log.warning(
                "border.refused",
                partner=str(self._partner),
                channel=self._channel,
                method=request.method,
                path=request.path[:200],
                cause=refusal.code,
                sentence=refusal.sentence,
                times=self._meter.refused[refusal.code],
            )
        return refusal_response(refusal)

    async def _to_function(self, request: Request) -> Response:
        """To a function in this process, with the headers as checked."""
        kept = {k: v for k, v in request.headers.items() if k not in checks.HOP and k != names.TARGET_API_ROOT}
        response = await self._local(Request(request.method, request.path, request.query, kept, request.body))
        return Response(response.status, self._hide(checks.backward(response.headers)), response.body)

    async def _to_keeper(self, request: Request, service: str) -> Response:
        root = self._keepers(service)
        if root is None:
            return problem(
                404,
                "SERVICE_NOT_HOSTED",
                f"{self._own} hosts no service {service!r}.",
                headers=[(NOT_SENT, "true")],
                notSent=True,
            )
        url = root + request.path + (f"?{request.query}" if request.query else "")
        limit_ms = limits.PARTNER_LIMIT_MS if self._channel == "bulk" else limits.FORWARD_LIMIT_MS
        try:
            response = await self._client.request(
                request.method,
                url,
                headers=checks.onward(request.headers, self._partner),
                body=request.body,
                timeout_s=limit_ms / 1000,
            )
        except Unreachable as error:
            return unreachable(f"The keeper of {service!r} at {self._own} did not answer.", error)
        return Response(response.status, self._hide(checks.backward(response.headers)), response.body)

    def _hide(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Internal addresses stay inside: an absolute Location becomes one under this network's domain."""
        for i, (name, value) in enumerate(headers):
            if name.lower() == "location" and value.startswith(("http://", "https://")):
                parts = urlsplit(value)
                rest = parts.path + (f"?{parts.query}" if parts.query else "")
                headers[i] = (name, f"https://{self._own.domain}{rest}")
        return headers


def unreachable(sentence: str, error: Unreachable) -> Response:
    """504 with what is known about the request's effect: certainly none, or unknown."""
    certain = "It had no effect." if error.not_sent else "Whether it had an effect is unknown."
    return problem(
        504,
        "TARGET_NF_NOT_REACHABLE",
        f"{sentence} {certain} ({error})",
        headers=[(NOT_SENT, "true" if error.not_sent else "false")],
        notSent=error.not_sent,
    )
