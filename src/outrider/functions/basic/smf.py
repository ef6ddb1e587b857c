"""A small SMF: PDU sessions, and their events in the manner of Nsmf_EventExposure (TS 29.508).

`POST|GET|DELETE /nsmf-basic/v1/pdu-sessions` stands in for N1 and N4. Events: PDU_SES_EST and PDU_SES_REL.
"""

import datetime as dt
import ipaddress
from collections import deque
from typing import Annotated, Literal

import msgspec

from outrider.functions.basic.events import Report, Subscription, Target, date_time, new_id
from outrider.functions.basic.model import Supi, Text, Uri
from outrider.functions.basic.nf import BasicNf, not_one
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem

BASIC = "nsmf-basic"
EVENTS = "nsmf-event-exposure"
CALLBACK = "Nsmf_EventExposure_Notify"
EVENT_TYPES = frozenset({"PDU_SES_EST", "PDU_SES_REL"})

POOL = ipaddress.IPv4Network("10.45.0.0/16")
"""Addresses of UEs. Each network has the same pool, as networks do: an address means something in its network only."""


class Snssai(msgspec.Struct, frozen=True, omit_defaults=True):
    """`Snssai` of TS 29.571."""

    sst: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    sd: Annotated[str, msgspec.Meta(pattern=r"^[A-Fa-f0-9]{6}$")] | None = None


class SessionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What a UE asks for."""

    supi: Supi
    pdu_session_id: Annotated[int, msgspec.Meta(ge=1, le=255)] = 1
    dnn: Text = "internet"
    s_nssai: Snssai = Snssai(1)
    group_id: Text | None = None


class Session(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A PDU session."""

    session_ref: str
    supi: str
    pdu_session_id: int
    dnn: str
    s_nssai: Snssai
    group_id: str | None
    ipv4_addr: str


class EventSubscription(msgspec.Struct, frozen=True):
    """`EventSubscription`, the part that is supported."""

    event: str


