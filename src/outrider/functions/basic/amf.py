"""A small AMF: registrations, and their events in the manner of Namf_EventExposure (TS 29.518).

`PUT|GET|DELETE /namf-basic/v1/registrations/{supi}` stands in for N1 and N2. Events: LOCATION_REPORT,
REGISTRATION_STATE_REPORT, REACHABILITY_REPORT and CONNECTIVITY_STATE_REPORT, for one UE, a group or any UE, one time
or continuously, with a first report at once where it is asked for.
"""

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec

from outrider.functions.basic.events import Report, Subscription, Target, date_time, new_id
from outrider.functions.basic.model import Supi, Text, Uri
from outrider.functions.basic.nf import BasicNf, not_one
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem

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


class Amf(BasicNf):
    """The AMF of the basic part."""

    nf_type, basic, events, event_types = "AMF", BASIC, EVENTS, EVENT_TYPES

    def _begin(self) -> None:
        self._registered: dict[str, Registration] = {}
        self._route("PUT", BASIC, "/registrations/{supi}", self._register)
        self._route("GET", BASIC, "/registrations/{supi}", self._show)
        self._route("DELETE", BASIC, "/registrations/{supi}", self._deregister)
        self._route("POST", EVENTS, "/subscriptions", self._subscribe)

    @property
    def registered(self) -> int:
        """How many UEs are registered."""
        return len(self._registered)

    async def _register(self, request: Request) -> Response:
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
        location = [("location", self._uri(BASIC, "registrations", supi))] if before is None else []
        return json_response(201 if before is None else 200, registration, location)

    async def _show(self, request: Request) -> Response:
        registration = self._registered.get(request.params["supi"])
        return _unknown_ue() if registration is None else json_response(200, registration)

    async def _deregister(self, request: Request) -> Response:
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
        asked = _create.decode(request.body).subscription
        subscription = self._subscription(asked)
        wrong = self._unsupported((e.type for e in asked.event_list), "/subscription/eventList")
        wrong = wrong or not_one(subscription.target, "supi, groupId and anyUE")
        if wrong is not None:
            return wrong
        first = self._first_reports(asked, subscription)
        refused = self._keep(subscription)
        if refused is not None:
            return refused
        uri = self._uri(EVENTS, "subscriptions", subscription.id)
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
        uri = self._uri(EVENTS, "subscriptions", subscription.id)
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


def _unknown_ue() -> Response:
    return problem(404, "CONTEXT_NOT_FOUND", "This UE is not registered here.")
