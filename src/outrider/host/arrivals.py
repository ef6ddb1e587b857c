"""Hears of UEs that register with this network, from the basic part's own event exposure, and asks for their contexts.

The host subscribes at the AMFs that this network's NRF names, as any consumer may (Namf_EventExposure, TS 29.518
§5.3): registration state, any UE. So a context is here, as a rule, before the UE's first request is; and a UE that
turns back brings its context back home. An AMF that cannot be subscribed to is asked again; the first request of a UE
asks for its context in any case.

A subscription outlives the keeper that made it, and its callback does not. So each is noted in the store, and a keeper
that comes after a crash ends those of the one before it, as soon as it has its own.
"""

import asyncio
import contextlib
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
from outrider.store.port import SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

EVENTS = "namf-evts"
PATH = "outrider-arrivals"

_NOTED = "amf-subscription:"
"""Names of the values that note subscriptions, before their ids."""


class _Rm(msgspec.Struct, rename="camel"):
    rm_state: str


class _Report(msgspec.Struct, rename="camel"):
    type: str
    supi: str | None = None
    rm_info_list: list[_Rm] = []


class _Notification(msgspec.Struct, rename="camel"):
    report_list: list[_Report] = []


_notification = msgspec.json.Decoder(_Notification)


class _Subscription(msgspec.Struct, frozen=True):
    """One subscription, as it is noted; times are UTC, for it outlives this process."""

    id: str
    root: str
    until_ms: int

    @property
    def uri(self) -> str:
        return f"{self.root}/{EVENTS}/v1/subscriptions/{self.id}"


class Arrivals:
    """The subscriptions of one host, one at each AMF, kept alive."""

    def __init__(self, host: "Host", client: SbiClient, nrf: NrfClient, tokens: TokenSource) -> None:
        self._host = host
        self._client = client
        self._nrf = nrf
        self._tokens = tokens
        self._secret = secrets.token_urlsafe(24)
        self._task: asyncio.Task[None] | None = None
        self._live: dict[str, _Subscription] = {}
        noted = host.store.values(_NOTED).values()
        self._over = {s.id: s for s in (msgspec.json.decode(value, type=_Subscription) for value in noted)}

    def start(self, root: str) -> None:
        """Subscribe; notifications come to a path below `root` that nobody can guess."""
        uri = f"{root}/{PATH}/v1/{self._secret}"
        self._task = asyncio.create_task(self._run(uri), name="arrivals")
        self._task.add_done_callback(self._host.ended)

    async def close(self) -> None:
        """End the subscriptions, where the AMF answers at once; else they run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Unreachable, Refused, TimeoutError):
            async with asyncio.timeout(limits.ARRIVALS_END_MS / 1000):
                for subscription in self._live.values():
                    await self._end(subscription)

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
        """Subscribe at each AMF that is not subscribed to, or whose subscription runs out soon; then end older ones."""
        soon_ms = self._host.utc_ms() + 2_000 * limits.ARRIVALS_LOOK_S
        for profile in await self._nrf.discover("AMF", "LMSF", service_names=[EVENTS]):
            for root in api_roots(profile, EVENTS):
                live = self._live.get(root)
                if live is None or live.until_ms < soon_ms:
                    self._live[root] = await self._subscribe(root, uri)
                    if live is not None:
                        self._over[live.id] = live
                for old in [s for s in self._over.values() if s.root == root]:
                    await self._end(old)
        for old in [s for s in self._over.values() if s.until_ms < self._host.utc_ms()]:
            await self._forget(old)

    async def _end(self, old: _Subscription) -> None:
        bearer = await self._tokens.bearer(scope=EVENTS, target_nf_type="AMF")
        answer = await self._client.request("DELETE", old.uri, headers=[("authorization", bearer)])
        if answer.status < 300 or answer.status == 404:
            await self._forget(old)

    async def _forget(self, old: _Subscription) -> None:
        self._over.pop(old.id, None)
        await self._host.committer.submit(SetValue(_NOTED + old.id, None))

    async def _subscribe(self, root: str, uri: str) -> _Subscription:
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
        id_ = (answer.header("location") or "").rpartition("/")[2]
        if answer.status != 201 or not id_:
            raise Unreachable(f"{root} answered {answer.status} {answer.body[:200]!r}", not_sent=False)
        made = _Subscription(id_, root, int(expiry.timestamp() * 1000))
        await self._host.committer.submit(SetValue(_NOTED + made.id, msgspec.json.encode(made)))
        log.info("arrivals.subscribed", amf=root)
        return made
