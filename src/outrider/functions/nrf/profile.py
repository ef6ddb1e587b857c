"""NF profiles (TS 29.510 §6.1.6.2.2): validated, in both forms of their services, and as others may see them.

A profile is kept as the JSON document that was registered, because attributes that this NRF does not know are still
the consumers' business. What the NRF decides by is read from it into `Profile`.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal

Document = dict[str, Any]
Status = Literal["REGISTERED", "SUSPENDED", "UNDISCOVERABLE", "CANARY_RELEASE"]
Uuid = Annotated[str, Meta(pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Share = Annotated[int, Meta(ge=0, le=65535)]
Texts = Annotated[list[Text], Meta(min_length=1)]

PROFILE_BYTES = 64 * 1024
"""Largest profile; ten times what a large one of a real core has."""

DEPTH = 32
"""Deepest nesting of a profile; the standard's own attributes need a third of it."""

_ACCESS = ("allowedPlmns", "allowedSnpns", "allowedNfTypes", "allowedNfDomains", "allowedNssais", "allowedRuleSet")
_SERVICE_ACCESS = (
    *_ACCESS,
    "allowedOperationsPerNfType",
    "allowedOperationsPerNfInstance",
    "allowedOperationsPerNfInstanceOverrides",
    "allowedScopesRuleSet",
)
_OWN_BUSINESS = (
    "heartBeatTimer",
    "nfProfileChangesSupportInd",
    "nfProfilePartialUpdateChangesSupportInd",
    "nfServices",
    "nfServiceList",
)
_WRITE_ONLY = ("nfProfileChangesSupportInd", "nfProfilePartialUpdateChangesSupportInd")


class Plmn(Struct, frozen=True):
    """`PlmnId`, or with `nid` `PlmnIdNid`."""

    mcc: Annotated[str, Meta(pattern="^[0-9]{3}$")]
    mnc: Annotated[str, Meta(pattern="^[0-9]{2,3}$")]
    nid: Annotated[str, Meta(pattern="^[0-9A-Fa-f]{11}$")] | None = None

    @property
    def network(self) -> NetworkId:
        """The same as the rest of Outrider says it."""
        return NetworkId(self.mcc, self.mnc, self.nid.lower() if self.nid else None)


Plmns = Annotated[list[Plmn], Meta(min_length=1)]


class SdRange(Struct, frozen=True):
    """A range of slice differentiators."""

    start: Annotated[str, Meta(pattern="^[A-Fa-f0-9]{6}$")]
    end: Annotated[str, Meta(pattern="^[A-Fa-f0-9]{6}$")]


class Snssai(Struct, frozen=True, rename="camel"):
    """`ExtSnssai`: a slice, or a range of slices of one type."""

    sst: Annotated[int, Meta(ge=0, le=255)]
    sd: Annotated[str, Meta(pattern="^[A-Fa-f0-9]{6}$")] | None = None
    sd_ranges: list[SdRange] | None = None
    wildcard_sd: bool = False

    def covers(self, wanted: "Snssai") -> bool:
        """Whether a producer that serves this serves `wanted`."""
        if self.sst != wanted.sst:
            return False
        if self.wildcard_sd:
            return True
        own = self.sd.lower() if self.sd else None
        sd = wanted.sd.lower() if wanted.sd else None
        if own == sd:
            return True
        return sd is not None and any(r.start.lower() <= sd <= r.end.lower() for r in self.sd_ranges or ())


Snssais = Annotated[list[Snssai], Meta(min_length=1)]


class Access(Struct, frozen=True, rename="camel", kw_only=True):
    """Who may use an NF or an NF service; what is absent restricts nobody (but see `access.py` for SNPNs)."""

    allowed_plmns: Plmns | None = None
    allowed_snpns: Plmns | None = None
    allowed_nf_types: Texts | None = None
    allowed_nf_domains: Texts | None = None
    allowed_nssais: Snssais | None = None


