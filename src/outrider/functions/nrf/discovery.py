"""Nnrf_NFDiscovery (TS 29.510 §5.3): which instances and services a consumer is shown.

What is not said in one line in the standard, and is decided here:

- An instance or service that is SUSPENDED or UNDISCOVERABLE is in no result, also not for a consumer that names the
  instance: TS 29.510 §6.1.6.3.7 knows no exception ("cannot be discovered by other NFs"). Such a consumer is told so
  in `noProfileMatchInfo`.
- CANARY_RELEASE: TS 29.510 gives `selectionConditions` to the consumer, which is to select the service only where they
  hold. Consumers that do not understand them would select it all the same, so they are evaluated here, too, over what
  the query says: the consumer's type, `supi`, `gpsi`, `dnn`, `tai`. A consumer that says nothing that fulfils them is
  not shown the service; no conditions at all mean that nobody is. The conditions stay in the answer.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from outrider.core.ids import NetworkId
from outrider.functions.nrf.access import allows, hidden_from_basic_work
from outrider.functions.nrf.conditions import fulfilled, in_dnns, in_ranges, in_tai_ranges, in_tais
from outrider.functions.nrf.profile import Document, Profile, Range, Snssai, Tai, TaiRange, public
from outrider.functions.nrf.query import BadQuery, Query, parse
from outrider.functions.nrf.remote import Remote, forward_discovery
from outrider.functions.nrf.store import Instance, Registry
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import JSON, problem

VALIDITY_S = 2
"""How long a consumer may keep a result: a migrating service changes its place, and a stale place costs a forward."""

_HIDDEN = {"SUSPENDED": "TARGET_NF_SUSPENDED", "UNDISCOVERABLE": "TARGET_NF_UNDISCOVERABLE"}


class Discovery:
    """Answers `GET /nnrf-disc/v1/nf-instances`."""

    def __init__(self, registry: Registry, network: NetworkId, remote: Remote | None) -> None:
        self._registry = registry
        self._network = network
        self._remote = remote

    async def __call__(self, request: Request) -> Response:
        """Search here, or in the other network that the consumer asks for."""
        try:
            query = parse(request.args())
        except BadQuery as bad:
            return refused(bad)
        if query.targets and self._network not in query.targets:
            return await forward_discovery(self._remote, self._network, query.targets[0], request)
        return self.answer(request, query)

    def answer(self, request: Request, query: Query) -> Response:
        """The result of a search here."""
        body = msgspec.json.encode(search(self._registry.of_type(query.target_nf_type), query, self._network))
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = [("etag", etag), ("cache-control", f"max-age={VALIDITY_S}")]
        if any(one.strip() in ("*", etag) for one in request.headers.get("if-none-match", "").split(",")):
            return Response(304, headers)
        return Response(200, [("content-type", JSON), *headers], body)


def refused(bad: BadQuery) -> Response:
    """A query that cannot be answered."""
    return problem(400, bad.cause, f"{bad.name}: {bad.reason}.", invalid_params=[(f"query/{bad.name}", bad.reason)])


def search(instances: Iterable[Instance], query: Query, own: NetworkId) -> dict[str, Any]:
    """`SearchResult`: those of the instances that the query means and its consumer may see."""
    found: list[tuple[Instance, list[str]]] = []
    hidden = ""
    for instance in instances:
        profile = instance.profile
        if not _meant(instance, query):
            continue
        if profile.nf_status in _HIDDEN:
            hidden = _HIDDEN[profile.nf_status]
            continue
        if not _released(profile.nf_status, profile.canary_release, instance.document, query):
            continue
        services = [name for name in profile.nf_service_list if _shown(instance, name, query, own)]
        if services or (
            not profile.nf_service_list and not query.service_names and allows(profile, None, query.requester, own)
        ):
            found.append((instance, services))
    found.sort(key=lambda one: _order(one[0].profile, query.preferred_locality))
    found = found[: query.limit]
    result: dict[str, Any] = {
        "validityPeriod": VALIDITY_S,
        "nfInstances": [public(instance.document, services) for instance, services in found],
    }
    if not found and hidden and query.instance_ids:
        result["noProfileMatchInfo"] = {"reason": hidden}
    if found and query.preferred_locality is not None:
        near = [instance.profile.locality == query.preferred_locality for instance, _ in found]
        result["preferredSearch"] = {"preferredLocalityMatchInd": any(near), "otherLocalityInd": not all(near)}
    return result


def _order(profile: Profile, locality: str | None) -> tuple[bool, int, str]:
    """Preferred place first, then the lower priority number; the id makes the order the same each time."""
    far = locality is not None and profile.locality != locality
    return far, profile.priority if profile.priority is not None else 65535, profile.nf_instance_id


def _meant(instance: Instance, query: Query) -> bool:
    """Whether the query, apart from services and access, is about this instance."""
    profile = instance.profile
    if query.instance_ids and instance.identity not in query.instance_ids:
        return False
    if instance.identity in query.excluded_ids:
        return False
    if hidden_from_basic_work(profile, asked_by_name=query.by_name):
        return False
    named = [one.network for one in (profile.plmn_list or []) + (profile.snpn_list or [])]
    if query.targets and named and not any(target in named for target in query.targets):
        return False
    if not _serves_slices(profile.s_nssais, query.snssais):
        return False
    return _serves(instance.document, profile.nf_type, query)


def _shown(instance: Instance, name: str, query: Query, own: NetworkId) -> bool:
    """Whether the consumer is shown this service of an instance that it is shown."""
    service = instance.profile.nf_service_list[name]
    if query.service_names and service.service_name not in query.service_names:
        return False
    document = instance.document["nfServiceList"][name]
    return (
        service.nf_service_status not in _HIDDEN
        and _released(service.nf_service_status, service.canary_release, document, query)
        and _serves_slices(service.s_nssais, query.snssais)
        and allows(instance.profile, service, query.requester, own)
    )


def _released(status: str, canary: bool, document: Document, query: Query) -> bool:
    if status != "CANARY_RELEASE" and not canary:
        return True
    return fulfilled(document.get("selectionConditions"), query.facts)


def _serves_slices(served: list[Snssai] | None, wanted: Iterable[Snssai]) -> bool:
    """Whether one of the wanted slices is served; who names none serves all."""
    asked = list(wanted)
    return served is None or not asked or any(mine.covers(one) for mine in served for one in asked)


def _serves(document: Document, nf_type: str, query: Query) -> bool:
    """Whether one of the NF's `…Info` attributes covers the UE and the area; who has none covers all."""
    name = f"{nf_type.lower().replace('_', '')}Info"
    infos = [document[name]] if isinstance(document.get(name), dict) else []
    listed = document.get(f"{name}List")
    if isinstance(listed, dict):
        infos.extend(one for one in listed.values() if isinstance(one, dict))
    return not infos or any(_covers(one, query) for one in infos)


