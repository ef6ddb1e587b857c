"""Ranges and selection conditions: does a UE, an area or a consumer fall under what a profile says?"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from outrider.functions.nrf.profile import Range, Tai, TaiRange


@dataclass(frozen=True)
class Facts:
    """What a consumer says about itself and the UE that it asks for."""

    nf_type: str | None = None
    supi: str | None = None
    gpsi: str | None = None
    dnn: str | None = None
    tais: tuple[Tai, ...] = ()


def fulfilled(condition: Any, facts: Facts) -> bool:
    """Whether `SelectionConditions` hold.

    All attributes of an item must hold. An attribute about which the consumer says nothing does not hold, nor does one
    that this NRF does not know: who cannot prove to be meant is not.
    """
    if not isinstance(condition, dict):
        return False
    return all(_holds(name, value, facts) for name, value in condition.items())


def _holds(name: str, value: Any, facts: Facts) -> bool:
    match name:
        case "and":
            return all(fulfilled(one, facts) for one in value)
        case "or":
            return any(fulfilled(one, facts) for one in value)
        case "consumerNfTypes":
            return facts.nf_type in value
        case "supiRangeList":
            return facts.supi is not None and in_ranges(facts.supi, msgspec.convert(value, list[Range]))
        case "gpsiRangeList":
            return facts.gpsi is not None and in_ranges(facts.gpsi, msgspec.convert(value, list[Range]))
        case "dnnList":
            return facts.dnn is not None and in_dnns(facts.dnn, value)
        case "taiRangeList":
            ranges = msgspec.convert(value, list[TaiRange])
            return bool(facts.tais) and all(in_tai_ranges(tai, ranges) for tai in facts.tais)
        case "taiList":
            listed = msgspec.convert(value, list[Tai])
            return bool(facts.tais) and all(in_tais(tai, listed) for tai in facts.tais)
        case _:
            return False


def in_ranges(identity: str, ranges: Iterable[Range]) -> bool:
    """Whether an identity (`imsi-…`, `msisdn-…`, `nai-…`) falls in one of the ranges; `start` and `end` are digits."""
    digits = identity.partition("-")[2]
    for one in ranges:
        if one.pattern is not None:
            if re.fullmatch(one.pattern, identity):
                return True
        elif (
            one.start is not None
            and one.end is not None
            and digits.isascii()
            and digits.isdigit()
            and len(one.start) <= len(digits) <= len(one.end)
            and int(one.start) <= int(digits) <= int(one.end)
        ):
            return True
    return False


def in_dnns(dnn: str, served: Sequence[str]) -> bool:
    """Whether a DNN is among those served; `*` serves all, and case does not matter (TS 23.003 §9.1)."""
    return any(one == "*" or one.lower() == dnn.lower() for one in served)


def in_tais(tai: Tai, listed: Iterable[Tai]) -> bool:
    """Whether a tracking area is in a list."""
    return any(
        one.plmn_id.network == tai.plmn_id.network
        and _same_nid(one.nid, tai.nid)
        and one.tac.lower() == tai.tac.lower()
        for one in listed
    )


def in_tai_ranges(tai: Tai, ranges: Iterable[TaiRange]) -> bool:
    """Whether a tracking area is in one of the ranges."""
    tac = tai.tac.lower()
    for one in ranges:
        if one.plmn_id.network != tai.plmn_id.network or not _same_nid(one.nid, tai.nid):
            continue
        for span in one.tac_range_list:
            if span.pattern is not None:
                if re.fullmatch(span.pattern, tai.tac):
                    return True
            elif (
                span.start is not None
                and span.end is not None
                and len(span.start) == len(tac)
                and span.start.lower() <= tac <= span.end.lower()
            ):
                return True
    return False


def _same_nid(one: str | None, other: str | None) -> bool:
    return (one or "").lower() == (other or "").lower()
