"""What handlers can do, each in a real worker process."""

import asyncio
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.sdk import wire


def value(body: bytes | None) -> Any:
    return msgspec.json.decode(body or b"null")


async def test_a_request_reads_and_writes_its_records(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                unit = sdk.unit()
                count = (unit.get("count", type=int) or 0) + 1
                unit.put("count", count)
                unit.put("last", {"b": 1, "a": unit.get("count")})
                unit.delete("old")
                return f"{unit.kind} {unit.key} {unit.identity} {scope['method']} {scope['path']} {count}".encode()
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    proposal = await keeper.propose(
        method="POST", path="/x%20y", records=[("a", "count", b"41"), ("a", "old", b"1")], identity="imsi-1"
    )
    assert proposal.body == b"request ue:00000000000000000000000000000000 imsi-1 POST /x y 42"
    assert proposal.status == 200
    assert proposal.headers == [("x-from", "app")]
    assert {name: body for _, name, body in proposal.records} == {
        "count": b"42",
        "last": b'{"a":42,"b":1}',
        "old": None,
    }


async def test_a_bare_asgi_app_is_an_nf_service(start: Any) -> None:
    keeper = await start({"a": "async def handle(scope, body):\n    return body[::-1]\nnf = asgi(handle)"})
    assert (await keeper.propose(method="POST", body=b"abc")).body == b"cba"


async def test_a_starlette_app_from_wheels_in_the_package(start: Any, package: Any, tmp_path: Path) -> None:
    source = """
    from contextlib import asynccontextmanager
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def item(request):
        unit = sdk.unit()
        unit.put("seen", await request.json())
        return JSONResponse({"id": request.path_params["id"], "q": request.query_params["q"],
                             "state": request.state.ready}, status_code=201, headers={"location": "/items/7"})

    def plain(request):
        # A plain function runs in a thread; the unit follows it there.
        sdk.unit().put("thread", True)
        return JSONResponse(None)

    @asynccontextmanager
    async def lifespan(app):
        yield {"ready": "yes"}

    app = Starlette(routes=[Route("/items/{id}", item, methods=["PUT"]), Route("/plain", plain)], lifespan=lifespan)
    nf = sdk.NfService(app)
    """
    keeper = await _with_wheels(start, source, tmp_path, "starlette", "anyio", "idna", "sniffio", "typing_extensions")
    proposal = await keeper.propose(method="PUT", path="/items/7", query="q=a%20b", body=b'{"v":1}')
    assert proposal.status == 201
    assert ("location", "/items/7") in proposal.headers
    assert all(name != "content-length" for name, _ in proposal.headers)
    assert value(proposal.body) == {"id": "7", "q": "a b", "state": "yes"}
    assert proposal.records == [("a", "seen", b'{"v":1}')]
    assert (await keeper.propose(path="/plain")).records == [("a", "thread", b"true")]
    assert (await keeper.propose(path="/nowhere")).status == 404


async def _with_wheels(start: Any, source: str, tmp_path: Path, *names: str) -> Any:
    """Start a worker whose package contains these installed distributions as files of its own."""
    site = tmp_path / "package" / "site"

    class WithWheels(dict[str, str]):
        def items(self) -> Any:
            for name in names:
                spec = find_spec(name)
                if spec is None or spec.origin is None:
                    continue
                if spec.submodule_search_locations:
                    shutil.copytree(Path(spec.origin).parent, site / name)
                else:
                    shutil.copy(spec.origin, site)
            return super().items()

    return await start(WithWheels({"a": source}))


CALLER = """
async def handle(scope, body):
    unit = sdk.unit()
    unit.put("mine", 1)
    reply = await unit.call("b", "POST", scope["path"] + "?q=1", json={"n": 5})
    unit.put("reply", reply.status)
    if scope["path"] == "/then-fail":
        raise RuntimeError("after the call")
    return (200, reply.body)
nf = sdk.NfService(asgi(handle))
"""
CALLED = """
async def handle(scope, body):
    unit = sdk.unit()
    unit.put("theirs", unit.names())
    unit.arm("t", after_ms=5)
    unit.send("group", "m", 1)
    if scope["path"] == "/full":
        raise sdk.Reject(429, "NF_CONGESTION", "no tokens")
    if scope["path"] == "/broken":
        raise ValueError("sibling is broken")
    if scope["path"] == "/back":
        reply = await unit.call("a", "GET", "/none")
    return repr((unit.nf_service, scope["query_string"], body, unit.get("mine"))).encode()
nf = sdk.NfService(asgi(handle))

@nf.on_timer("t")
async def t(timer): ...

@nf.on_message("m")
async def m(message): ...
"""


async def test_a_sibling_joins_the_unit_and_sees_only_its_own_records(start: Any) -> None:
    keeper = await start({"a": CALLER, "b": CALLED})
    proposal = await keeper.propose(path="/ok", records=[("a", "mine", b"0"), ("b", "old", b"0")])
    assert proposal.body == b"""('b', b'q=1', b'{"n":5}', None)"""
    assert proposal.records == [("a", "mine", b"1"), ("b", "theirs", b'["old"]'), ("a", "reply", b"200")]
    assert proposal.timers == [("b", "t", 5, b"")]
    assert proposal.sends == [wire.Send("b", "m", b"1", shared="group")]


@pytest.mark.parametrize(("path", "status"), [("/full", 429), ("/broken", 500)])
async def test_a_sibling_that_refuses_or_raises_leaves_nothing_and_the_caller_goes_on(
    start: Any, path: str, status: int
) -> None:
    keeper = await start({"a": CALLER, "b": CALLED})
    proposal = await keeper.propose(path=path)
    assert proposal.records == [("a", "mine", b"1"), ("a", "reply", str(status).encode())]
    assert (proposal.timers, proposal.sends) == ([], [])
    assert value(proposal.body)["status"] == status


async def test_when_the_unit_fails_nothing_of_the_sibling_stays(start: Any) -> None:
    keeper = await start({"a": CALLER, "b": CALLED})
    fault = await keeper.fault(path="/then-fail")
    assert fault.cause == "HANDLER_FAILED"
    assert "RuntimeError: after the call" in fault.sentence


async def test_a_timer_that_fired_is_gone_unless_armed_again(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            nf = sdk.NfService()

            @nf.on_timer("renew")
            async def renew(timer):
                unit = sdk.unit()
                assert unit.kind == "timer" and unit.armed("renew") is None
                unit.arm("renew", after_ms=timer.data["every"], data=timer.data)
                unit.put("due", unit.armed("renew") - unit.now_ms)
                unit.put("other", unit.armed("other"))
                unit.disarm("other")
                unit.put("then", unit.armed("other"))

            @nf.on_timer("other")
            async def other(timer): ...
            """
        }
    )
    proposal = await keeper.propose(
        kind="timer", name="renew", body=b'{"every":250}', timers=[("a", "renew", 1), ("a", "other", 77)]
    )
    assert proposal.timers == [("a", "renew", 250, b'{"every":250}'), ("a", "other", None, b"")]
    assert [(name, body) for _, name, body in proposal.records] == [
        ("due", b"250"),
        ("other", b"77"),
        ("then", b"null"),
    ]


async def test_messages_and_notifications_go_out_in_order(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                unit = sdk.unit()
                unit.send("group:7", "seen", {"n": 1})
                unit.notify("http://af.example:8080/cb", {"n": 2})
                unit.send("group:7", "seen", {"n": 3}, nf="b")
                return b""
            nf = sdk.NfService(asgi(handle))

            @nf.on_message("seen")
            async def seen(message):
                sdk.unit().put(message.id, [message.name, message.json()])
            """,
            "b": """
            nf = sdk.NfService()

            @nf.on_message("seen")
            async def seen(message): raise sdk.Reject(404, "USER_NOT_FOUND")
            """,
        }
    )
    assert (await keeper.propose()).sends == [
        wire.Send("a", "seen", b'{"n":1}', shared="group:7"),
        wire.Send("a", "", b'{"n":2}', uri="http://af.example:8080/cb"),
        wire.Send("b", "seen", b'{"n":3}', shared="group:7"),
    ]
    message = {"kind": "message", "key": "shared:group:7", "name": "seen", "body": b'{"n":1}', "entry_id": "00a1"}
    assert (await keeper.propose(**message)).records == [("a", "00a1", b'["seen",{"n":1}]')]
    rejected = await keeper.propose(**message, nf="b")
    assert (rejected.status, rejected.records) == (404, [])


