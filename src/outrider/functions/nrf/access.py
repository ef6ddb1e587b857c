"""Who is shown what: the access attributes of profiles, and the rule that keeps migrated services out of basic work."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.ids import NetworkId
from outrider.functions.nrf.profile import Profile, Service, Snssai

LMS = "lms"
"""The member of `customInfo` that marks an instance which hosts a migratable service."""


@dataclass(frozen=True)
class Requester:
    """The NF that asks. An empty `networks` means the NRF's own."""

    nf_type: str | None
    fqdn: str | None = None
    networks: tuple[NetworkId, ...] = ()
    snssais: tuple[Snssai, ...] = ()


def hidden_from_basic_work(profile: Profile, *, asked_by_name: bool) -> bool:
    """Whether an instance is kept from a consumer because it hosts a migratable service that was not asked for.

    The instance has the NF type of the basic NFs beside it ("NFs sharing the same name"): a consumer that asks for
    any SMF would take it for one that serves PDU sessions, and would fail. It is meant for those only who ask for one
    of its services, or for the instance itself. This is the one place with that rule; discovery and notifications both
    use it.
    """
    return LMS in profile.custom_info and not asked_by_name


def allows(profile: Profile, service: Service | None, requester: Requester, own: NetworkId) -> bool:
    """Whether the requester may use the service (or, without one, the NF) of the network `own`.

    A restriction of the service takes the place of the same one of the profile.
    """
    levels: Sequence[Profile | Service] = (service, profile) if service is not None else (profile,)

    types = next((one.allowed_nf_types for one in levels if one.allowed_nf_types is not None), None)
    if types is not None and requester.nf_type not in types:
        return False

    domains = next((one.allowed_nf_domains for one in levels if one.allowed_nf_domains is not None), None)
    if domains is not None and not any(re.fullmatch(one, requester.fqdn or "") for one in domains):
        return False

    slices = next((one.allowed_nssais for one in levels if one.allowed_nssais is not None), None)
    if slices is not None and requester.snssais and not _overlap(slices, requester.snssais):
        return False

    return not requester.networks or any(_allows_network(profile, levels, one, own) for one in requester.networks)


def _overlap(served: Sequence[Snssai], asked: Sequence[Snssai]) -> bool:
    return any(mine.covers(theirs) for mine in served for theirs in asked)


def _allows_network(profile: Profile, levels: Sequence[Profile | Service], network: NetworkId, own: NetworkId) -> bool:
    if network == own:
        return True
    if network.nid is not None:
        # TS 29.510: where nothing is said, no SNPN but the NF's own is allowed; PLMNs are, where nothing is said.
        snpns = next((one.allowed_snpns for one in levels if one.allowed_snpns is not None), profile.snpn_list)
        return snpns is not None and any(one.network == network for one in snpns)
    plmns = next((one.allowed_plmns for one in levels if one.allowed_plmns is not None), None)
    return plmns is None or any(one.network == network for one in plmns)
