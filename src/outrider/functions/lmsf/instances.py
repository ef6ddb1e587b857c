"""NF instances of deployed services at the own NRF: one instance per NF service, with a UUID of its own.

An instance carries no `smfInfo`, GUAMI or slice of the basic part, so basic work never selects it. What it is stands
in `customInfo.lms`. A changed status is a new PUT of the whole profile, which real NRFs apply where they ignore a
PATCH; the heartbeat is a PATCH, and an NRF that has forgotten the instance (404) gets it again.
"""

import re
from typing import Any

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused
from outrider.functions.lmsf.ports import Host, Inner
from outrider.functions.lmsf.record import Deployment, Instance
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from

SCOPE = "nnrf-nfm"
HEARTBEAT_S = 10
"""Heartbeat timer that is asked for; the NRF's answer decides."""

_TAI = re.compile(r"^tai:(\d{3})-(\d{2,3})(?:-([0-9A-Fa-f]{11}))?-([0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{2})?)$")
_DNN = re.compile(r"^dnn:(\S+)$")


def selection(area: tuple[str, ...] | None, network: NetworkId) -> dict[str, Any] | None:
    """`SelectionConditions` for a contract's area: `tai:MCC-MNC[-NID]-TAC` and `dnn:NAME` are understood by consumers.

    A tracking area of this network's PLMN ID without a NID is this network's, also where that is an SNPN. None if the
    area names nothing of that kind: then the keeper alone decides, per UE.
    """
    tais: list[dict[str, Any]] = []
    dnns: list[str] = []
    for place in area or ():
        if tai := _TAI.match(place):
            mcc, mnc, nid, tac = tai.groups()
            nid = nid or (network.nid if (mcc, mnc) == (network.mcc, network.mnc) else None)
            plmn = {"plmnId": {"mcc": mcc, "mnc": mnc}} | ({"nid": nid} if nid else {})
            tais.append(plmn | {"tacRangeList": [{"start": tac, "end": tac}]})
        elif dnn := _DNN.match(place):
            dnns.append(dnn[1])
    conditions: list[dict[str, Any]] = []
    if tais:
        conditions.append({"taiRangeList": tais})
    if dnns:
        conditions.append({"dnnList": dnns})
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else {"and": conditions}


def profile(deployment: Deployment, instance: Instance, host: Host, network: NetworkId) -> dict[str, Any]:
    """The `NFProfile` of one NF service of a deployed service."""
    spec = next(s for s in deployment.manifest.nf_services if s.name == instance.nf_service)
    lms = {"service": deployment.service, "version": deployment.version, "home": deployment.home}
    if deployment.migration_id is not None:
        lms["migrationId"] = deployment.migration_id
    endpoint = {"ipv4Address": host.host, "port": host.port}
    where = {"snpnList": [network.plmn_id()]} if network.nid else {}
    canary = {"selectionConditions": deployment.selection} if deployment.nf_status == "CANARY_RELEASE" else {}
    return {
        "nfInstanceId": instance.nf_instance_id,
        "nfInstanceName": f"{deployment.service}/{instance.nf_service}",
        "nfType": instance.nf_type,
        "nfStatus": deployment.nf_status,
        "heartBeatTimer": HEARTBEAT_S,
        "plmnList": [{"mcc": network.mcc, "mnc": network.mnc}],
        **where,
        "ipv4Addresses": [host.host],
        "customInfo": {"lms": lms},
        "nfServices": [
            {
                "serviceInstanceId": instance.nf_service,
                "serviceName": instance.nf_service,
                "versions": [{"apiVersionInUri": spec.api_version, "apiFullVersion": spec.api_full_version}],
                "scheme": "http",
                "nfServiceStatus": deployment.nf_status,
                "ipEndPoints": [endpoint],
                **canary,
            }
        ],
        **canary,
    }


class Instances:
    """Registration and heartbeats."""

    def __init__(self, inner: Inner, nrf_root: str, network: NetworkId) -> None:
        self._inner = inner
        self._root = f"{nrf_root.rstrip('/')}/nnrf-nfm/v1/nf-instances"
        self._network = network

    async def _send(self, method: str, instance: Instance, **sent: Any) -> Response:
        url = f"{self._root}/{instance.nf_instance_id}"
        return await self._inner.request(method, url, scope=SCOPE, target_nf_type="NRF", **sent)

    async def register(self, deployment: Deployment, host: Host) -> int:
        """Put every instance as the deployment says; the heartbeat timer in seconds that the NRF wants."""
        timer = HEARTBEAT_S
        for instance in deployment.instances:
            body = profile(deployment, instance, host, self._network)
            response = await self._send("PUT", instance, json=body)
            if response.status not in (200, 201, 204):
                raise Refused(refusal_from(response, f"The NRF did not register {instance.nf_service}."))
            if response.body:
                timer = min(timer, msgspec.json.decode(response.body, type=_Timer).heart_beat_timer or timer)
        return timer

    async def known(self) -> list[dict[str, Any]]:
        """Profiles of every NF instance that the NRF has; one that goes meanwhile is left out."""
        listed = await self._inner.request("GET", self._root, scope=SCOPE, target_nf_type="NRF")
        if listed.status != 200:
            raise Refused(refusal_from(listed, "The NRF does not list its NF instances."))
        found = []
        for link in msgspec.json.decode(listed.body, type=_UriList).links.item:
            identity = link.href.rpartition("/")[2]
            answer = await self._inner.request("GET", f"{self._root}/{identity}", scope=SCOPE, target_nf_type="NRF")
            if answer.status == 200:
                found.append(msgspec.json.decode(answer.body, type=dict[str, Any]))
        return found

    async def heartbeat(self, deployment: Deployment) -> bool:
        """Keep every instance alive; False if the NRF has forgotten one, so that it must be registered again."""
        patch = [{"op": "replace", "path": "/nfStatus", "value": deployment.nf_status}]
        known = True
        for instance in deployment.instances:
            response = await self._send(
                "PATCH", instance, json=patch, headers=[("content-type", "application/json-patch+json")]
            )
            known = known and response.status < 400
        return known

    async def deregister(self, deployment: Deployment) -> None:
        """Remove every instance; one that is not there is removed already."""
        for instance in deployment.instances:
            response = await self._send("DELETE", instance)
            if response.status not in (200, 204, 404):
                raise Refused(refusal_from(response, f"The NRF did not deregister {instance.nf_service}."))


class _Timer(msgspec.Struct, rename="camel"):
    heart_beat_timer: int = 0


class _Link(msgspec.Struct):
    href: str


class _Links(msgspec.Struct):
    item: list[_Link] = []


class _UriList(msgspec.Struct):
    links: _Links = msgspec.field(name="_links", default_factory=_Links)
