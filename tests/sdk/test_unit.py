"""A unit of work, in process: what its handler sees, and what becomes of it."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import outrider.sdk as sdk
from outrider.core import limits
from outrider.sdk import rules, wire
from outrider.sdk.engine import Engine


async def no_shared(name: str) -> list[tuple[str, str, bytes]]:
    return []


def app(handler: Any) -> Any:
    """A plain ASGI app that runs a coroutine function and answers with its value as text."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        text = await handler(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(text).encode()})

    return asgi


async def run(
    *handlers: Any, services: dict[str, sdk.NfService] | None = None, **fields: Any
) -> wire.Proposal | wire.Failure:
    """One unit for NF service `a`; handlers become NF services a, b, c."""
    engine = Engine(
        services or {name: sdk.NfService(app(h)) for name, h in zip("abc", handlers, strict=False)}, lambda *_: None
    )
    defaults: dict[str, Any] = {"kind": "request", "nf": "a", "key": "ue:00", "now_ms": 1_000, "records": []}
    return await engine.run(wire.Run(unit=1, **(defaults | {"path": "/"} | fields)), no_shared)


async def proposed(*handlers: Any, **fields: Any) -> wire.Proposal:
    result = await run(*handlers, **fields)
    assert isinstance(result, wire.Proposal), result
    return result


async def failed(*handlers: Any, **fields: Any) -> str:
    result = await run(*handlers, **fields)
    assert isinstance(result, wire.Failure), result
    return result.error


class Session(msgspec.Struct):
    n: int
    tags: list[str] = []


async def test_values_are_typed_canonical_and_read_back_before_the_commit() -> None:
    async def handler(path: str) -> None:
        unit = sdk.unit()
        assert unit.get("session", type=Session) is None
        unit.put("session", Session(3, ["x"]))
        assert unit.get("session", type=Session) == Session(3, ["x"])
        assert unit.get("session") == {"n": 3, "tags": ["x"]}
        # A value is a copy: only put changes the record.
        unit.get("session", type=Session).n = 99
        assert unit.get("session")["n"] == 3
        unit.put("map", {"b": 1, "a": {"d": 1, "c": 2}})
        assert unit.get_bytes("map") == b'{"a":{"c":2,"d":1},"b":1}'
        unit.put_bytes("raw", b"\x00")
        assert unit.names() == ["map", "old", "raw", "session"]
        unit.delete("old")
        assert (unit.names(), unit.get("old")) == (["map", "raw", "session"], None)

    records = [("a", "old", b"1"), ("b", "secret", b"2")]
    assert {name for _, name, _ in (await proposed(handler, records=records)).records} == {
        "session",
        "map",
        "raw",
        "old",
    }


async def test_a_record_of_another_shape_is_an_error_of_the_handler() -> None:
    async def handler(path: str) -> Any:
        return sdk.unit().get("session", type=Session)

    assert "ValidationError" in await failed(handler, records=[("a", "session", b'{"n":"x"}')])


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda unit: unit.put("", 1), "a record has a name"),
        (lambda unit: unit.arm("x", after_ms=1), "has no on_timer handler 'x'"),
        (lambda unit: unit.arm("t", after_ms=-1), "in the future"),
        (lambda unit: unit.send("g", "x", 1), "has no on_message handler 'x'"),
        (lambda unit: unit.send("g", "x", 1, nf="z"), "has no NF service 'z'"),
        (lambda unit: unit.notify("ftp://x", 1), "http or https"),
    ],
)
async def test_misuse_is_told_at_once(use: Any, error: str) -> None:
    async def handler(path: str) -> None:
        use(sdk.unit())

    service = sdk.NfService(app(handler))

    @service.on_timer("t")
    async def t(timer: sdk.Timer) -> None: ...

    assert error in await failed(services={"a": service})


async def test_siblings_nest_and_share_nothing_but_the_unit() -> None:
    async def a(path: str) -> Any:
        unit = sdk.unit()
        if path == "/inner":
            # Called back by b: sees what the outer handler wrote, and its write is seen there.
            unit.put("x", unit.get("x") + 1)
            return unit.get("x")
        unit.put("x", 1)
        reply = await unit.call("b", "GET", "/b")
        assert sdk.unit() is unit
        return (reply.json(), unit.get("x"), unit.names())

    async def b(path: str) -> Any:
        unit = sdk.unit()
        assert (unit.nf_service, unit.names()) == ("b", [])
        unit.put("x", "b's own")
        return (await unit.call("a", "GET", "/inner")).body.decode()

    proposal = await proposed(a, b)
    assert proposal.body == b"(2, 2, ['x'])"
    assert proposal.records == [("a", "x", b"2"), ("b", "x", b'"b\'s own"')]


async def test_a_call_that_refuses_takes_back_what_it_caused_further_down() -> None:
    async def a(path: str) -> Any:
        unit = sdk.unit()
        if path == "/inner":
            unit.put("x", 2)
            return ""
        unit.put("x", 1)
        reply = await unit.call("b", "GET", "/")
        return (reply.status, unit.get("x"))

    async def b(path: str) -> None:
        assert (await sdk.unit().call("a", "GET", "/inner")).ok
        raise sdk.Reject(409, "CONFLICT")

    proposal = await proposed(a, b)
    assert proposal.body == b"(409, 1)"
    assert proposal.records == [("a", "x", b"1")]


