"""One UE of the demo: what it sends, where it goes, and what it notes down.

Its transactions are due at times decided beforehand, and latency counts from there. One transaction is on its way; now
and then (`overlap`) a second one is sent beside it, and only such a pair may be applied in either order. All that the
UE knows is which network it is in. When its track says so, it turns up in another one: it registers with the basic part
there, sets up its basic PDU session, and sends on.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from outrider.demo import histories
from outrider.demo.access import Access, Nf, Sent, Try
from outrider.demo.histories import (
    Arrived,
    Basic,
    Final,
    FinalPolicy,
    FinalPresence,
    FinalSession,
    Firing,
    Opened,
    Transaction,
    network_of,
)
from outrider.demo.population import Ue, basic_requests, transactions

SERVICE_DNN = "group"
BASIC_DNN = "internet"

SESSION = Nf("SMF", "nsmf-groupsession", SERVICE_DNN)
POLICY = Nf("PCF", "npcf-groupqos", SERVICE_DNN)
PRESENCE = Nf("AMF", "namf-grouppresence", SERVICE_DNN)
REGISTRATION = Nf("AMF", "namf-basic", BASIC_DNN)
PDU_SESSION = Nf("SMF", "nsmf-basic", BASIC_DNN)

ARRIVAL_TRIES = 20
ARRIVAL_PAUSE_S = 0.2
"""How often, and how soon again, a UE tries to register with a network before it counts as not served."""


class Load(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What each UE sends: transactions and basic requests per second, and the share that overlaps another one."""

    rate: float = 1.0
    overlap: float = 0.05
    basic_rate: float = 0.2
    payload_bytes: int = 200
    qos: dict[str, int] = {}
    seed: int = 1


class Surroundings(Protocol):
    """What a UE finds around itself."""

    home: str
    load_of: Load
    history: histories.Writer
    counted: Counter[str]
    recent_ms: deque[float]

    @property
    def access(self) -> Mapping[str, Access]:
        """The way into each network."""

    async def send(self, request: Try, network: Callable[[], str]) -> Sent:
        """Try a request until its outcome is certain, or time is up."""

    async def stopped_by(self, at_s: float) -> bool:
        """Wait until an instant; True, at once, if the load is to end."""


