"""`network.toml`: what an operator decides about one network, typed and checked before anything starts."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import SupplyRules
from outrider.decide.spdx import known

FILE_NAME = "network.toml"

Kind = Literal["plmn", "vplmn", "snpn", "pni-npn", "local", "intermediate"]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
BasePort = Annotated[int, msgspec.Meta(ge=1, le=65000)]

_NF_TYPE = re.compile(r"^[A-Z0-9][A-Z0-9_]{0,30}$")
_FQDN = re.compile(
    r"^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$", re.IGNORECASE
)


class NetworkSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this network is, and which NF types it has for migrated NF services to run in."""

    id: str
    kind: Kind
    name: str = ""
    nf_types: tuple[str, ...] = ("AMF", "SMF", "PCF")


class SbiSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The internal listener: this network's own NFs and keepers reach every function here."""

    host: str = "127.0.0.1"
    port: Port = 7770
    nrf_root: str = ""
    """apiRoot of this network's NRF, if it runs elsewhere; needed only where the own one is not run."""


class BorderSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where partners reach this network; each partner gets a pair of ports of its own, counted up from `port`."""

    host: str = "127.0.0.1"
    listen: str = "127.0.0.1"
    port: BasePort = 7780


class LimitsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one partner may ask of this network."""

    requests_per_s: Annotated[int, msgspec.Meta(ge=1)] = limits.PARTNER_REQUESTS_PER_S
    in_flight: Annotated[int, msgspec.Meta(ge=1)] = limits.PARTNER_IN_FLIGHT


class BasicSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The small basic part; switch it off beside a real core."""

    enabled: bool = True


class PolicySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this operator allows beyond terms and permissions."""

    path: str = ""
    """A folder or file, from the network's folder; empty: there is no policy, and the default counts."""


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `network.toml`."""

    network: NetworkSection
    sbi: SbiSection = SbiSection()
    border: BorderSection = BorderSection()
    limits: LimitsSection = LimitsSection()
    basic: BasicSection = BasicSection()
    supply: SupplyRules = SupplyRules()
    policy: PolicySection = PolicySection()

    @property
    def network_id(self) -> NetworkId:
        """The network's identity, parsed."""
        return NetworkId.parse(self.network.id)


HINTS = {
    "network.id": 'id = "999-70", or with an NID of 11 hex digits for an SNPN: id = "999-71-000007ed9d5"',
    "network.kind": 'kind = "plmn" (or vplmn, snpn, pni-npn, local, intermediate)',
    "network.name": 'name = "Harbour"',
    "network.nf_types": 'nf_types = ["AMF", "SMF", "PCF"]',
    "sbi.host": 'host = "127.0.0.1"',
    "sbi.port": "port = 7770 (0 to 65535; 0 takes a free one)",
    "sbi.nrf_root": 'nrf_root = "http://192.0.2.1:7770" (only if this network has its NRF elsewhere)',
    "border.host": 'host = "192.0.2.10" (the address or name under which partners reach this network)',
    "border.listen": 'listen = "0.0.0.0" (the local address that the border listens on)',
    "border.port": "port = 7780 (1 to 65000; partners get pairs of ports from here on)",
    "limits.requests_per_s": f"requests_per_s = {limits.PARTNER_REQUESTS_PER_S}",
    "limits.in_flight": f"in_flight = {limits.PARTNER_IN_FLIGHT}",
    "basic.enabled": "enabled = true (or false beside a real core)",
    "supply.barred_licences": 'barred_licences = ["AGPL-3.0-only"] (SPDX identifiers)',
    "supply.undeclared_licences": 'undeclared_licences = "allow" (or "refuse")',
    "supply.barred_components": 'barred_components = ["pkg:pypi/requests@<2.32"] (package URLs)',
    "supply.unmaintained": 'unmaintained = "allow" (or "refuse")',
    "supply.unmaintained_components": 'unmaintained_components = ["pkg:pypi/nose"] (package URLs)',
    "supply.max_severity": 'max_severity = "high" (or none, low, medium, critical)',
    "supply.known_exploited": 'known_exploited = "refuse" (or "allow")',
    "supply.accepted_justifications": 'accepted_justifications = ["vulnerable_code_not_present"]',
    "supply.export_classes": 'export_classes = ["EAR99"]',
    "supply.source_offer_licences": 'source_offer_licences = ["GPL-3.0-only"] (SPDX identifiers)',
    "policy.path": 'path = "policy" (a folder or file of rules.toml and *.cedar)',
}
"""For each key, what to write."""

