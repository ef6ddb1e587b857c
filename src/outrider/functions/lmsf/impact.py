"""What deploying a package does to the network, told before it is done (TS 23.501 leaves it open, operators ask it).

Everything comes from the manifest and from what this software does for any service: nothing is tried out. The entries
that the NRF would get are made by the same function that registers them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.manifest import Manifest
from outrider.functions.lmsf.instances import profile
from outrider.functions.lmsf.ports import Host
from outrider.functions.lmsf.record import Deployment, Instance

EVENTS = "namf-evts"

_PLATFORM = (
    ("nnrf-nfm", "NRF", "the keeper and each NF service are registered, and heartbeats sent"),
    ("nnrf-disc", "NRF", "the keeper finds AMFs, and partners' keepers while it migrates"),
    (EVENTS, "AMF", "the keeper hears which UEs register here"),
)
"""What the platform itself consumes for every service: API, NF type, why."""

_NF_OF_API = {"namf": "AMF", "nsmf": "SMF", "npcf": "PCF", "nudm": "UDM", "nnef": "NEF", "nnrf": "NRF", "nchf": "CHF"}


class Consumed(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An interface of the basic part that is consumed, with the scope of the token that is asked for."""

    api: str
    nf_type: str
    scope: str
    by: str
    """The keeper, or the service's own NF services as the manifest says."""
    why: str
    present: bool
    """Whether the NRF knows a producer of it now."""


class Subscription(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A subscription at a basic NF, while the service runs here."""

    api: str
    event: str
    about: str
    count: int
    """One at each producer that the NRF knows now."""


class Entry(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An NF instance that the NRF gets, but for its identifier, address and port, which are drawn when it is made."""

    nf_type: str
    name: str
    status: str
    service_names: list[str]
    api_versions: list[str]
    s_nssais: list[dict[str, str | int]]
    """In its profile: none, so that selection for basic work never finds it."""
    dnns: list[str]
    info: list[str]
    """NF-specific parts of the profile, such as `smfInfo`: none."""


class ResourceUse(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What it takes of this machine at most."""

    processes: int
    """A keeper and a worker; the worker may have as many more as `worker_processes` says."""
    worker_memory_mb: int
    worker_processes: int
    worker_cpu_share: float
    tcp_ports: int
    archive_bytes: int
    """Kept twice, and unpacked once; state grows with the UEs."""


class Impact(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The whole answer; `untouched` names what there is and what stays as it is."""

    service: str
    version: str
    package_digest: str
    network: str
    consumed: list[Consumed]
    subscriptions: list[Subscription]
    nrf_entries: list[Entry]
    s_nssai: list[dict[str, str | int]]
    """Slices that the service is for, as its manifest says: nothing is configured in any slice."""
    dnn: list[str]
    resources: ResourceUse
    untouched: list[str]
    """NF instances that the NRF knows now: none is changed, stopped or reconfigured."""
    not_possible: list[str]
    """Why it would be refused, if it would."""


def impact(
    manifest: Manifest,
    package_digest: str,
    size_bytes: int,
    network: NetworkId,
    known: Sequence[dict[str, Any]],
    not_possible: Sequence[str],
) -> Impact:
    """What deploying it here does; `known` are the profiles of the NF instances that the NRF has now."""
    consumed = [_consumed(api, nf_type, "the keeper", why, known) for api, nf_type, why in _PLATFORM]
    for api in manifest.requires:
        nf_type = _NF_OF_API.get(api.partition("-")[0].lower(), "")
        consumed.append(_consumed(api, nf_type, "its NF services", "the manifest requires it", known))
    return Impact(
        service=manifest.service,
        version=manifest.version,
        package_digest=package_digest,
        network=str(network),
        consumed=consumed,
        subscriptions=[
            Subscription(api=EVENTS, event="REGISTRATION_STATE_REPORT", about="any UE", count=_producers(EVENTS, known))
        ],
        nrf_entries=_entries(manifest, package_digest, network),
        s_nssai=list(manifest.s_nssai),
        dnn=list(manifest.dnn),
        resources=ResourceUse(
            processes=2,
            worker_memory_mb=manifest.resources.memory_mb,
            worker_processes=manifest.resources.processes,
            worker_cpu_share=manifest.resources.cpu_share,
            tcp_ports=1,
            archive_bytes=size_bytes,
        ),
        untouched=sorted(f"{p.get('nfType', '')} {p.get('nfInstanceId', '')}" for p in known),
        not_possible=list(not_possible),
    )


def _consumed(api: str, nf_type: str, by: str, why: str, known: Sequence[dict[str, Any]]) -> Consumed:
    present = nf_type == "NRF" or _producers(api, known) > 0
    return Consumed(api=api, nf_type=nf_type, scope=api, by=by, why=why, present=present)


def _producers(api: str, known: Sequence[dict[str, Any]]) -> int:
    return sum(any(s.get("serviceName") == api for s in p.get("nfServices", ())) for p in known)


def _entries(manifest: Manifest, package_digest: str, network: NetworkId) -> list[Entry]:
    """The keeper's entry, and one for each NF service, made as they are registered."""
    keeper = Entry(
        nf_type="LMSF", name=f"keeper of {manifest.service}", status="UNDISCOVERABLE", service_names=[],
        api_versions=[], s_nssais=[], dnns=[], info=[],
    )  # fmt: skip
    made = [Instance("", spec.name, spec.nf_type) for spec in manifest.nf_services]
    deployment = Deployment(
        service=manifest.service, version=manifest.version, package_digest=package_digest, home=str(network),
        manifest=manifest, instances=made, keeper_instance_id="",
    )  # fmt: skip
    host = Host(service=manifest.service, host="", port=0)
    return [keeper, *(entry(profile(deployment, instance, host, network)) for instance in made)]


def entry(registered: dict[str, Any]) -> Entry:
    """An NF profile, as far as it can be told before it is registered."""
    services = registered.get("nfServices", [])
    selected = [registered, *services]
    return Entry(
        nf_type=registered["nfType"],
        name=registered.get("nfInstanceName", ""),
        status=registered["nfStatus"],
        service_names=[s["serviceName"] for s in services],
        api_versions=[v["apiVersionInUri"] for s in services for v in s["versions"]],
        s_nssais=[slice_ for part in selected for slice_ in part.get("sNssais", ())],
        dnns=[dnn for part in selected for dnn in part.get("dnns", ())],
        info=sorted(name for name in registered if name.endswith(("Info", "InfoList")) and name != "customInfo"),
    )
