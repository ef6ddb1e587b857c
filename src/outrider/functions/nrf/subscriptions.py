"""Subscriptions to what happens in the registry (TS 29.510 §5.2.2.5): kept, matched with changes, served."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from outrider.core.ids import NetworkId
from outrider.functions.nrf.access import Requester, allows, hidden_from_basic_work
from outrider.functions.nrf.clock import Clock
from outrider.functions.nrf.notify import Notifier
from outrider.functions.nrf.profile import Plmn, Plmns, Profile, Snssais, Text, Texts, public
from outrider.functions.nrf.store import Change, Instance
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem
from outrider.sbi.router import Router

SUBSCRIPTIONS = 10_000
"""Subscriptions at a time."""

VALIDITY_S = 24 * 3600
"""Longest validity of a subscription; the subscriber renews it."""

JSON_PATCH = "application/json-patch+json"
_URI = re.compile(r"^https?://[^\s/?#]+[^\s#]*$", re.IGNORECASE)
_CONDITIONS = {
    frozenset({"nfInstanceId"}),
    frozenset({"nfInstanceIdList"}),
    frozenset({"nfType"}),
    frozenset({"serviceName"}),
    frozenset({"conditionType", "serviceNameList"}),
}


class Condition(Struct, frozen=True, rename="camel", kw_only=True):
    """`SubscrCond`, those kinds that this NRF evaluates; with none every instance is meant."""

    nf_instance_id: Text | None = None
    nf_instance_id_list: Texts | None = None
    nf_type: Text | None = None
    service_name: Text | None = None
    service_name_list: Texts | None = None

    @property
    def by_name(self) -> bool:
        """Whether it names services or instances, rather than a type of NF."""
        return self.nf_type is None and self != Condition()

    def fits(self, profile: Profile) -> bool:
        """Whether it means this instance."""
        ids = self.nf_instance_id_list or ([self.nf_instance_id] if self.nf_instance_id else None)
        names = self.service_name_list or ([self.service_name] if self.service_name else None)
        if ids is not None:
            return profile.nf_instance_id.lower() in (one.lower() for one in ids)
        if names is not None:
            return any(one.service_name in names for one in profile.nf_service_list.values())
        return self.nf_type in (None, profile.nf_type)


class NotifCondition(Struct, frozen=True, rename="camel"):
    """Which attributes' changes are worth a notification."""

    monitored_attributes: Texts | None = None
    unmonitored_attributes: Texts | None = None


class SubscriptionData(Struct, frozen=True, rename="camel", kw_only=True):
    """`SubscriptionData`, as far as the NRF decides by it."""

    nf_status_notification_uri: Text
    subscr_cond: dict[str, Any] | None = None
    validity_time: datetime | None = None
    req_notif_events: Texts | None = None
    plmn_id: Plmn | None = None
    nid: str | None = None
    notif_condition: NotifCondition | None = None
    req_nf_type: Text | None = None
    req_nf_fqdn: Text | None = None
    req_plmn_list: Plmns | None = None
    req_snpn_list: Plmns | None = None
    req_snssais: Snssais | None = None


@dataclass(frozen=True)
class Subscription:
    """A subscription: the document as the subscriber sees it, and what is decided by."""

    identity: str
    document: dict[str, Any]
    data: SubscriptionData
    condition: Condition
    requester: Requester
    valid_until_s: float

    def concerns(self, instance: Instance | None, own: NetworkId) -> list[str] | None:
        """The services of the instance that the subscriber may know of; None if the instance does not concern it."""
        if instance is None or not self.condition.fits(instance.profile):
            return None
        profile = instance.profile
        if hidden_from_basic_work(profile, asked_by_name=self.condition.by_name):
            return None
        services = [name for name, one in profile.nf_service_list.items() if allows(profile, one, self.requester, own)]
        return services if services or allows(profile, None, self.requester, own) else None


