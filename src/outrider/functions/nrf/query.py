"""The query parameters of NF discovery (TS 29.510 §6.2.3.2.3.1), those that this NRF decides by."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from outrider.core.ids import NetworkId
from outrider.functions.nrf.access import Requester
from outrider.functions.nrf.conditions import Facts
from outrider.functions.nrf.profile import Plmn, Snssai, Tai, Uuid

T = TypeVar("T")


class BadQuery(Exception):
    """A query parameter is missing or wrong."""

    def __init__(self, cause: str, name: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Query:
    """A discovery request."""

    target_nf_type: str
    requester: Requester
    facts: Facts
    service_names: frozenset[str] = frozenset()
    instance_ids: frozenset[str] = frozenset()
    excluded_ids: frozenset[str] = frozenset()
    targets: tuple[NetworkId, ...] = ()
    snssais: tuple[Snssai, ...] = ()
    preferred_locality: str | None = None
    limit: int | None = None

    @property
    def by_name(self) -> bool:
        """Whether it names services or instances, rather than a type of NF."""
        return bool(self.service_names or self.instance_ids)


def parse(args: dict[str, list[str]]) -> Query:
    """The query of a discovery request; parameters that it does not know are ignored, as TS 29.500 §5.2.9 wants."""
    read = _Reader(args)
    tai = read.json("tai", Tai)
    return Query(
        target_nf_type=read.mandatory("target-nf-type"),
        requester=Requester(
            nf_type=read.mandatory("requester-nf-type"),
            fqdn=read.one("requester-nf-instance-fqdn"),
            networks=networks(read, "requester-plmn-list", "requester-snpn-list"),
            snssais=tuple(read.json("requester-snssais", list[Snssai]) or ()),
        ),
        facts=Facts(
            nf_type=read.one("requester-nf-type"),
            supi=read.one("supi"),
            gpsi=read.one("gpsi"),
            dnn=read.one("dnn"),
            tais=(tai,) if tai else tuple(read.json("tai-list", list[Tai]) or ()),
        ),
        service_names=frozenset(read.many("service-names")),
        instance_ids=frozenset(read.uuids("target-nf-instance-id") + read.uuids("target-nf-instance-id-list")),
        excluded_ids=frozenset(read.uuids("exclude-nfinst-list")),
        targets=networks(read, "target-plmn-list", "target-snpn"),
        snssais=tuple(read.json("snssais", list[Snssai]) or ()),
        preferred_locality=read.one("preferred-locality"),
        limit=read.positive("limit"),
    )


def networks(read: "_Reader", plmns: str, snpns: str) -> tuple[NetworkId, ...]:
    """The networks in a list of PLMNs and in an SNPN or a list of SNPNs."""
    found = list(read.json(plmns, list[Plmn]) or ())
    more = read.json(snpns, Plmn | list[Plmn])
    found += more if isinstance(more, list) else [more] if more else []
    return tuple(one.network for one in found)


class _Reader:
    def __init__(self, args: dict[str, list[str]]) -> None:
        self._args = args

    def one(self, name: str) -> str | None:
        values = self._args.get(name)
        if values is None:
            return None
        if len(values) > 1 or not values[0]:
            raise BadQuery("INVALID_QUERY_PARAM", name, "it stands for exactly one value")
        return values[0]

    def mandatory(self, name: str) -> str:
        value = self.one(name)
        if value is None:
            raise BadQuery("MANDATORY_QUERY_PARAM_MISSING", name, "it is missing")
        return value

    def many(self, name: str) -> list[str]:
        """Values with commas between them (`explode: false`); repeated parameters are taken for the same."""
        found = [one for value in self._args.get(name, ()) for one in value.split(",")]
        if not all(found):
            raise BadQuery("INVALID_QUERY_PARAM", name, "one of its values is empty")
        return found

    def uuids(self, name: str) -> list[str]:
        return [self._converted(name, one, Uuid).lower() for one in self.many(name)]

    def positive(self, name: str) -> int | None:
        text = self.one(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
            raise BadQuery("INVALID_QUERY_PARAM", name, "it is no positive number")
        return int(text)

    def json(self, name: str, kind: Any) -> Any:
        text = self.one(name)
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError as error:
            raise BadQuery("INVALID_QUERY_PARAM", name, str(error)) from None

    def _converted(self, name: str, value: str, kind: Any) -> str:
        try:
            return str(msgspec.convert(value, kind))
        except msgspec.ValidationError:
            raise BadQuery("INVALID_QUERY_PARAM", name, f"{value!r} is no UUID") from None
