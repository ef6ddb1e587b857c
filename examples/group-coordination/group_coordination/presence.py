"""namf-grouppresence, hosted in the AMF: where each UE was last seen, and notifications about a whole group.

What belongs to one UE stands in that UE's records. The group's roster and subscriptions belong to the shared object
`group:{groupId}`, which has an owner of its own: a UE's unit cannot write it, so it sends a message, and the message is
applied there once. Members are known by their UE key, which says nothing about who they are.
"""

import secrets
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import outrider.sdk as sdk

from .sbi import Area, GroupId, Problem, Supi, answer, body_of, service

SUBSCRIPTIONS = 16
"""How many subscriptions a group may have: each event is delivered to all of them."""


class PresenceCreate(msgspec.Struct, rename="camel"):
    """Body that opens a presence."""

    supi: Supi
    group_id: GroupId
    area: Area | None = None


class Sighting(msgspec.Struct):
    """Body of a sighting."""

    area: Area | None = None


class SubscriptionCreate(msgspec.Struct, rename="camel"):
    """Body that subscribes to a group's presence."""

    callback_uri: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-.0-~]+(/[!-~]*)?$", max_length=1024)]


class Presence(msgspec.Struct, rename="camel"):
    """The record of a UE. `events` numbers what it tells its group: 1 when it joins, then one for each sighting.

    `area` is an area of `network`.
    """

    group_id: str
    events: int
    last_seen_ms: int
    network: str
    area: str | None = None
    arrivals: int = 0


class Event(msgspec.Struct, rename="camel"):
    """What a UE tells its group; also the group's record of that member."""

    event: Literal["JOINED", "SEEN", "LEFT"]
    group_id: str
    member: str
    number: int
    area: str | None
    last_seen_ms: int


class Subscription(msgspec.Struct, rename="camel"):
    """The record of a subscription, one of the group's."""

    callback_uri: str


def _network() -> str:
    serving = sdk.unit().serving
    return "-".join(filter(None, (serving.plmn_id["mcc"], serving.plmn_id["mnc"], serving.nid)))


def _presence() -> Presence:
    presence = sdk.unit().get("presence", type=Presence)
    if presence is None:
        raise Problem(404, "CONTEXT_NOT_FOUND", "This UE is not present in a group.")
    return presence


def _tell_group(presence: Presence, event: Literal["JOINED", "SEEN", "LEFT"]) -> None:
    unit = sdk.unit()
    told = Event(event, presence.group_id, unit.key, presence.events, presence.area, presence.last_seen_ms)
    unit.send(f"group:{presence.group_id}", "seen", told)


async def create(request: Request) -> Response:
    """`POST /ue-presences`: the UE joins its group."""
    wanted = await body_of(request, PresenceCreate)
    unit = sdk.unit()
    if unit.get("presence", type=Presence) is not None:
        raise Problem(409, "PRESENCE_EXISTS", "This UE is present in a group already.")
    presence = Presence(
        group_id=wanted.group_id, events=1, last_seen_ms=unit.now_ms, network=_network(), area=wanted.area
    )
    unit.put("presence", presence)
    _tell_group(presence, "JOINED")
    return answer(201, {"groupId": wanted.group_id, "member": unit.key})


async def see(request: Request) -> Response:
    """`POST /ue-presences/{supi}/sightings`: the UE was seen now, perhaps in an area that it names."""
    sighting = await body_of(request, Sighting)
    presence = _presence()
    unit = sdk.unit()
    presence.events += 1
    presence.last_seen_ms = unit.now_ms
    presence.area = sighting.area or presence.area
    unit.put("presence", presence)
    _tell_group(presence, "SEEN")
    return answer(200, {"events": presence.events})


async def read(request: Request) -> Response:
    """`GET /ue-presences/{supi}`: last area, last seen."""
    return answer(200, {"member": sdk.unit().key} | msgspec.to_builtins(_presence()))


async def delete(request: Request) -> Response:
    """`DELETE /ue-presences/{supi}`: the UE leaves its group."""
    presence = _presence()
    presence.events += 1
    _tell_group(presence, "LEFT")
    sdk.unit().delete("presence")
    return Response(status_code=204)


async def roster(request: Request) -> Response:
    """`GET /groups/{groupId}`: the members, each with its last area and last seen."""
    unit = sdk.unit()
    names = unit.names()
    members = [unit.get(name, type=Event) for name in sorted(names) if name.startswith("member:")]
    if not names:
        raise Problem(404, "CONTEXT_NOT_FOUND", "No such group.")
    subscriptions = sum(name.startswith("subscription:") for name in names)
    return answer(200, {"members": members, "subscriptions": subscriptions})


async def subscribe(request: Request) -> Response:
    """`POST /groups/{groupId}/subscriptions`: from now on each event of a member is notified to `callbackUri`."""
    wanted = await body_of(request, SubscriptionCreate)
    unit = sdk.unit()
    if sum(name.startswith("subscription:") for name in unit.names()) >= SUBSCRIPTIONS:
        raise Problem(403, "SUBSCRIPTION_NOT_ALLOWED", f"A group has at most {SUBSCRIPTIONS} subscriptions.")
    subscription_id = secrets.token_hex(8)
    unit.put(f"subscription:{subscription_id}", Subscription(wanted.callback_uri))
    location = f"/namf-grouppresence/v1/groups/{request.path_params['groupId']}/subscriptions/{subscription_id}"
    return answer(201, {"subscriptionId": subscription_id, "callbackUri": wanted.callback_uri}, {"location": location})


async def unsubscribe(request: Request) -> Response:
    """`DELETE /groups/{groupId}/subscriptions/{subscriptionId}`."""
    unit = sdk.unit()
    name = f"subscription:{request.path_params['subscriptionId']}"
    if unit.get(name, type=Subscription) is None:
        raise Problem(404, "SUBSCRIPTION_NOT_FOUND", "No such subscription.")
    unit.delete(name)
    return Response(status_code=204)


_UES = "/namf-grouppresence/v1/ue-presences"
_GROUP = "/namf-grouppresence/v1/groups/{groupId}"
app = service(
    {
        _UES: {"POST": create},
        f"{_UES}/{{supi}}": {"GET": read, "DELETE": delete},
        f"{_UES}/{{supi}}/sightings": {"POST": see},
        _GROUP: {"GET": roster},
        f"{_GROUP}/subscriptions": {"POST": subscribe},
        f"{_GROUP}/subscriptions/{{subscriptionId}}": {"DELETE": unsubscribe},
    }
)
nf = sdk.NfService(app)


@nf.on_message("seen")
async def seen(message: sdk.Message) -> None:
    """At the group: note the member, and notify each subscriber, numbered by the member's own count."""
    unit = sdk.unit()
    event = message.json(type=Event)
    if event.event == "LEFT":
        unit.delete(f"member:{event.member}")
    else:
        unit.put(f"member:{event.member}", event)
    for name in unit.names():
        if name.startswith("subscription:"):
            subscription = unit.get(name, type=Subscription)
            if subscription is not None:
                about = {"subscriptionId": name.removeprefix("subscription:")}
                unit.notify(subscription.callback_uri, about | msgspec.to_builtins(event))


@nf.on_arrival
async def arrived() -> None:
    """The UE has come to this network: an area of the network before means nothing here."""
    unit = sdk.unit()
    presence = unit.get("presence", type=Presence)
    if presence is not None and presence.network != _network():
        presence.network, presence.area = _network(), None
        presence.arrivals += 1
        unit.put("presence", presence)