class Subscriptions:
    """Serves `/subscriptions` and turns changes of the registry into notifications."""

    def __init__(self, network: NetworkId, api_root: str, notifier: Notifier, clock: Clock) -> None:
        self._network = network
        self._root = f"{api_root}/nnrf-nfm/v1"
        self._notifier = notifier
        self._clock = clock
        self._subscriptions: dict[str, Subscription] = {}

    def routes(self, router: Router) -> None:
        """Serve the resources."""
        router.add("POST", "/nnrf-nfm/v1/subscriptions", self._create)
        router.add("PATCH", "/nnrf-nfm/v1/subscriptions/{subscriptionID}", self._patch)
        router.add("DELETE", "/nnrf-nfm/v1/subscriptions/{subscriptionID}", self._delete)

    def tell(self, change: Change) -> None:
        """Notify whom a change concerns."""
        for subscription in self._subscriptions.values():
            notification = self._notification(subscription, change)
            if notification is not None:
                self._notifier.push(subscription.identity, subscription.data.nf_status_notification_uri, notification)

    def expire(self) -> None:
        """Drop the subscriptions whose validity has ended."""
        now = self._clock.wall_s()
        for identity, subscription in tuple(self._subscriptions.items()):
            if subscription.valid_until_s <= now:
                self._drop(identity)

    def _drop(self, identity: str) -> bool:
        self._notifier.forget(identity)
        return self._subscriptions.pop(identity, None) is not None

    def _notification(self, subscription: Subscription, change: Change) -> dict[str, Any] | None:
        wanted = subscription.data.req_notif_events
        if wanted is not None and change.event not in wanted:
            return None
        before = subscription.concerns(change.before, self._network)
        after = subscription.concerns(change.after, self._network)
        if before is None and after is None:
            return None
        instance = change.after or change.before
        assert instance is not None
        made: dict[str, Any] = {
            "event": change.event,
            "nfInstanceUri": f"{self._root}/nf-instances/{instance.identity}",
            "subscriptionContext": {"subscriptionId": subscription.identity}
            | ({"subscrCond": subscription.data.subscr_cond} if subscription.data.subscr_cond else {}),
        }
        if change.event == "NF_PROFILE_CHANGED":
            if before is not None and after is not None and not _worth_telling(subscription.data, change):
                return None
            if before is None:
                made["conditionEvent"] = "NF_ADDED"
            elif after is None:
                made["conditionEvent"] = "NF_REMOVED"
        if change.after is not None:
            made["nfProfile"] = public(change.after.document, after or [])
        return made

    async def _create(self, request: Request) -> Response:
        data = msgspec.json.decode(request.body, type=SubscriptionData)
        if not _URI.match(data.nf_status_notification_uri):
            return _incorrect("/nfStatusNotificationUri", "it is no absolute http(s) URI", "MANDATORY_IE_INCORRECT")
        named = data.subscr_cond or {}
        if named and frozenset(named) not in _CONDITIONS:
            return _incorrect("/subscrCond", "this NRF does not evaluate this kind of condition")
        condition = msgspec.convert(named, Condition)
        if data.plmn_id is not None:
            target = msgspec.structs.replace(data.plmn_id, nid=data.nid).network
            if target != self._network:
                return _incorrect("/plmnId", f"subscriptions to other networks are not served here ({self._network})")
        if len(self._subscriptions) >= SUBSCRIPTIONS:
            return problem(500, "INSUFFICIENT_RESOURCES", "No more subscriptions are taken.")
        identity = uuid4().hex  # the schema of a subscription id leaves no room for the hyphens of a UUID
        until_s = self._until(data.validity_time)
        document = request.json() | {"subscriptionId": identity, "validityTime": _text(until_s)}
        for write_only in ("requesterFeatures", "completeProfileSubscription"):
            document.pop(write_only, None)
        networks = tuple(one.network for one in (data.req_plmn_list or []) + (data.req_snpn_list or []))
        requester = Requester(data.req_nf_type, data.req_nf_fqdn, networks, tuple(data.req_snssais or ()))
        self._subscriptions[identity] = Subscription(identity, document, data, condition, requester, until_s)
        return json_response(201, document, [("location", f"{self._root}/subscriptions/{identity}")])

    async def _patch(self, request: Request) -> Response:
        identity = request.params["subscriptionID"]
        subscription = self._subscriptions.get(identity)
        if subscription is None:
            return _unknown(identity)
        if request.headers.get("content-type", "").partition(";")[0].strip() != JSON_PATCH:
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", f"A subscription is patched with {JSON_PATCH}.")
        match request.json():
            case [{"op": "replace" | "add", "path": "/validityTime", "value": str(text)}]:
                asked = msgspec.convert(text, datetime)
            case _:
                return problem(403, "MODIFICATION_NOT_ALLOWED", "Only /validityTime of a subscription can change.")
        until_s = self._until(asked)
        document = subscription.document | {"validityTime": _text(until_s)}
        self._subscriptions[identity] = replace(subscription, document=document, valid_until_s=until_s)
        return Response(204) if until_s == asked.timestamp() else json_response(200, document)

    async def _delete(self, request: Request) -> Response:
        identity = request.params["subscriptionID"]
        return Response(204) if self._drop(identity) else _unknown(identity)

    def _until(self, asked: datetime | None) -> float:
        longest_s = self._clock.wall_s() + VALIDITY_S
        if asked is None:
            return longest_s
        return min((asked if asked.tzinfo else asked.replace(tzinfo=UTC)).timestamp(), longest_s)


def _worth_telling(data: SubscriptionData, change: Change) -> bool:
    """Whether a change touches what the subscriber watches (`notifCondition`)."""
    condition = data.notif_condition
    if condition is None or change.before is None or change.after is None:
        return True
    changed = _differences("", change.before.document, change.after.document)
    if condition.monitored_attributes is not None:
        return any(_within(one, condition.monitored_attributes) for one in changed)
    return any(not _within(one, condition.unmonitored_attributes or []) for one in changed)


def _differences(pointer: str, before: Any, after: Any) -> list[str]:
    """JSON pointers of what differs, as deep as objects go."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            one
            for name in before.keys() | after.keys()
            for one in _differences(f"{pointer}/{name}", before.get(name), after.get(name))
        ]
    return [] if before == after else [pointer]


def _within(pointer: str, attributes: list[str]) -> bool:
    return any(pointer == one or pointer.startswith(f"{one}/") for one in attributes)


def _text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _incorrect(pointer: str, reason: str, cause: str = "OPTIONAL_IE_INCORRECT") -> Response:
    return problem(400, cause, f"The subscription is not accepted: {reason}.", invalid_params=[(pointer, reason)])


def _unknown(identity: str) -> Response:
    return problem(404, "SUBSCRIPTION_NOT_FOUND", f"There is no subscription {identity}.")