async def test_calls_of_one_handler_run_one_after_the_other() -> None:
    async def a(path: str) -> list[int]:
        replies = await asyncio.gather(*(sdk.unit().call("b", "GET", "/") for _ in range(5)))
        return [reply.json() for reply in replies]

    async def b(path: str) -> int:
        unit = sdk.unit()
        n = unit.get("n") or 0
        await asyncio.sleep(0)
        unit.put("n", n + 1)
        return int(n)

    proposal = await proposed(a, b)
    assert proposal.body == b"[0, 1, 2, 3, 4]"
    assert proposal.records == [("b", "n", b"5")]


async def test_siblings_that_call_each_other_in_a_circle_end() -> None:
    async def a(path: str) -> Any:
        return (await sdk.unit().call("b", "GET", "/")).status

    async def b(path: str) -> Any:
        return (await sdk.unit().call("a", "GET", "/")).status

    # The innermost call fails, its caller goes on, and so do all the others.
    assert (await proposed(a, b)).body == b"200"


async def test_an_unknown_sibling_is_an_error() -> None:
    async def a(path: str) -> Any:
        return await sdk.unit().call("npcf-nothing", "GET", "/")

    assert "has no NF service 'npcf-nothing'; it has a" in await failed(a)


def test_outside_a_unit_there_is_none() -> None:
    with pytest.raises(sdk.NoUnit, match="there is no unit of work here"):
        sdk.unit()


async def test_a_unit_that_is_over_refuses_everything() -> None:
    kept: list[sdk.Unit] = []

    async def handler(path: str) -> None:
        kept.append(sdk.unit())

    await proposed(handler)
    unit = kept[0]
    for use in (
        lambda: unit.get("x"),
        lambda: unit.put("x", 1),
        lambda: unit.delete("x"),
        lambda: unit.names(),
        lambda: unit.arm("t", after_ms=1),
        lambda: unit.send("g", "m"),
        lambda: unit.notify("http://x", 1),
    ):
        with pytest.raises(sdk.NoUnit):
            use()
    with pytest.raises(sdk.NoUnit):
        await unit.shared("g")
    with pytest.raises(sdk.NoUnit):
        await unit.call("a", "GET", "/")


async def test_an_app_that_answers_and_then_raises_keeps_nothing() -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        sdk.unit().put("x", 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})
        raise RuntimeError("background task")

    assert "RuntimeError: background task" in await failed(services={"a": sdk.NfService(asgi)})


async def test_a_reject_inside_a_framework_that_answered_500_is_the_answer() -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"oops"})
        raise sdk.Reject(404, "USER_NOT_FOUND", "no such UE", title="Not found")

    proposal = await proposed(services={"a": sdk.NfService(asgi)})
    assert proposal.status == 404
    assert msgspec.json.decode(proposal.body) == {
        "status": 404,
        "cause": "USER_NOT_FOUND",
        "detail": "no such UE",
        "title": "Not found",
    }


async def test_a_reject_out_of_a_task_group_is_the_answer_and_other_errors_are_not_hidden() -> None:
    async def handler(path: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(reject())
            if path == "/two":
                group.create_task(fail())

    async def reject() -> None:
        raise sdk.Reject(404, "USER_NOT_FOUND")

    async def fail() -> None:
        raise ValueError("another")

    assert (await proposed(handler)).status == 404
    assert "ExceptionGroup" in await failed(handler, path="/two")


def test_a_reject_is_an_error_answer() -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        sdk.Reject(302, "X")


def test_a_handler_is_registered_once() -> None:
    nf = sdk.NfService()

    @nf.on_message("m")
    async def m(message: sdk.Message) -> None: ...

    with pytest.raises(ValueError, match="already a handler"):
        nf.on_message("m")(m)


def test_the_sdk_needs_nothing_but_the_standard_library_and_msgspec(tmp_path: Path) -> None:
    package = tmp_path / "outrider"
    package.mkdir()
    source = Path(sdk.__file__).parent
    (package / "__init__.py").symlink_to(source.parent / "__init__.py")
    (package / "sdk").symlink_to(source)
    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    modules = ", ".join(f"outrider.sdk.{path.stem}" for path in source.glob("*.py") if path.stem != "__init__")
    program = f"import sys; sys.path.append({str(tmp_path)!r}); import {modules}"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


def test_the_bounds_of_the_protocol_are_those_of_the_keeper() -> None:
    assert rules.RECORD_BYTES == limits.RECORD_BYTES
    # A context and the largest request fit one frame; so does a proposal with a response and a context.
    assert rules.CONTEXT_BYTES + limits.REQUEST_BYTES + rules.HEADERS_BYTES < wire.FRAME_LIMIT_BYTES
    assert rules.CONTEXT_BYTES + rules.RESPONSE_BYTES + rules.HEADERS_BYTES < wire.FRAME_LIMIT_BYTES
