"""The NRF's client: keeps NF instances registered, and finds those of others."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode

import jsonpatch
import msgspec
import structlog

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused
from outrider.functions.nrf.profile import Document
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from
from outrider.sbi.tokens import TokenSource

HEARTBEAT_SHARE = 0.5
"""Heartbeats come at this share of the timer that the NRF gives: Open5GS removes one second after it has run out."""

RETRY_S = 1.0
"""Pause after a heartbeat that did not get through."""

RESULTS = 256
"""Discovery results kept at a time."""

_log = structlog.get_logger(__name__)


@dataclass
class _Registration:
    profile: Document
    timer_s: float
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    beating: asyncio.Task[None] | None = None


class _Result(NamedTuple):
    until_s: float
    etag: str | None
    instances: list[Document]


class _Found(msgspec.Struct, rename="camel"):
    nf_instances: list[Document]


class NrfClient:
    """Registrations and discovery at one NRF. `tokens`, where given, authorizes both."""

    def __init__(
        self,
        client: SbiClient,
        nrf_root: str,
        *,
        tokens: TokenSource | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._root = nrf_root.rstrip("/")
        self._tokens = tokens
        self._sleep = sleep
        self._steady_s = steady_s
        self._registrations: dict[str, _Registration] = {}
        self._results: dict[str, _Result] = {}

    async def register(self, profile: Document) -> Document:
        """Register an instance and keep it so; returns the profile as the NRF has it.

        `Refused` if the NRF does not take it, `Unreachable` if it does not answer. Registering again replaces.
        """
        identity = profile["nfInstanceId"]
        await self._end(identity)
        registration = _Registration(profile, 0.0)
        stored = await self._put(registration)
        self._registrations[identity] = registration
        registration.beating = asyncio.create_task(self._beat(registration), name=f"nrf-heartbeat:{identity}")
        return stored

    async def update(self, nf_instance_id: str, patch: Sequence[dict[str, Any]]) -> None:
        """Apply a JSON Patch to a registered instance, here and at the NRF."""
        registration = self._registrations[nf_instance_id]
        async with registration.changing:
            patched: Document = jsonpatch.JsonPatch(patch).apply(registration.profile)
            answer = await self._patch(nf_instance_id, patch)
            registration.profile = patched
            if answer.status == 404:
                await self._put(registration)
            elif answer.status not in (200, 204):
                raise Refused(refusal_from(answer, "The NRF did not take the change."))

    async def set_status(self, nf_instance_id: str, status: str) -> None:
        """Set the status of an instance and of all its services: `REGISTERED`, `UNDISCOVERABLE`, …"""
        profile = self._registrations[nf_instance_id].profile
        patch = [{"op": "replace", "path": "/nfStatus", "value": status}]
        patch += [
            {"op": "replace", "path": f"/nfServices/{index}/nfServiceStatus", "value": status}
            for index in range(len(profile.get("nfServices", ())))
        ]
        patch += [
            {"op": "replace", "path": f"/nfServiceList/{_escaped(name)}/nfServiceStatus", "value": status}
            for name in profile.get("nfServiceList", {})
        ]
        await self.update(nf_instance_id, patch)

    async def deregister(self, nf_instance_id: str) -> None:
        """End a registration; it is no error if the NRF does not know it."""
        await self._end(nf_instance_id)
        answer = await self._request("DELETE", f"/nnrf-nfm/v1/nf-instances/{nf_instance_id}", "nnrf-nfm")
        if answer.status not in (200, 204, 404):
            raise Refused(refusal_from(answer, "The NRF did not deregister the instance."))

    async def close(self) -> None:
        """Stop the heartbeats; the registrations run out by themselves."""
        for identity in tuple(self._registrations):
            await self._end(identity)

    async def discover(
        self,
        target_nf_type: str,
        requester_nf_type: str,
        *,
        service_names: Sequence[str] = (),
        target_nf_instance_id: str | None = None,
        requester_nf_instance_id: str | None = None,
        target: NetworkId | None = None,
        requester: NetworkId | None = None,
        snssais: Sequence[dict[str, Any]] = (),
        dnn: str | None = None,
        tai: dict[str, Any] | None = None,
        supi: str | None = None,
        preferred_locality: str | None = None,
        limit: int | None = None,
    ) -> list[Document]:
        """The instances that fit, best first; kept as long as the NRF allows. `Refused` or `Unreachable` otherwise."""
        pairs: dict[str, Any] = {
            "target-nf-type": target_nf_type,
            "requester-nf-type": requester_nf_type,
            "service-names": ",".join(service_names),
            "target-nf-instance-id": target_nf_instance_id,
            "requester-nf-instance-id": requester_nf_instance_id,
            "snssais": _json(list(snssais)),
            "dnn": dnn,
            "tai": _json(tai),
            "supi": supi,
            "preferred-locality": preferred_locality,
            "limit": limit,
        }
        for network, plmns, snpns, many in (
            (target, "target-plmn-list", "target-snpn", False),
            (requester, "requester-plmn-list", "requester-snpn-list", True),
        ):
            if network is not None:
                one = network.plmn_id()
                pairs[snpns if network.nid else plmns] = _json(one if network.nid and not many else [one])
        query = urlencode({name: value for name, value in pairs.items() if value})
        return await self._search(query, frozenset(service_names))

    async def _search(self, query: str, names: frozenset[str]) -> list[Document]:
        held = self._results.get(query)
        if held is not None and held.until_s > self._steady_s():
            return held.instances
        validator = [("if-none-match", held.etag)] if held is not None and held.etag else []
        asked_s = self._steady_s()
        answer = await self._request("GET", f"/nnrf-disc/v1/nf-instances?{query}", "nnrf-disc", headers=validator)
        if answer.status == 304 and held is not None:
            instances = held.instances
        elif answer.status == 200:
            found = msgspec.json.decode(answer.body, type=_Found).nf_instances
            instances = [one for one in found if not names or _services(one, names)]
        else:
            raise Refused(refusal_from(answer, "The NRF did not answer the search."))
        if len(self._results) >= RESULTS:
            del self._results[next(iter(self._results))]
        self._results[query] = _Result(asked_s + _max_age_s(answer), answer.header("etag"), instances)
        return instances

    async def _put(self, registration: _Registration) -> Document:
        path = f"/nnrf-nfm/v1/nf-instances/{registration.profile['nfInstanceId']}"
        answer = await self._request("PUT", path, "nnrf-nfm", json=registration.profile)
        if answer.status not in (200, 201):
            raise Refused(refusal_from(answer, "The NRF did not register the instance."))
        stored: Document = answer.json()
        registration.timer_s = float(stored.get("heartBeatTimer", 10))
        return stored

    async def _patch(self, identity: str, patch: Sequence[dict[str, Any]]) -> Response:
        return await self._request(
            "PATCH",
            f"/nnrf-nfm/v1/nf-instances/{identity}",
            "nnrf-nfm",
            headers=[("content-type", "application/json-patch+json")],
            json=list(patch),
        )

    async def _beat(self, registration: _Registration) -> None:
        identity = registration.profile["nfInstanceId"]
        pause_s = registration.timer_s * HEARTBEAT_SHARE
        while True:
            await self._sleep(pause_s)
            try:
                async with registration.changing:
                    status = registration.profile["nfStatus"]
                    answer = await self._patch(identity, [{"op": "replace", "path": "/nfStatus", "value": status}])
                    if answer.status == 404:  # the NRF has lost us: it was restarted, or we were away
                        await self._put(registration)
                pause_s = registration.timer_s * HEARTBEAT_SHARE
            except (Unreachable, Refused, msgspec.DecodeError) as error:
                _log.warning("heartbeat failed", nf_instance=identity, error=str(error))
                pause_s = min(RETRY_S, registration.timer_s * HEARTBEAT_SHARE)

    async def _end(self, identity: str) -> None:
        registration = self._registrations.pop(identity, None)
        if registration is not None and registration.beating is not None:
            registration.beating.cancel()
            await asyncio.gather(registration.beating, return_exceptions=True)

    async def _request(
        self,
        method: str,
        path: str,
        scope: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        json: object = msgspec.UNSET,
    ) -> Response:
        sent = list(headers)
        if self._tokens is not None:
            sent.append(("authorization", await self._tokens.bearer(scope=scope, target_nf_type="NRF")))
        return await self._client.request(method, self._root + path, headers=sent, json=json)


def api_roots(profile: Document, service_name: str) -> list[str]:
    """Where a service of a discovered instance is reached: `{apiRoot}` of each of its endpoints.

    A service without addresses of its own has those of its NF (TS 29.510 §6.1.6.2.3).
    """
    roots: list[str] = []
    for service in _services(profile, {service_name}):
        points = service.get("ipEndPoints") or [{}]
        for point in points:
            host = point.get("ipv4Address") or (f"[{point['ipv6Address']}]" if "ipv6Address" in point else None)
            host = host or service.get("fqdn") or profile.get("fqdn")
            if host is None:
                host = next(iter(profile.get("ipv4Addresses", ())), None)
            if host is None:
                host = next((f"[{one}]" for one in profile.get("ipv6Addresses", ())), None)
            if host is not None:
                port = f":{point['port']}" if "port" in point else ""
                roots.append(f"{service['scheme']}://{host}{port}{service.get('apiPrefix', '').rstrip('/')}")
    return roots


def _services(profile: Document, names: frozenset[str] | set[str]) -> list[Document]:
    """Services with one of these names, in whichever form the NRF gave them; some NRFs do not filter themselves."""
    services = list(profile.get("nfServiceList", {}).values()) or profile.get("nfServices", [])
    return [one for one in services if one.get("serviceName") in names]


def _json(value: Any) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _max_age_s(answer: Response) -> float:
    for directive in (answer.header("cache-control") or "").split(","):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age" and value.isdigit():
            return float(value)
    return 0.0
