"""Operators at their desks: what each asks of its own LMSF, over the API that the CLI uses, and how they wait for it.

A request that is not answered is asked again, as people do; whether a migration was begun by one that was not answered
they look up in the list.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from outrider.core.permission import Permission
from outrider.sbi.http import Request, Response
from outrider.sim.whole import papers
from outrider.sim.whole.clock import UTC_MS
from outrider.sim.whole.loop import context
from outrider.sim.whole.node import Node
from outrider.sim.whole.notary import Notary
from outrider.sim.whole.scenario import HOME, Act, B, C, Plan
from outrider.sim.whole.service import MANIFEST
from outrider.sim.whole.trace import Trace

_WAY_S = 0.0005
_AGAIN_S = 0.1
_PATIENCE_S = 10.0
"""An answer that takes longer is not waited for."""

_TRIES_S = 4.0
"""What is refused is tried again for so long: it may be refused because something else is not over yet."""

ABORT_ANSWER_S = 1.0

_MIGRATIONS = "/nlmsf-migration/v1/migrations"
_REACHED = ("RELOCATING", "SETTLED", "RETURNING", "ABORTING", "RETIRED", "ABORTED")
_STOPPED = ("ABORTING", "ABORTED", "RETIRED")


class Desks:
    """The operators of all networks."""

    def __init__(self, plan: Plan, nodes: Mapping[str, Node], notary: Notary, trace: Trace) -> None:
        self._plan = plan
        self._nodes = nodes
        self._notary = notary
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self._outside = context("")
        self._permissions: dict[tuple[str, str], Permission] = {}
        """By signer and target."""
        self._open: list[str] = []
        """Migrations that were begun and are not over, in their order."""
        self.begun: dict[str, tuple[str, ...]] = {}
        """Every migration that was begun, and the networks that take part."""
        self.doing = "nothing"
        self.home_whole = False
        """Everything that was begun is over."""

    # ------------------------------------------------------------------------------------------ asking

    async def _once(self, network: str, method: str, path: str, body: bytes = b"", **more: str) -> Response | None:
        """The answer, or None if there was none."""
        answer: asyncio.Future[Response | None] = self._loop.create_future()

        def answered(response: Response | None) -> None:
            self._loop.call_later(_WAY_S, _give, answer, response, context=self._outside)

        await asyncio.sleep(_WAY_S)
        own = {"authorization": f"operator {network}", "content-type": "application/json"}
        if not self._nodes[network].take(Request(method, path, headers=own | more, body=body), answered):
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await answer
        except TimeoutError:
            return None

    async def _ask(self, network: str, method: str, path: str, body: object = None, **more: str) -> Response:
        """The answer, however long that takes; a fault of the other side is no answer."""
        sent = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        while True:
            response = await self._once(network, method, path, sent, **more)
            if response is not None and response.status < 500:
                return response
            await asyncio.sleep(_AGAIN_S)

    async def _show(self, network: str, name: str) -> dict[str, Any] | None:
        """A migration as a network shows it; None if it knows none."""
        response = await self._ask(network, "GET", f"{_MIGRATIONS}/{name}")
        shown: dict[str, Any] | None = response.json() if response.status == 200 else None
        return shown

    # --------------------------------------------------------------------------------------- beforehand

    async def prepare(self) -> None:
        """Deploy the service at home, and permit all that the scenario may need."""
        catalogue, size = "/nlmsf-catalogue/v1", len(papers.ARCHIVE)
        span = {"content-range": f"bytes 0-{size - 1}/{size}"}
        await self._ask(HOME, "PUT", f"{catalogue}/uploads/{papers.DIGEST}", papers.ARCHIVE, **span)
        await self._ask(HOME, "POST", f"{catalogue}/packages", {"sha256": papers.DIGEST})
        await self._ask(HOME, "POST", f"{catalogue}/deployments", {"packageDigest": papers.DIGEST})
        ways = [(HOME, B), (B, C)] if C in self._nodes else [(HOME, B)]
        for source, target in ways:
            for signer in dict.fromkeys((HOME, source, target)):
                made = papers.permission(self._plan.seed, signer, source, target, self._plan.permit_s)
                self._permissions[signer, target] = made
                if signer == self._plan.unwilling:
                    continue
                envelope = papers.signed(made, self._nodes[signer].key)
                await self._ask(signer, "POST", "/nlmsf-permission/v1/permissions", envelope)
        while True:
            shown = await self._ask(HOME, "GET", f"{catalogue}/deployments/{MANIFEST.service}")
            if shown.json()["state"] == "RUNNING":
                return
            await asyncio.sleep(_AGAIN_S)

    # --------------------------------------------------------------------------------------------- acts

    async def do(self, act: Act) -> None:
        """Do one act to its end."""
        self.doing = f"{act.deed} {act.target}"
        self._trace.say("operators", f"begin: {act.deed} {act.target} {act.sweep}")
        match act.deed:
            case "out":
                await self._begin(HOME, act)
            case "onward":
                await self._begin(B, act)
            case "back" | "abort":
                await self._end(act)
            case "revoke":
                await self._revoke(act)
            case "declare":
                await self._declare()
            case "lose" | "reborn":
                raise ValueError(f"no operator does it: {act.deed}")
        self._trace.say("operators", f"done: {act.deed} {act.target}")
        self.doing = "nothing"

    async def _begin(self, source: str, act: Act) -> None:
        self.home_whole = False
        wanted = {"service": MANIFEST.service, "target": act.target, "moveAll": act.sweep == "all"}
        wanted |= {"source": source} if source != HOME else {}
        until_s = self._loop.time() + _TRIES_S
        while self._loop.time() < until_s:
            known = await self._list()
            response = await self._once(HOME, "POST", _MIGRATIONS, msgspec.json.encode(wanted))
            if response is None or response.status >= 500:  # it may have been begun
                name = next(iter(sorted(await self._list() - known)), "")
            else:
                name = response.json().get("migrationId", "") if response.status == 201 else ""
            if name:
                self._open.append(name)
                self.begun[name] = tuple(dict.fromkeys((HOME, source, act.target)))
                self._trace.say("operators", f"{name} is begun")
                if act.waits:
                    await self._reach(name)
                return
            told = "there is no answer" if response is None else f"{response.status} {response.body.decode()[:200]}"
            self._trace.say("operators", f"not begun: {told}")
            await asyncio.sleep(_AGAIN_S)

    async def _list(self) -> set[str]:
        response = await self._ask(HOME, "GET", _MIGRATIONS)
        return {shown["migrationId"] for shown in response.json()["migrations"]}

    async def _reach(self, name: str) -> None:
        until_s = self._loop.time() + _TRIES_S
        while self._loop.time() < until_s:
            shown = await self._show(HOME, name)
            if shown is None or shown["phase"] in _REACHED:
                return
            await asyncio.sleep(_AGAIN_S)

    async def _end(self, act: Act) -> None:
        """Bring everything back, or stop it; then wait until all of it is over everywhere."""
        for name in reversed(self._open):
            by = act.by if act.by in self.begun[name] else HOME
            if await self._show(by, name) is None:  # that side has not heard of it yet
                by = HOME
            if act.deed == "back":
                response = await self._ask(by, "POST", f"{_MIGRATIONS}/{name}/return", {})
                self._trace.say(by, f"is asked to bring {name} back: {response.status}")
                if response.status == 202:
                    continue
            await self._abort(by, name)
        await self.over()

    async def _abort(self, network: str, name: str) -> None:
        """Stop one, and look how long its LMSF takes to say so."""
        while True:
            begun_s = self._loop.time()
            response = await self._once(network, "POST", f"{_MIGRATIONS}/{name}/abort")
            took_s = self._loop.time() - begun_s
            node = self._nodes[network]
            if response is not None and response.status == 202:
                phase = response.json()["phase"]
                self._notary.answers(network, name, phase)
                if phase not in _STOPPED:
                    self._trace.violation("abort", f"{network} says that it stops {name}, which is {phase}")
            if response is not None and not node.disturbed:
                phase = response.json().get("phase", "") if response.status == 202 else f"{response.status}"
                self._trace.say(network, f"is asked to stop {name}: {phase} after {took_s:.3f} s")
                if took_s > ABORT_ANSWER_S:
                    self._trace.violation("abort", f"{network} took {took_s:.3f} s to say that it stops {name}")
            if response is not None and response.status < 500:
                return
            await asyncio.sleep(_AGAIN_S)

    async def over(self) -> None:
        """Wait until everything that was begun is over everywhere."""
        for name in list(self._open):
            for network in self.begun[name]:
                self.doing = f"{name} is to be over at {network}"
                while True:
                    shown = await self._show(network, name)
                    if shown is None or shown["over"]:
                        break
                    self.doing = f"{name} at {network} is {shown['phase']}, waiting for {shown['waitingFor']}"
                    await asyncio.sleep(_AGAIN_S)
            self._open.remove(name)
        self.home_whole = True

    async def _revoke(self, act: Act) -> None:
        """Take a permission back; what depends on it ends by itself."""
        made = self._permissions[act.by, act.target]
        now_ms = UTC_MS + int(self._loop.time() * 1000)
        envelope = papers.revocation(made, self._nodes[act.by].key, now_ms)
        response = await self._ask(act.by, "POST", "/nlmsf-permission/v1/revocations", envelope)
        if response.status == 201:
            self._notary.took_back(act.by, made.id)
        self._trace.say(act.by, f"takes its permission for {act.target} back")
        await self.over()

    async def _declare(self) -> None:
        """Home's operator declares the target's store lost; where nothing can be lost, it stops the migration."""
        for name in reversed(self._open):
            until_s = self._loop.time() + 3 * _TRIES_S
            while True:
                shown = await self._show(HOME, name)
                assert shown is not None
                lost = {"storeId": shown["partner"]["storeId"]}
                response = await self._ask(HOME, "POST", f"{_MIGRATIONS}/{name}/declare-lost", lost)
                said = response.body.decode()[:200] if response.status >= 400 else ""
                self._trace.say(HOME, f"is asked to declare a store lost: {response.status} {said}")
                if response.status < 300:
                    break
                if self._loop.time() > until_s or "NOTHING_LOST" in said:
                    await self._abort(HOME, name)
                    break
                await asyncio.sleep(0.5)
        await self.over()


def _give(answer: "asyncio.Future[Response | None]", response: Response | None) -> None:
    if not answer.done():
        answer.set_result(response)
