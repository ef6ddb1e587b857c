"""A small AMF: registrations, and their events in the manner of Namf_EventExposure (TS 29.518).

`PUT|GET|DELETE /namf-basic/v1/registrations/{supi}` stands in for N1 and N2. Events: LOCATION_REPORT,
REGISTRATION_STATE_REPORT, REACHABILITY_REPORT and CONNECTIVITY_STATE_REPORT, for one UE, a group or any UE, one time
or continuously, with a first report at once where it is asked for.
"""

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.functions.basic.events import (
    Report,
    Subscription,
    Subscriptions,
    Target,
    date_time,
    new_id,
    utc_now,
)
from outrider.functions.basic.model import Supi, Text, Uri, openapi
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem, refusal_response
from outrider.sbi.router import Router
from outrider.sbi.tokens import TokenVerifier

BASIC = "namf-basic"
EVENTS = "namf-evts"
CALLBACK = "Namf_EventExposure_Notify"

EVENT_TYPES = frozenset(
    {"LOCATION_REPORT", "REGISTRATION_STATE_REPORT", "REACHABILITY_REPORT", "CONNECTIVITY_STATE_REPORT"}
)
ACCESS = "3GPP_ACCESS"

Tac = Annotated[str, msgspec.Meta(pattern=r"^([A-Fa-f0-9]{4}|[A-Fa-f0-9]{6})$")]


class PlmnId(msgspec.Struct, frozen=True):
    """`PlmnId` of TS 29.571."""

    mcc: Annotated[str, msgspec.Meta(pattern=r"^\d{3}$")]
    mnc: Annotated[str, msgspec.Meta(pattern=r"^\d{2,3}$")]