TEMPLATE = """\
# One Outrider network. `outrider network run` reads this file; keys and partners are in folders beside it.

[network]
id = "{id}"
kind = "{kind}"
name = {name}
# NF types of this network. A migrated NF service runs in an NF of its own type; a type that is not here is refused.
nf_types = {nf_types}

[sbi]
# The internal listener (HTTP/2 without TLS): keep it on an address that only this network's own functions reach.
host = "{sbi_host}"
port = {sbi_port}
{nrf_root}
[border]
# `host` is how partners reach this network, `listen` the local address; each partner gets two ports from `port` on.
host = "{border_host}"
listen = "{border_listen}"
port = {border_port}

[limits]
# For each partner: requests per second (relocation traffic is bounded by `in_flight` only), and requests at a time.
requests_per_s = {requests_per_s}
in_flight = {in_flight}

[basic]
# A small AMF and SMF; switch it off beside a real core.
enabled = {basic}

[policy]
# A folder or file of rules (rules.toml, *.cedar), from this folder on: what this operator allows. Empty: everything
# that the terms and all permissions cover.
path = {policy}

[supply]
# What software must be like to be taken in and handed on. Advisories are read from the folder `supply` beside this
# file; every key and its default stand in the reference of this file.
{supply}"""


def _refused(file: Path, key: str, what: str) -> Refused:
    hint = HINTS.get(key, "")
    keys = (
        sorted({k.split(".")[0] for k in HINTS})
        if "." not in key
        else sorted(k.split(".")[1] for k in HINTS if k.split(".")[0] == key.split(".")[0])
    )
    remedy = f"Write {hint}." if hint else f"Known keys here: {', '.join(keys)}."
    return Refused(
        Refusal("CONFIG_INVALID", f"{file}: {key}: {what}.", {"file": str(file), "key": key}, remedy, status=400)
    )


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<at>[^`]*)`)?$")
_FIELD = re.compile(r"(?:missing required|unknown) field `(?P<field>[^`]+)`")


def _explain(file: Path, error: msgspec.ValidationError) -> Refused:
    """A msgspec error with the key in front and what to write behind."""
    match = _AT.match(str(error))
    what, at = (match["what"], match["at"] or "") if match else (str(error), "")
    at = re.sub(r"\[\.*\d*\]", "", at)
    field = _FIELD.search(what)
    if field is not None:
        at = f"{at}.{field['field']}" if at else field["field"]
        what = "is missing" if "missing" in what else "is not a key of this file"
    return _refused(file, at, what[0].lower() + what[1:] if what else "is wrong")