class Range(Struct, frozen=True):
    """`SupiRange`, `IdentityRange`, `TacRange`: from `start` to `end`, or what `pattern` fits."""

    start: Text | None = None
    end: Text | None = None
    pattern: Text | None = None


class TaiRange(Struct, frozen=True, rename="camel"):
    """Tracking areas of one network."""

    plmn_id: Plmn
    tac_range_list: Annotated[list[Range], Meta(min_length=1)]
    nid: str | None = None


class Tai(Struct, frozen=True, rename="camel"):
    """A tracking area."""

    plmn_id: Plmn
    tac: Annotated[str, Meta(pattern="^([A-Fa-f0-9]{4}|[A-Fa-f0-9]{6})$")]
    nid: str | None = None


class Condition(Struct, frozen=True, rename={"all_of": "and", "any_of": "or"}, kw_only=True):
    """`SelectionConditions`, for the types of what the NRF evaluates; it is kept and evaluated as a document."""

    all_of: Annotated[list["Condition"], Meta(min_length=1)] | None = None
    any_of: Annotated[list["Condition"], Meta(min_length=1)] | None = None
    consumerNfTypes: Texts | None = None  # noqa: N815 - the two renamed members rule out rename="camel"
    supiRangeList: list[Range] | None = None  # noqa: N815
    gpsiRangeList: list[Range] | None = None  # noqa: N815
    taiRangeList: list[TaiRange] | None = None  # noqa: N815
    taiList: list[Tai] | None = None  # noqa: N815
    dnnList: Texts | None = None  # noqa: N815


class Version(Struct, frozen=True, rename="camel"):
    """`NFServiceVersion`."""

    api_version_in_uri: Text
    api_full_version: Text


class Service(Access, frozen=True, rename="camel", kw_only=True):
    """`NFService`, as far as the NRF decides by it."""

    service_instance_id: Text
    service_name: Text
    versions: Annotated[list[Version], Meta(min_length=1)]
    scheme: Literal["http", "https"]
    nf_service_status: Status
    s_nssais: Snssais | None = None
    priority: Share | None = None
    capacity: Share | None = None
    load: Annotated[int, Meta(ge=0, le=100)] | None = None
    canary_release: bool = False
    selection_conditions: Condition | None = None


class Profile(Access, frozen=True, rename="camel", kw_only=True):
    """`NFProfile`, as far as the NRF decides by it."""

    nf_instance_id: Uuid
    nf_type: Text
    nf_status: Status
    plmn_list: Plmns | None = None
    snpn_list: Plmns | None = None
    s_nssais: Snssais | None = None
    fqdn: Text | None = None
    ipv4_addresses: Texts | None = None
    ipv6_addresses: Texts | None = None
    priority: Share | None = None
    capacity: Share | None = None
    load: Annotated[int, Meta(ge=0, le=100)] | None = None
    locality: Text | None = None
    canary_release: bool = False
    selection_conditions: Condition | None = None
    custom_info: dict[str, Any] = {}
    nf_service_list: dict[Text, Service] = {}


