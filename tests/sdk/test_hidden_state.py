"""The check finds state that an author keeps outside the SDK, of every kind, and nothing in a clean service."""

from typing import Any

import pytest

from outrider.sdk.testing import Harness, check_no_hidden_state

SERVICES = {"nsmf-count": "service:nf"}
UE = "imsi-999700000000001"


async def count_three_times(h: Harness) -> None:
    for n in range(3):
        await h.request("nsmf-count", "POST", "/count", ue=UE, json=n)


CLEAN = """
async def handle(method, path, body):
    unit = sdk.unit()
    count = (unit.get("count", type=int) or 0) + 1
    unit.put("count", count)
    unit.arm("tick", after_ms=100)
    return {"count": count, "by": unit.serving.nf_instance_id, "in": unit.network}

nf = sdk.NfService(asgi(handle))

@nf.on_timer("tick")
async def tick(timer):
    unit = sdk.unit()
    unit.put("ticks", (unit.get("ticks") or 0) + 1)
    unit.send("all", "ticked", unit.get("ticks"))

@nf.on_message("ticked")
async def ticked(message):
    unit = sdk.unit()
    unit.put("sum", (unit.get("sum") or 0) + message.json())
    unit.notify("http://consumer.example/cb", unit.get("sum"))
"""


async def test_a_clean_service_passes(write: Any) -> None:
    async def scenario(h: Harness) -> None:
        for n in range(3):
            reply = await h.request("nsmf-count", "POST", "/count", ue=UE)
            assert reply.json()["count"] == n + 1
            await h.advance(100)
        assert [n.value for n in h.notifications] == [1, 3, 6]

    assert await check_no_hidden_state(SERVICES, scenario, code=write("service", CLEAN)) == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            """
            count = 0

            async def handle(method, path, body):
                global count
                count += 1
                return count
            nf = asgi(handle)
            """,
            id="a global counter",
        ),
        pytest.param(
            """
            def make():
                count = 0
                async def handle(method, path, body):
                    nonlocal count
                    count += 1
                    return count
                return asgi(handle)
            nf = sdk.NfService(make())
            """,
            id="a closure",
        ),
        pytest.param(
            """
            async def nf(scope, receive, send):
                if scope["type"] == "lifespan":
                    await receive()
                    scope["state"]["counts"] = []
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
                scope["state"]["counts"].append(1)
                handle = asgi(lambda m, p, b: asyncio.sleep(0, len(scope["state"]["counts"])))
                await handle(scope, receive, send)
            """,
            id="the app's state",
        ),
        pytest.param(
            """
            import os, tempfile

            async def handle(method, path, body):
                path = os.path.join(tempfile.gettempdir(), "count")
                with open(path, "a") as file:
                    file.write("x")
                return os.path.getsize(path)
            nf = asgi(handle)
            """,
            id="a file",
        ),
        pytest.param(
            """
            async def handle(method, path, body):
                from helper import counter
                return next(counter)
            nf = asgi(handle)
            """,
            id="a module beside it, imported late",
        ),
    ],
)
async def test_state_that_is_lost_is_found(write: Any, source: str) -> None:
    write("helper", "import itertools\ncounter = itertools.count(1)")
    findings = await check_no_hidden_state(SERVICES, count_three_times, code=write("service", source))
    assert findings[0] == (
        """Step 2, POST /count: ((200, [], b'2'), []) where the UE stayed; where the UE had moved, """
        """((200, [], b'1'), []): it is kept outside the SDK and was lost."""
    )


async def test_a_cache_that_becomes_old_is_found(write: Any) -> None:
    code = write(
        "service",
        """
        cache = {}

        async def handle(method, path, body):
            unit = sdk.unit()
            count = cache[unit.key] if unit.key in cache else unit.get("count") or 0
            cache[unit.key] = count + 1
            unit.put("count", count + 1)
            return count + 1
        nf = sdk.NfService(asgi(handle))
        """,
    )
    findings = await check_no_hidden_state(SERVICES, count_three_times, code=code)
    assert len(findings) == 1
    assert findings[0].startswith("Step 3, POST /count")
    assert findings[0].endswith("a copy of it is kept outside the SDK and has become old.")


async def test_hidden_state_that_shows_only_in_a_record_is_found(write: Any) -> None:
    code = write(
        "service",
        """
        seen = []

        async def handle(method, path, body):
            seen.append(1)
            sdk.unit().put("seen", len(seen))
            return "ok"
        nf = sdk.NfService(asgi(handle))
        """,
    )
    findings = await check_no_hidden_state(SERVICES, count_three_times, code=code)
    assert findings[0].startswith("Step 2, POST /count: record 'seen' of nsmf-count is 2 where the UE stayed")


async def test_hidden_state_that_makes_the_handler_raise_is_found(write: Any) -> None:
    code = write(
        "service",
        """
        sessions = {}

        async def handle(method, path, body):
            if body == b"0":
                sessions[sdk.unit().key] = 1
            return sessions[sdk.unit().key]
        nf = sdk.NfService(asgi(handle))
        """,
    )
    findings = await check_no_hidden_state(SERVICES, count_three_times, code=code)
    assert "Step 2, POST /count" in findings[0]
    assert "KeyError" in findings[0]


RANDOM = """
import uuid

async def handle(method, path, body):
    unit = sdk.unit()
    unit.put("id", unit.get("id") or str(uuid.uuid4()))
    unit.put("n", (unit.get("n") or 0) + 1)
    return {"id": unit.get("id"), "n": unit.get("n")}
nf = sdk.NfService(asgi(handle))
"""


async def test_answers_that_differ_by_themselves_are_said_to_and_can_be_reduced(write: Any) -> None:
    code = write("service", RANDOM)
    findings = await check_no_hidden_state(SERVICES, count_three_times, code=code)
    assert all("differs between two runs without any relocation" in finding for finding in findings)
    assert await check_no_hidden_state(SERVICES, count_three_times, code=code, same=lambda r: r.json()["n"]) == []


async def test_a_function_that_makes_the_apps_is_as_good(write: Any) -> None:
    def services(hidden: bool) -> Any:
        def make() -> dict[str, object]:
            count = 0

            async def app(scope: Any, receive: Any, send: Any) -> None:
                nonlocal count
                count += 1
                body = b"%d" % (count if hidden else 0)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": body})

            return {"nsmf-count": app}

        return make

    assert await check_no_hidden_state(services(hidden=True), count_three_times)
    assert await check_no_hidden_state(services(hidden=False), count_three_times) == []


async def test_apps_themselves_cannot_be_made_anew() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(TypeError, match="module:attribute"):
        await check_no_hidden_state({"nsmf-count": app}, count_three_times)
    async with Harness({"nsmf-count": app}) as h:
        with pytest.raises(TypeError, match="module:attribute"):
            await h.relocate(to_network={"mcc": "999", "mnc": "71"})


async def test_the_modules_of_the_test_run_are_left_as_they_were(write: Any) -> None:
    import os
    import sys
    import tempfile

    before = dict(sys.modules), list(sys.path), dict(os.environ), tempfile.gettempdir()
    await check_no_hidden_state(SERVICES, count_three_times, code=write("service", CLEAN))
    assert (dict(sys.modules), list(sys.path), dict(os.environ), tempfile.gettempdir()) == before