def is_host(text: str) -> bool:
    """Whether the text is an IP address or a DNS name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _FQDN.match(text) is not None
    return True


def check(config: NetworkConfig, file: Path) -> NetworkConfig:
    """The config itself if its values fit each other; raises `Refused` otherwise."""
    network = config.network
    try:
        network_id = NetworkId.parse(network.id)
    except ValueError as error:
        raise _refused(file, "network.id", str(error)) from None
    if (network.kind == "snpn") != (network_id.nid is not None) and network.kind in (
        "snpn",
        "plmn",
        "vplmn",
        "pni-npn",
    ):
        need = "an SNPN is PLMN ID and NID" if network.kind == "snpn" else f"a {network.kind} has no NID"
        raise _refused(file, "network.id", f"{network.id!r} does not fit kind {network.kind!r}: {need}")
    if not network.nf_types or not all(_NF_TYPE.match(t) for t in network.nf_types):
        raise _refused(file, "network.nf_types", "must list NF types in capitals")
    if len(network.name) > 80 or not network.name.isprintable():
        raise _refused(file, "network.name", "must be one line of at most 80 characters")
    for key, host in (("sbi.host", config.sbi.host), ("border.host", config.border.host)):
        if not is_host(host):
            raise _refused(file, key, f"{host!r} is neither an IP address nor a DNS name")
    if config.sbi.nrf_root and not re.match(r"^https?://[^\s/?#@]+$", config.sbi.nrf_root):
        raise _refused(file, "sbi.nrf_root", f"{config.sbi.nrf_root!r} is no apiRoot")
    try:
        ipaddress.ip_address(config.border.listen)
    except ValueError:
        raise _refused(file, "border.listen", f"{config.border.listen!r} is no IP address") from None
    _check_supply(config.supply, file)
    return config


def _check_supply(rules: SupplyRules, file: Path) -> None:
    """A rule that names what does not exist would bar nothing, and nobody would notice."""
    for key in ("barred_licences", "source_offer_licences"):
        for licence in getattr(rules, key):
            if " " not in licence and not known(licence):
                raise _refused(file, f"supply.{key}", f"{licence!r} is no SPDX identifier")
    for key in ("barred_components", "unmaintained_components"):
        for purl in getattr(rules, key):
            wanted = purl.partition("@")[2]
            try:
                if wanted[:1] in ("<", ">", "=", "!", "~"):
                    SpecifierSet(wanted)
            except InvalidSpecifier:
                raise _refused(file, f"supply.{key}", f"{wanted!r} is no range of versions") from None


def load(file: Path) -> NetworkConfig:
    """Read and check `network.toml`; raises `Refused` that names the file, the key and what to write."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refused(
            Refusal(
                "NO_NETWORK",
                f"{file} does not exist, so there is no network here.",
                {"file": str(file)},
                f"Run `outrider network init {file.parent} --id 999-70` first.",
                status=404,
            )
        ) from None
    except UnicodeDecodeError as error:
        raise Refused(
            Refusal("CONFIG_INVALID", f"{file}: not UTF-8 text ({error.reason} at byte {error.start}).", status=400)
        ) from None
    try:
        config = msgspec.toml.decode(text, type=NetworkConfig)
    except msgspec.ValidationError as error:
        raise _explain(file, error) from None
    except msgspec.DecodeError as error:
        raise Refused(
            Refusal("CONFIG_INVALID", f"{file}: not TOML: {error}.", {"file": str(file)}, "", status=400)
        ) from None
    return check(config, file)


def render(config: NetworkConfig) -> str:
    """The text of a new `network.toml`, with a comment at each part."""
    return TEMPLATE.format(
        id=config.network.id,
        kind=config.network.kind,
        name=msgspec.json.encode(config.network.name).decode(),  # a JSON string or list of them is TOML, too
        nf_types=msgspec.json.encode(config.network.nf_types).decode(),
        nrf_root=f'nrf_root = "{config.sbi.nrf_root}"\n' if config.sbi.nrf_root else "",
        basic=str(config.basic.enabled).lower(),
        supply="".join(_lines(config.supply)),
        policy=msgspec.json.encode(config.policy.path).decode(),
        sbi_host=config.sbi.host,
        sbi_port=config.sbi.port,
        border_host=config.border.host,
        border_listen=config.border.listen,
        border_port=config.border.port,
        requests_per_s=config.limits.requests_per_s,
        in_flight=config.limits.in_flight,
    )


def _lines(rules: SupplyRules) -> Iterator[str]:
    """The keys that are not as they are without the file; JSON strings and lists of them are TOML, too."""
    default = SupplyRules()
    for name in rules.__struct_fields__:
        value = getattr(rules, name)
        if value != getattr(default, name):
            yield f"{name} = {msgspec.json.encode(value).decode()}\n"


def locate(target: Path) -> tuple[Path, Path]:
    """The network's folder and its config file, from either of them."""
    return (target, target / FILE_NAME) if target.is_dir() or target.suffix != ".toml" else (target.parent, target)