class BadProfile(Exception):
    """The profile is not one; `refusal` says which attribute is wrong."""

    def __init__(self, cause: str, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.pointer = pointer
        self.reason = reason

    @property
    def refusal(self) -> Refusal:
        """The same as a value."""
        return Refusal(
            self.cause, f"The profile is not accepted: {self.reason}", {"attribute": self.pointer}, status=400
        )


_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>\w+)`$")
_MANDATORY = {"nfInstanceId", "nfType", "nfStatus"}


def read(document: Document) -> Profile:
    """What the NRF decides by; `BadProfile` if the document breaks the schema where the NRF relies on it."""
    patterns = _patterns(document, DEPTH)
    try:
        profile = msgspec.convert(document, Profile)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    if profile.fqdn is None and profile.ipv4_addresses is None and profile.ipv6_addresses is None:
        raise BadProfile("MANDATORY_IE_MISSING", "/fqdn", "one of fqdn, ipv4Addresses and ipv6Addresses is needed")
    for key, service in profile.nf_service_list.items():
        if key != service.service_instance_id:
            raise BadProfile(
                "OPTIONAL_IE_INCORRECT", f"/nfServiceList/{key}", "the key is not the service's serviceInstanceId"
            )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadProfile("OPTIONAL_IE_INCORRECT", "/", f"{pattern!r} is no pattern: {error}") from None
    return profile


def _bad(message: str) -> BadProfile:
    match = _AT.match(message)
    assert match is not None
    what, path = match["what"], match["path"] or ""
    pointer = re.sub(r"\[([^\]]*)\]", r"/\1", path.replace("[...]", "[*]")).replace(".", "/")
    missing = _MISSING.match(what)
    if missing:
        return BadProfile("MANDATORY_IE_MISSING", f"{pointer}/{missing['field']}", "it is missing")
    cause = "MANDATORY_IE_INCORRECT" if pointer.lstrip("/") in _MANDATORY else "OPTIONAL_IE_INCORRECT"
    return BadProfile(cause, pointer or "/", what[:1].lower() + what[1:])


def _patterns(value: Any, depth: int) -> list[str]:
    """Every regular expression in a profile; `BadProfile` if it is nested deeper than `depth`."""
    if depth == 0:
        raise BadProfile("INVALID_MSG_FORMAT", "/", f"it is nested deeper than {DEPTH}")
    found: list[str] = []
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "pattern" and isinstance(inner, str):
                found.append(inner)
            elif name == "allowedNfDomains" and isinstance(inner, list):
                found.extend(one for one in inner if isinstance(one, str))
            else:
                found.extend(_patterns(inner, depth - 1))
    elif isinstance(value, list):
        for inner in value:
            found.extend(_patterns(inner, depth - 1))
    return found


def with_both_forms(document: Document, before: Document | None = None) -> Document:
    """The document with its services as a list and as a map: consumers of either kind read it.

    `before` is the document with both forms that a patch was applied to: the form that the patch changed is the one
    that counts. Without it the map wins over the list.
    """
    made = {name: value for name, value in document.items() if name not in _WRITE_ONLY}
    listed, mapped = made.pop("nfServices", None), made.pop("nfServiceList", None)
    if before is not None:
        if mapped == before.get("nfServiceList"):
            mapped = None
        elif listed == before.get("nfServices"):
            listed = None
    services = _by_id(listed) | _checked(mapped)
    if services:
        made["nfServices"] = list(services.values())
        made["nfServiceList"] = services
    return made


def _by_id(listed: Any) -> Document:
    if listed is None:
        return {}
    if not isinstance(listed, list):
        raise BadProfile("OPTIONAL_IE_INCORRECT", "/nfServices", "it is no array")
    services: Document = {}
    for service in listed:
        identity = service.get("serviceInstanceId") if isinstance(service, dict) else None
        if not isinstance(identity, str):
            raise BadProfile("MANDATORY_IE_MISSING", "/nfServices/*/serviceInstanceId", "it is missing")
        if identity in services:
            raise BadProfile("OPTIONAL_IE_INCORRECT", "/nfServices", f"two services are called {identity}")
        services[identity] = service
    return services


def _checked(mapped: Any) -> Document:
    if mapped is None:
        return {}
    if not isinstance(mapped, dict):
        raise BadProfile("OPTIONAL_IE_INCORRECT", "/nfServiceList", "it is no object")
    return mapped


def public(document: Document, services: list[str]) -> Document:
    """The document as a consumer sees it: these services, and nothing about who may use what."""
    made = {name: value for name, value in document.items() if name not in _ACCESS and name not in _OWN_BUSINESS}
    if services:
        kept = {
            identity: {
                name: value
                for name, value in document["nfServiceList"][identity].items()
                if name not in _SERVICE_ACCESS
            }
            for identity in services
        }
        made["nfServices"] = list(kept.values())
        made["nfServiceList"] = kept
    return made