def _covers(info: Document, query: Query) -> bool:
    facts = query.facts
    if facts.tais and ("taiList" in info or "taiRangeList" in info):
        listed = _typed(info.get("taiList"), list[Tai])
        ranges = _typed(info.get("taiRangeList"), list[TaiRange])
        if not all(in_tais(tai, listed) or in_tai_ranges(tai, ranges) for tai in facts.tais):
            return False
    if facts.dnn is not None:
        dnns = _dnns(info)
        if dnns is not None and not in_dnns(facts.dnn, dnns):
            return False
    for attribute, identity in (
        ("supiRanges", facts.supi),
        ("supiRangeList", facts.supi),
        ("gpsiRanges", facts.gpsi),
        ("gpsiRangeList", facts.gpsi),
    ):
        if identity is not None and attribute in info and not in_ranges(identity, _typed(info[attribute], list[Range])):
            return False
    return True


def _dnns(info: Document) -> list[str] | None:
    """The DNNs of an info: its own list (PCF, BSF), or those under its slices (SMF); None if it names none."""
    if isinstance(info.get("dnnList"), list):
        return [one for one in info["dnnList"] if isinstance(one, str)]
    slices = info.get("sNssaiSmfInfoList")
    if not isinstance(slices, list):
        return None
    return [
        item["dnn"]
        for one in slices
        if isinstance(one, dict)
        for item in one.get("dnnSmfInfoList") or ()
        if isinstance(item, dict) and isinstance(item.get("dnn"), str)
    ]


def _typed(value: Any, kind: Any) -> Any:
    """An attribute of an info, or nothing where it is malformed: what cannot be read covers nobody."""
    try:
        return msgspec.convert(value or [], kind)
    except msgspec.ValidationError:
        return []