class Tai(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`Tai` of TS 29.571."""

    plmn_id: PlmnId
    tac: Tac
    nid: Annotated[str, msgspec.Meta(pattern=r"^[A-Fa-f0-9]{11}$")] | None = None


class Registration(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A UE that is registered here: its group, if any, and its tracking area."""

    tai: Tai
    group_id: Text | None = None
    supi: str = ""


class AmfEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`AmfEvent`, the part that is supported."""

    type: str
    immediate_flag: bool = False
    max_reports: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AmfEventMode(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`AmfEventMode`, the part that is supported."""

    trigger: Literal["ONE_TIME", "CONTINUOUS"]
    max_reports: Annotated[int, msgspec.Meta(ge=1)] | None = None
    expiry: dt.datetime | None = None


class AmfEventSubscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`AmfEventSubscription`, the part that is supported."""

    event_list: Annotated[list[AmfEvent], msgspec.Meta(min_length=1, max_length=16)] = msgspec.field(name="eventList")
    event_notify_uri: Uri = msgspec.field(name="eventNotifyUri")
    notify_correlation_id: Text = msgspec.field(name="notifyCorrelationId")
    nf_id: Text = msgspec.field(name="nfId")
    supi: Supi | None = None
    group_id: Text | None = msgspec.field(name="groupId", default=None)
    any_ue: bool = msgspec.field(name="anyUE", default=False)
    options: AmfEventMode | None = None


class AmfCreateEventSubscription(msgspec.Struct, frozen=True):
    """`AmfCreateEventSubscription`."""

    subscription: AmfEventSubscription


_create = msgspec.json.Decoder(AmfCreateEventSubscription)
_registration = msgspec.json.Decoder(Registration)


class Amf:
    """The AMF of the basic part; `router` answers for it."""

    def __init__(
        self,
        network: NetworkId,
        instance_id: str,
        *,
        verifier: TokenVerifier,
        client: SbiClient,
        root: str,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._network = network
        self._instance_id = instance_id
        self._verifier = verifier
        self._root = root
        self._now = now
        self._audience = {"AMF", instance_id}
        self._registered: dict[str, Registration] = {}
        self.subscriptions = Subscriptions(client, now)
        self.router = Router()
        self.router.add("GET", f"/{BASIC}/v1/openapi.yaml", openapi(BASIC))
        self.router.add("PUT", f"/{BASIC}/v1/registrations/{{supi}}", self._register)
        self.router.add("GET", f"/{BASIC}/v1/registrations/{{supi}}", self._show)
        self.router.add("DELETE", f"/{BASIC}/v1/registrations/{{supi}}", self._deregister)
        self.router.add("POST", f"/{EVENTS}/v1/subscriptions", self._subscribe)
        self.router.add("DELETE", f"/{EVENTS}/v1/subscriptions/{{subscriptionId}}", self._unsubscribe)

    @property
    def registered(self) -> int:
        """How many UEs are registered."""
        return len(self._registered)

    async def close(self) -> None:
        """End what still runs."""
        await self.subscriptions.close()

    def _denied(self, request: Request, scope: str) -> Response | None:
        claims = self._verifier.verify(request.headers.get("authorization"), audience=self._audience, scope=scope)
        return refusal_response(claims) if isinstance(claims, Refusal) else None

    async def _register(self, request: Request) -> Response:
        denied = self._denied(request, BASIC)
        if denied is not None:
            return denied
        supi = msgspec.convert(request.params["supi"], Supi)
        registration = msgspec.structs.replace(_registration.decode(request.body), supi=supi)
        before = self._registered.get(supi)
        self._registered[supi] = registration
        if before is None:
            self._publish(
                registration, ("REGISTRATION_STATE_REPORT", "CONNECTIVITY_STATE_REPORT", "REACHABILITY_REPORT")
            )
        if before is None or before.tai != registration.tai:
            self._publish(registration, ("LOCATION_REPORT",))
        location = [("location", f"{self._root}/{BASIC}/v1/registrations/{supi}")] if before is None else []
        return json_response(201 if before is None else 200, registration, location)

    async def _show(self, request: Request) -> Response:
        denied = self._denied(request, BASIC)
        if denied is not None:
            return denied
        registration = self._registered.get(request.params["supi"])
        return _unknown_ue() if registration is None else json_response(200, registration)

    async def _deregister(self, request: Request) -> Response:
        denied = self._denied(request, BASIC)
        if denied is not None:
            return denied
        registration = self._registered.pop(request.params["supi"], None)
        if registration is None:
            return _unknown_ue()
        events = ("REGISTRATION_STATE_REPORT", "CONNECTIVITY_STATE_REPORT", "REACHABILITY_REPORT")
        self._publish(registration, events, gone=True)
        return Response(204)

    def _publish(self, registration: Registration, events: tuple[str, ...], *, gone: bool = False) -> None:
        reports = [(event, self._report(event, registration, gone=gone)) for event in events]
        self.subscriptions.publish(registration.supi, registration.group_id, reports)

    def _report(self, event: str, registration: Registration, *, gone: bool = False) -> Report:
        """An `AmfEventReport`, without the subscriber's own `state`."""
        report: Report = {"type": event, "timeStamp": date_time(self._now()), "supi": registration.supi}
        match event:
            case "LOCATION_REPORT":
                report["location"] = {"nrLocation": self._location(registration.tai)}
            case "REGISTRATION_STATE_REPORT":
                report["rmInfoList"] = [{"rmState": "DEREGISTERED" if gone else "REGISTERED", "accessType": ACCESS}]
            case "CONNECTIVITY_STATE_REPORT":
                report["cmInfoList"] = [{"cmState": "IDLE" if gone else "CONNECTED", "accessType": ACCESS}]
            case "REACHABILITY_REPORT":
                report["reachability"] = "UNREACHABLE" if gone else "REACHABLE"
        return report

    def _location(self, tai: Tai) -> dict[str, Any]:
        """`NrLocation`; there is no radio, so the cell that the type demands is marked as to be ignored."""
        plmn = msgspec.to_builtins(tai.plmn_id)
        return {"tai": msgspec.to_builtins(tai), "ncgi": {"plmnId": plmn, "nrCellId": "000000000"}, "ignoreNcgi": True}

    async def _subscribe(self, request: Request) -> Response:
        denied = self._denied(request, EVENTS)
        if denied is not None:
            return denied
        asked = _create.decode(request.body).subscription
        wrong = [e.type for e in asked.event_list if e.type not in EVENT_TYPES]
        if wrong:
            return problem(
                400,
                "MANDATORY_IE_INCORRECT",
                f"This AMF reports {', '.join(sorted(EVENT_TYPES))}.",
                invalid_params=[("/subscription/eventList", f"{wrong[0]} is not supported")],
            )
        if (asked.supi is not None) + (asked.group_id is not None) + asked.any_ue != 1:
            return problem(
                400, "MANDATORY_IE_INCORRECT", "Exactly one of supi, groupId and anyUE says whom it is about."
            )
        subscription = self._subscription(asked)
        first = self._first_reports(asked, subscription)
        if not subscription.over(self._now()):
            refused = self.subscriptions.add(subscription)
            if refused is not None:
                return refusal_response(refused)
        uri = f"{self._root}/{EVENTS}/v1/subscriptions/{subscription.id}"
        created: dict[str, Any] = {"subscription": asked, "subscriptionId": uri}
        if first:
            created["reportList"] = first
        return json_response(201, created, [("location", uri)])

    def _subscription(self, asked: AmfEventSubscription) -> Subscription:
        options = asked.options
        bounds = [n for n in (options and options.max_reports, *(e.max_reports for e in asked.event_list)) if n]
        left = 1 if options is not None and options.trigger == "ONE_TIME" else min(bounds, default=None)
        subscription = Subscription(
            id=new_id(),
            uri=asked.event_notify_uri,
            target=Target(asked.supi, asked.group_id, asked.any_ue),
            events=frozenset(e.type for e in asked.event_list),
            callback=CALLBACK,
            wrap=lambda report: {
                "notifyCorrelationId": asked.notify_correlation_id,
                "reportList": [self._with_state(report, subscription)],
                "amfId": self._instance_id,
            },
            representation=asked,
            left=left,
            expiry=None if options is None else options.expiry,
        )
        return subscription

    def _with_state(self, report: Report, subscription: Subscription) -> Report:
        state: dict[str, Any] = {"active": not subscription.over(self._now())}
        if subscription.left is not None:
            state["remainReports"] = subscription.left
        uri = f"{self._root}/{EVENTS}/v1/subscriptions/{subscription.id}"
        return {**report, "state": state, "subscriptionId": uri}

    def _first_reports(self, asked: AmfEventSubscription, subscription: Subscription) -> list[Report]:
        """The reports of now, where an event asks for them at once; they count against the bound."""
        immediate = [e.type for e in asked.event_list if e.immediate_flag]
        reports: list[Report] = []
        for registration in self._registered.values() if immediate else ():
            if (registration.supi, registration.group_id) not in subscription.target:
                continue
            for event in immediate:
                if subscription.over(self._now()):
                    return reports
                if subscription.left is not None:
                    subscription.left -= 1
                reports.append(self._with_state(self._report(event, registration), subscription))
        return reports

    async def _unsubscribe(self, request: Request) -> Response:
        denied = self._denied(request, EVENTS)
        if denied is not None:
            return denied
        if not self.subscriptions.remove(request.params["subscriptionId"]):
            return problem(404, "SUBSCRIPTION_NOT_FOUND", "This AMF has no such subscription.")
        return Response(204)


def _unknown_ue() -> Response:
    return problem(404, "CONTEXT_NOT_FOUND", "This UE is not registered here.")