class NsmfEventExposure(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`NsmfEventExposure`, the part that is supported."""

    notif_id: Text
    notif_uri: Uri
    event_subs: Annotated[list[EventSubscription], msgspec.Meta(min_length=1, max_length=16)]
    supi: Supi | None = None
    group_id: Text | None = None
    any_ue_ind: bool = False
    pdu_se_id: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    dnn: Text | None = None
    imme_rep: bool = msgspec.field(name="ImmeRep", default=False)
    notif_method: Literal["ONE_TIME", "ON_EVENT_DETECTION"] | None = None
    max_report_nbr: Annotated[int, msgspec.Meta(ge=1)] | None = None
    expiry: dt.datetime | None = None
    sub_id: str = ""
    event_notifs: list[Report] = []


_request = msgspec.json.Decoder(SessionRequest)
_exposure = msgspec.json.Decoder(NsmfEventExposure)


class Smf(BasicNf):
    """The SMF of the basic part."""

    nf_type, basic, events, event_types = "SMF", BASIC, EVENTS, EVENT_TYPES

    def _begin(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._by_ue: dict[tuple[str, int], str] = {}
        self._free = deque[str]()
        self._unused = iter(POOL.hosts())
        self._route("POST", BASIC, "/pdu-sessions", self._establish)
        self._route("GET", BASIC, "/pdu-sessions/{sessionRef}", self._show)
        self._route("DELETE", BASIC, "/pdu-sessions/{sessionRef}", self._release)
        self._route("POST", EVENTS, "/subscriptions", self._subscribe)
        self._route("GET", EVENTS, "/subscriptions/{subscriptionId}", self._show_subscription)
        self._route("PUT", EVENTS, "/subscriptions/{subscriptionId}", self._replace_subscription)

    @property
    def sessions(self) -> int:
        """How many PDU sessions there are."""
        return len(self._sessions)

    async def _establish(self, request: Request) -> Response:
        asked = _request.decode(request.body)
        old = self._by_ue.get((asked.supi, asked.pdu_session_id))
        if old is not None:  # the UE has forgotten its session: a new one takes its place (TS 23.502 §4.3.2.2.1)
            self._end(old)
        address = self._free.popleft() if self._free else next((str(a) for a in self._unused), None)
        if address is None:
            return problem(500, "INSUFFICIENT_RESOURCES", f"All addresses of {POOL} are taken.")
        session = Session(
            session_ref=new_id(),
            supi=asked.supi,
            pdu_session_id=asked.pdu_session_id,
            dnn=asked.dnn,
            s_nssai=asked.s_nssai,
            group_id=asked.group_id,
            ipv4_addr=address,
        )
        self._sessions[session.session_ref] = session
        self._by_ue[(session.supi, session.pdu_session_id)] = session.session_ref
        self._publish("PDU_SES_EST", session)
        return json_response(201, session, [("location", self._uri(BASIC, "pdu-sessions", session.session_ref))])

    async def _show(self, request: Request) -> Response:
        session = self._sessions.get(request.params["sessionRef"])
        return _unknown_session() if session is None else json_response(200, session)

    async def _release(self, request: Request) -> Response:
        if request.params["sessionRef"] not in self._sessions:
            return _unknown_session()
        self._end(request.params["sessionRef"])
        return Response(204)

    def _end(self, ref: str) -> None:
        session = self._sessions.pop(ref)
        del self._by_ue[(session.supi, session.pdu_session_id)]
        self._free.append(session.ipv4_addr)
        self._publish("PDU_SES_REL", session)

    def _publish(self, event: str, session: Session) -> None:
        self.subscriptions.publish(session.supi, session.group_id, [(event, self._report(event, session))])

    def _report(self, event: str, session: Session) -> Report:
        """An `EventNotification` of TS 29.508."""
        return {
            "event": event,
            "timeStamp": date_time(self._now()),
            "supi": session.supi,
            "pduSeId": session.pdu_session_id,
            "dnn": session.dnn,
            "snssai": msgspec.to_builtins(session.s_nssai),
            "pduSessType": "IPV4",
            "ipv4Addr": session.ipv4_addr,
            "plmnId": self._network.plmn_id(),
        }

    async def _subscribe(self, request: Request) -> Response:
        asked = _exposure.decode(request.body)
        subscription = self._subscription(asked, new_id())
        wrong = self._wrong(asked, subscription)
        if wrong is not None:
            return wrong
        first = self._first_reports(asked, subscription)
        refused = self._keep(subscription)
        if refused is not None:
            return refused
        answer = msgspec.structs.replace(asked, sub_id=subscription.id, event_notifs=first)
        return json_response(201, answer, [("location", self._uri(EVENTS, "subscriptions", subscription.id))])

    def _subscription(self, asked: NsmfEventExposure, id_: str) -> Subscription:
        def only(report: Report) -> bool:
            return asked.dnn in (None, report["dnn"]) and asked.pdu_se_id in (None, report["pduSeId"])

        return Subscription(
            id=id_,
            uri=asked.notif_uri,
            target=Target(asked.supi, asked.group_id, asked.any_ue_ind),
            events=frozenset(e.event for e in asked.event_subs),
            callback=CALLBACK,
            wrap=lambda report: {"notifId": asked.notif_id, "eventNotifs": [report]},
            representation=msgspec.structs.replace(asked, sub_id=id_, event_notifs=[]),
            left=1 if asked.notif_method == "ONE_TIME" else asked.max_report_nbr,
            expiry=asked.expiry,
            only=only,
        )

    def _first_reports(self, asked: NsmfEventExposure, subscription: Subscription) -> list[Report]:
        """The sessions of now, if the subscriber wants them at once; they count against the bound."""
        reports: list[Report] = []
        if not asked.imme_rep or "PDU_SES_EST" not in subscription.events:
            return reports
        for session in self._sessions.values():
            report = self._report("PDU_SES_EST", session)
            if (session.supi, session.group_id) not in subscription.target or not subscription.only(report):
                continue
            if subscription.over(self._now()):
                break
            if subscription.left is not None:
                subscription.left -= 1
            reports.append(report)
        return reports

    def _wrong(self, asked: NsmfEventExposure, subscription: Subscription) -> Response | None:
        unsupported = self._unsupported((e.event for e in asked.event_subs), "/eventSubs")
        return unsupported or not_one(subscription.target, "supi, groupId and anyUeInd")

    async def _show_subscription(self, request: Request) -> Response:
        known = self.subscriptions.get(request.params["subscriptionId"])
        return self._not_subscribed() if known is None else json_response(200, known.representation)

    async def _replace_subscription(self, request: Request) -> Response:
        asked, id_ = _exposure.decode(request.body), request.params["subscriptionId"]
        subscription = self._subscription(asked, id_)
        wrong = self._wrong(asked, subscription)
        if wrong is not None:
            return wrong
        if self.subscriptions.get(id_) is None:
            return self._not_subscribed()
        self.subscriptions.remove(id_)
        self.subscriptions.add(subscription)
        return json_response(200, subscription.representation)


def _unknown_session() -> Response:
    return problem(404, "CONTEXT_NOT_FOUND", "There is no such PDU session here.")