class Member:
    """One UE at work."""

    def __init__(self, group: Surroundings, ue: Ue) -> None:
        self.ue = ue
        self.network = group.home
        self._group = group
        self._path = f"/nsmf-groupsession/v1/ue-sessions/{quote(ue.supi, safe='')}"
        self._connected = asyncio.Event()
        self._on_way: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Register at home and open the session."""
        await self._attach(self.network, time.monotonic())
        group, ue = self._group, self.ue
        sent = time.monotonic()
        body: dict[str, Any] = {"supi": ue.supi, "groupId": ue.group, "dnn": SERVICE_DNN, "area": self._area()}
        if group.load_of.qos:
            body["qos"] = group.load_of.qos
        answer = await self._send(SESSION, "POST", "/nsmf-groupsession/v1/ue-sessions", body, f"{ue.name}-open")
        group.counted["opened"] += answer.outcome == "ok"
        group.history.write(
            Opened(
                ue=ue.name,
                group=ue.group,
                network=self.network,
                sent=sent,
                ended=time.monotonic(),
                outcome=answer.outcome,
                status=answer.status,
                cause=answer.cause,
            )
        )

    async def transact(self, start: float) -> None:
        """Send transactions as they are due, each after the answers that it has to wait for."""
        load = self._group.load_of
        for seq, due in enumerate(transactions(self.ue, rate=load.rate, overlap=load.overlap, seed=load.seed), start=1):
            if await self._group.stopped_by(start + due.at_s):
                break
            while len(self._on_way) > due.overlaps:
                await asyncio.wait(self._on_way, return_when=asyncio.FIRST_COMPLETED)
            one = asyncio.create_task(self._transact(seq, start + due.at_s))
            self._on_way.add(one)
            one.add_done_callback(self._on_way.discard)
        await asyncio.gather(*self._on_way)

    async def _transact(self, seq: int, scheduled: float) -> None:
        await self._connected.wait()
        group, ue = self._group, self.ue
        network, sent = self.network, time.monotonic()
        idem = f"{ue.name}-{seq}"
        payload = f"{ue.name} says {seq}".ljust(group.load_of.payload_bytes, ".")
        body = {"seq": seq, "payload": payload, "area": self._area()}
        group.counted["sent"] += 1
        answer = await self._send(SESSION, "POST", f"{self._path}/transactions", body, idem)
        ended = time.monotonic()
        said = answer.response.json() if answer.outcome == "ok" and answer.response else {}
        served_by = network_of(said["servedBy"]) if "servedBy" in said else None
        group.counted[answer.outcome] += 1
        if answer.outcome == "ok":
            group.counted[f"by {served_by}"] += 1
            group.recent_ms.append((ended - scheduled) * 1000)
        group.history.write(
            Transaction(
                ue=ue.name,
                seq=seq,
                idem=idem,
                network=network,
                scheduled=scheduled,
                sent=sent,
                ended=ended,
                outcome=answer.outcome,
                attempts=answer.attempts,
                status=answer.status,
                count=said.get("count"),
                last_seq=said.get("lastSeq"),
                previous_seq=said.get("previousSeq"),
                chained="previousSeq" in said,
                served_by=served_by,
                cause=answer.cause,
            )
        )

    async def arrive(self, network: str, due: float) -> None:
        """Turn up in a network: nothing is sent until its basic part has the UE."""
        self._connected.clear()
        left, self.network = self.network, network
        registered = await self._attach(network, due)
        await self._leave(left)
        self._group.history.write(Arrived(self.ue.name, network, due, registered))

    async def _leave(self, network: str) -> None:
        """The old network is told that the UE is gone, as its UDM does when another AMF has it (TS 23.502 §4.2.2.2)."""
        path = f"/namf-basic/v1/registrations/{quote(self.ue.supi, safe='')}"
        await self._basic("deregister", network, time.monotonic(), Try(REGISTRATION, "DELETE", path))

    async def _attach(self, network: str, due: float) -> float | None:
        """Register and set up a PDU session; the time when it was done, None if it never was."""
        done: float | None = None
        for attempt in range(ARRIVAL_TRIES):
            scheduled = due if attempt == 0 else time.monotonic()
            if await self._register(network, scheduled) and await self._set_up(network):
                done = time.monotonic()
                break
            if self.network != network:
                break
            await asyncio.sleep(ARRIVAL_PAUSE_S)
        if self.network == network:
            self._connected.set()
        return done

    async def renew(self, start: float) -> None:
        """Renew the registration now and then: the load of the basic part."""
        load = self._group.load_of
        for at_s in basic_requests(self.ue, rate=load.basic_rate, seed=load.seed):
            if await self._group.stopped_by(start + at_s):
                return
            due = start + at_s
            if not self._connected.is_set():
                await self._connected.wait()
                due = time.monotonic()
            await self._register(self.network, due)

    async def _register(self, network: str, scheduled: float) -> bool:
        path = f"/namf-basic/v1/registrations/{quote(self.ue.supi, safe='')}"
        body = {"groupId": self.ue.group, "tai": self._group.access[network].network.tai}
        return await self._basic("register", network, scheduled, Try(REGISTRATION, "PUT", path, body))

    async def _set_up(self, network: str) -> bool:
        body = {"supi": self.ue.supi, "dnn": BASIC_DNN}
        request = Try(PDU_SESSION, "POST", "/nsmf-basic/v1/pdu-sessions", body)
        return await self._basic("pdu-session", network, time.monotonic(), request)

    async def _basic(self, operation: str, network: str, scheduled: float, request: Try) -> bool:
        """One request to the basic part, tried once: there a failure is a failure."""
        sent = time.monotonic()
        response = await request.once(self._group.access[network])
        status = response.status if response else None
        good = status is not None and 200 <= status < 300
        self._group.counted["basic"] += 1
        self._group.counted["basicFailed"] += not good
        self._group.history.write(Basic(self.ue.name, operation, network, scheduled, sent, time.monotonic(), status))
        return good

    async def read(self) -> None:
        """Read what the service holds of this UE, from the network where it is."""
        sent = time.monotonic()
        supi = quote(self.ue.supi, safe="")
        session = await self._get(SESSION, self._path)
        policy = await self._get(POLICY, f"/npcf-groupqos/v1/ue-policies/{supi}")
        presence = await self._get(PRESENCE, f"/namf-grouppresence/v1/ue-presences/{supi}")
        self._group.counted["read"] += None not in (session, policy, presence)
        self._group.history.write(
            Final(
                ue=self.ue.name,
                sent=sent,
                ended=time.monotonic(),
                session=session and _final_session(session),
                policy=policy and _final_policy(policy),
                presence=presence and FinalPresence(presence["member"], presence["groupId"], presence["events"]),
            )
        )

    async def close(self) -> None:
        """Close the session, from the network where the UE is: the service keeps nothing for it that works on."""
        answer = await self._send(SESSION, "DELETE", self._path, msgspec.UNSET, f"{self.ue.name}-close")
        self._group.counted["closed"] += answer.outcome == "ok"

    async def _get(self, nf: Nf, path: str) -> Any:
        answer = await self._group.send(Try(nf, "GET", path), lambda: self.network)
        return answer.response.json() if answer.outcome == "ok" and answer.response else None

    async def _send(self, nf: Nf, method: str, path: str, body: object, idem: str) -> Sent:
        return await self._group.send(Try(nf, method, path, body, idem), lambda: self.network)

    def _area(self) -> str:
        network = self._group.access[self.network].network
        return f"{network.id}/{network.tac}"


def _final_session(said: Any) -> FinalSession:
    return FinalSession(
        count=said["count"],
        last_seq=said["lastSeq"],
        served_by=network_of(said["servedBy"]),
        recent_seqs=[applied["seq"] for applied in said.get("recent", [])],
    )


def _final_policy(said: Any) -> FinalPolicy:
    return FinalPolicy(
        validity_ms=said["validityMs"],
        created_ms=said["createdMs"],
        renewals=said["renewals"],
        now_ms=said["nowMs"],
        firings=msgspec.convert(said["firings"], list[Firing]),
    )
