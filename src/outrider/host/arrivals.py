"""Hears of UEs that register with this network, from the basic part's own event exposure, and asks for their contexts.

The host subscribes at the AMFs that this network's NRF names, as any consumer may (Namf_EventExposure, TS 29.518
§5.3): registration state, any UE. So a context is here, as a rule, before the UE's first request is; and a UE that
turns back brings its context back home. An AMF that cannot be subscribed to is asked again; the first request of a UE
asks for its context in any case.
"""

import asyncio
import datetime as dt
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from outrider.core import limits
from outrider.core.refusal import Refused
from outrider.functions.nrf.client import NrfClient, api_roots
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.tokens import TokenSource

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

EVENTS = "namf-evts"
PATH = "outrider-arrivals"


class _Rm(msgspec.Struct, rename="camel"):
    rm_state: str


class _Report(msgspec.Struct, rename="camel"):
    type: str
    supi: str | None = None
    rm_info_list: list[_Rm] = []


class _Notification(msgspec.Struct, rename="camel"):
    report_list: list[_Report] = []


_notification = msgspec.json.Decoder(_Notification)


class Arrivals:
    """The subscription of one host, kept alive."""

    def __init__(self, host: "Host", client: SbiClient, nrf: NrfClient, tokens: TokenSource) -> None:
        self._host = host
        self._client = client
        self._nrf = nrf
        self._tokens = tokens
        self._secret = secrets.token_urlsafe(24)
        self._task: asyncio.Task[None] | None = None
        self._subscribed: dict[str, float] = {}

    def start(self, root: str) -> None:
        """Subscribe; notifications come to a path below `root` that nobody can guess."""
        uri = f"{root}/{PATH}/v1/{self._secret}"
        self._task = asyncio.create_task(self._run(uri), name="arrivals")
        self._task.add_done_callback(self._host.ended)

    async def close(self) -> None:
        """Let the subscription run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def __call__(self, request: Request) -> Response:
        """A notification of the AMF."""
        if not secrets.compare_digest(request.path.rpartition("/")[2], self._secret):
            return Response(404)
        for report in _notification.decode(request.body).report_list:
            if report.supi is not None and any(rm.rm_state == "REGISTERED" for rm in report.rm_info_list):
                self._host.identities.registered(report.supi)
        return Response(204)

    async def _run(self, uri: str) -> None:
        while True:
            try:
                await self._look(uri)
            except (Unreachable, Refused) as error:
                log.info("arrivals.not-subscribed", why=str(error))
            await asyncio.sleep(limits.ARRIVALS_LOOK_S)

    async def _look(self, uri: str) -> None:
        """Subscribe at each AMF that is not subscribed to, or whose subscription runs out soon."""
        now_s = self._host.now_s()
        for profile in await self._nrf.discover("AMF", "LMSF", service_names=[EVENTS]):
            for root in api_roots(profile, EVENTS):
                if self._subscribed.get(root, 0.0) < now_s + 2 * limits.ARRIVALS_LOOK_S:
                    await self._subscribe(root, uri)
                    self._subscribed[root] = now_s + limits.ARRIVALS_EXPIRY_S

    async def _subscribe(self, root: str, uri: str) -> None:
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=limits.ARRIVALS_EXPIRY_S)
        subscription: dict[str, Any] = {
            "eventList": [{"type": "REGISTRATION_STATE_REPORT"}],
            "eventNotifyUri": uri,
            "notifyCorrelationId": self._host.config.service,
            "nfId": self._host.config.keeper_instance_id,
            "anyUE": True,
            "options": {"trigger": "CONTINUOUS", "expiry": expiry.isoformat()},
        }
        bearer = await self._tokens.bearer(scope=EVENTS, target_nf_type="AMF")
        answer = await self._client.request(
            "POST",
            f"{root}/{EVENTS}/v1/subscriptions",
            headers=[("authorization", bearer)],
            json={"subscription": subscription},
        )
        if answer.status != 201:
            raise Unreachable(f"{root} answered {answer.status} {answer.body[:200]!r}", not_sent=False)
        log.info("arrivals.subscribed", amf=root)