async def test_a_replica_of_a_shared_object_has_this_nf_services_records_only(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                first, second = await asyncio.gather(sdk.unit().shared("group:7"), sdk.unit().shared("group:7"))
                none = await sdk.unit().shared("group:8")
                assert first.names() == second.names()
                return repr((first.names(), first.get("terms"), first.get("b"), none.names())).encode()
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    keeper.shared["group:7"] = [("a", "terms", b'{"rate":5}'), ("b", "b", b"1")]
    assert (await keeper.propose()).body == b"(['terms'], {'rate': 5}, None, [])"


async def test_on_arrival_of_every_nf_service_runs_in_one_unit(start: Any) -> None:
    arrival = """
    nf = sdk.NfService()

    @nf.on_arrival
    async def arrived():
        unit = sdk.unit()
        unit.put("place", [unit.serving.plmn_id, unit.serving.nid, unit.serving.nf_instance_id, unit.network])
    """
    keeper = await start({"a": arrival, "b": arrival, "c": "async def nf(scope, receive, send): ..."})
    network = {"mcc": "999", "mnc": "71", "nid": "0123456789a"}
    proposal = await keeper.propose(kind="arrival", nf="", network=network, instances={"a": "ia", "b": "ib"})
    assert {(nf, name): value(body) for nf, name, body in proposal.records} == {
        (nf, "place"): [{"mcc": "999", "mnc": "71"}, "0123456789a", f"i{nf}", network] for nf in ("a", "b")
    }


async def test_who_serves_comes_from_the_worker_where_the_run_does_not_say(start: Any) -> None:
    keeper = await start(
        {"a": "async def h(s, b):\n    return repr(sdk.unit().serving).encode()\nnf = sdk.NfService(asgi(h))"}
    )
    assert b"'mnc': '70'}, nf_instance_id='instance-of-a'" in (await keeper.propose()).body


async def test_an_answer_of_400_or_more_keeps_nothing(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                sdk.unit().put("n", 1)
                if scope["path"] == "/reject":
                    raise sdk.Reject(403, "MODIFICATION_NOT_ALLOWED", "not now", headers=[("retry-after", "1")])
                return (404, b"no")
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    plain = await keeper.propose()
    assert (plain.status, plain.body, plain.records) == (404, b"no", [])
    rejected = await keeper.propose(path="/reject")
    assert (rejected.status, rejected.records) == (403, [])
    assert rejected.headers == [("content-type", "application/problem+json"), ("retry-after", "1")]
    assert value(rejected.body) == {"status": 403, "cause": "MODIFICATION_NOT_ALLOWED", "detail": "not now"}


async def test_what_a_handler_prints_and_logs_becomes_log_lines(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            import logging
            print("at import")

            async def handle(scope, body):
                print("one\\ntwo")
                print("oops", file=sys.stderr)
                logging.getLogger("app").warning("careful")
                await asyncio.to_thread(print, "from a thread")
                return b""
            nf = asgi(handle)
            """
        }
    )
    await keeper.propose()
    await keeper.log_with("from a thread")
    assert keeper.logs == [
        ("info", "at import"),
        ("info", "one"),
        ("info", "two"),
        ("error", "oops"),
        ("warning", "app: careful"),
        ("info", "from a thread"),
    ]


async def test_units_run_at_the_same_time_and_do_not_see_each_other(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            waiting = asyncio.Event()

            async def handle(scope, body):
                unit = sdk.unit()
                unit.put("n", unit.key)
                if body == b"wait":
                    await waiting.wait()
                else:
                    waiting.set()
                return sdk.unit().get("n").encode()
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    first = asyncio.create_task(keeper.propose(key="ue:" + "01" * 16, body=b"wait"))
    second = await keeper.propose(key="ue:" + "02" * 16)
    assert second.body == b"ue:" + b"02" * 16
    assert (await first).body == b"ue:" + b"01" * 16


async def test_a_task_that_outlives_its_unit_can_change_nothing(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def later():
                await asyncio.sleep(0)
                while True:
                    try:
                        sdk.unit()
                    except sdk.NoUnit as error:
                        print(error)
                        return
                    await asyncio.sleep(0)

            async def handle(scope, body):
                global task
                task = asyncio.create_task(later())
                return b""
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    await keeper.propose()
    assert "the unit of work is over" in await keeper.log_with("unit")
