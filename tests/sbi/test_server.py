import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest
from pyreqwest.client import ClientBuilder

from outrider.sbi import server as server_module
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer


async def echo(request: Request) -> Response:
    return Response(200, [("x-method", request.method), ("x-path", request.path)], request.body)


class Recorder:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(204)


class Gate:
    """A handler that is entered, waits to be let go, and tells whether it ended."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        if request.path != "/gate":
            return Response(204)
        self.entered.set()
        await self.open.wait()
        self.ended.set()
        return Response(200, body=b"late")


async def test_a_request_arrives_as_it_was_sent(serve, client):
    seen = Recorder()
    server = await serve(seen)
    response = await client.request(
        "PUT",
        f"http://127.0.0.1:{server.port}/a/b%20c?x=1&y=%7B%7D",
        headers=[("X-One", "1"), ("content-type", "application/json")],
        body=b"{}",
    )
    assert response.status == 204
    assert response.body == b""
    (request,) = seen.requests
    assert (request.method, request.path, request.query, request.body) == ("PUT", "/a/b%20c", "x=1&y=%7B%7D", b"{}")
    assert request.args() == {"x": ["1"], "y": ["{}"]}
    assert request.headers["x-one"] == "1"
    assert request.headers["content-type"] == "application/json"
    assert all(name == name.lower() for name in request.headers)


async def test_a_repeated_header_is_joined(serve, client):
    seen = Recorder()
    server = await serve(seen)
    await client.request("GET", f"http://127.0.0.1:{server.port}/", headers=[("x-via", "a"), ("x-via", "b")])
    assert seen.requests[0].headers["x-via"] == "a, b"


async def test_a_path_can_be_sent_on_as_it_came(serve, client):
    seen = Recorder()
    server = await serve(seen)
    for path in ("/plain/imsi-999700000000001", "/a%20b/%C3%A9/100%25/q%3F/h%23", "/set1.smfset.5gc.mnc070;x=1,2"):
        await client.request("GET", f"http://127.0.0.1:{server.port}{path}")
        assert seen.requests[-1].path == path


async def test_a_get_with_a_body_is_read(serve, client):
    server = await serve(echo)
    response = await client.request("GET", f"http://127.0.0.1:{server.port}/", body=b"odd")
    assert response.body == b"odd"


async def test_an_announced_body_over_the_limit_is_refused_with_413(serve, client):
    server = await serve(echo, body_limit_bytes=1000)
    url = f"http://127.0.0.1:{server.port}/"
    assert (await client.request("POST", url, body=b"x" * 1000)).status == 200
    refused = await client.request("POST", url, body=b"x" * 1001)
    assert refused.status == 413
    assert refused.header("content-type") == "application/problem+json"
    assert refused.json()["cause"] == "PAYLOAD_TOO_LARGE"
    assert (await client.request("POST", url, body=b"y")).body == b"y"


async def test_a_streamed_body_over_the_limit_is_refused_with_413(serve):
    server = await serve(echo, body_limit_bytes=100_000)

    async def parts(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 10_000

    async with ClientBuilder().http2_prior_knowledge().no_proxy().build() as streaming:
        url = f"http://127.0.0.1:{server.port}/"
        fits = await streaming.post(url).body_stream(parts(10)).build().send()
        assert (fits.status, len(await fits.bytes())) == (200, 100_000)
        over = await streaming.post(url).body_stream(parts(500)).build().send()
        assert over.status == 413


async def test_headers_over_the_limit_are_refused(serve, client):
    server = await serve(echo)
    response = await client.request(
        "GET", f"http://127.0.0.1:{server.port}/", headers=[("x", "a" * server_module.HEADER_BYTES)]
    )
    assert response.status == 431


async def test_a_failing_handler_is_a_500_and_the_next_request_is_answered(serve, client):
    async def fails(request: Request) -> Response:
        if request.path == "/bad":
            raise KeyError("secret")
        return Response(204)

    server = await serve(fails)
    response = await client.request("GET", f"http://127.0.0.1:{server.port}/bad")
    assert response.status == 500
    assert response.json()["cause"] == "UNSPECIFIED_NF_FAILURE"
    assert b"secret" not in response.body
    assert (await client.request("GET", f"http://127.0.0.1:{server.port}/good")).status == 204


async def test_a_request_whose_client_is_gone_ends_and_harms_nothing(serve, client):
    gate = Gate()
    server = await serve(gate)
    async with SbiClient() as leaving:
        request = asyncio.create_task(leaving.request("POST", f"http://127.0.0.1:{server.port}/gate"))
        await gate.entered.wait()
        request.cancel()
    gate.open.set()
    await asyncio.wait_for(gate.ended.wait(), 5)
    assert (await client.request("GET", f"http://127.0.0.1:{server.port}/")).status == 204


async def test_many_waiting_requests_do_not_shut_out_the_next(serve, client):
    gate = Gate()
    server = await serve(gate)
    url = f"http://127.0.0.1:{server.port}"
    waiting = [asyncio.create_task(client.request("POST", f"{url}/gate", timeout_s=30)) for _ in range(1000)]
    await gate.entered.wait()
    assert (await client.request("GET", f"{url}/")).status == 204
    gate.open.set()
    assert {r.status for r in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize("size", [0, 10, 900_000])
async def test_a_request_for_which_there_is_no_room_is_answered_unread(serve, client, size):
    seen, full = Recorder(), Response(503, [("retry-after", "1")], b"full")
    server = await serve(seen, refuse=lambda path, header: full if path == "/a b" and header("x-last") == "1" else None)
    url = f"http://127.0.0.1:{server.port}/a%20b"
    for _ in range(5):
        refused = await client.request("POST", url, headers=[("x-last", "1")], body=bytes(size))
        assert (refused.status, refused.header("retry-after"), refused.body) == (503, "1", b"full")
    assert not seen.requests
    assert (await client.request("POST", url, body=bytes(size))).status == 204
    assert [len(request.body) for request in seen.requests] == [size]


async def test_refusing_thousands_of_unread_bodies_does_not_end_the_connection(serve, client):
    server = await serve(echo, refuse=lambda path, header: Response(503, [], b"full") if path == "/full" else None)
    url = f"http://127.0.0.1:{server.port}"
    for _ in range(15):
        refused = await asyncio.gather(*(client.request("POST", f"{url}/full", body=bytes(20_000)) for _ in range(100)))
        assert {answer.status for answer in refused} == {503}
    assert (await client.request("POST", f"{url}/free", body=b"x")).body == b"x"


async def test_many_connections_are_served_at_a_time(serve):
    server = await serve(echo)
    clients = [SbiClient() for _ in range(150)]
    url = f"http://127.0.0.1:{server.port}/"
    answers = await asyncio.gather(*(c.request("GET", url, timeout_s=30) for c in clients))
    assert {r.status for r in answers} == {200}
    for c in clients:
        await c.close()


async def test_stop_lets_an_open_request_finish_and_refuses_new_connections(client):
    gate = Gate()
    server = SbiServer(gate)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    request = asyncio.create_task(client.request("POST", f"{url}/gate"))
    await gate.entered.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    gate.open.set()
    assert (await request).body == b"late"
    await stopping
    async with SbiClient() as later:
        with pytest.raises(Unreachable) as gone:
            await later.request("GET", f"{url}/")
    assert gone.value.not_sent


async def test_stop_cancels_a_request_that_does_not_end(client, monkeypatch):
    monkeypatch.setattr(server_module, "STOP_LIMIT_S", 0.05)
    gate = Gate()
    server = SbiServer(gate)
    await server.start()
    request = asyncio.create_task(client.request("POST", f"http://127.0.0.1:{server.port}/gate"))
    await gate.entered.wait()
    await server.stop()
    assert not gate.ended.is_set()
    try:
        assert (await request).status == 500  # never 503, which would promise that nothing happened
    except Unreachable as error:
        assert not error.not_sent  # noqa: PT017


async def test_a_stopped_server_can_be_stopped_again_and_its_port_taken_again(serve, client):
    first = SbiServer(echo)
    await first.start()
    await first.stop()
    await first.stop()
    second = await serve(echo, port=first.port)
    assert second.port == first.port
    assert (await client.request("GET", f"http://127.0.0.1:{second.port}/")).status == 200


async def test_a_port_in_use_is_an_error_and_not_shared(serve):
    first = await serve(echo)
    with pytest.raises(OSError, match="in use"):
        await SbiServer(echo, port=first.port).start()


async def test_connections_are_accepted_from_the_moment_that_start_returns(serve):
    server = await serve(echo)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5):
        pass


async def test_a_server_leaves_the_logging_of_the_process_alone(serve, capsys):
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    level = logging.getLogger("outrider").level
    try:
        await serve(echo)
        assert handler in logging.getLogger().handlers
        assert handler in [ref() for ref in logging._handlerList]  # type: ignore[attr-defined]
        assert logging.getLogger("outrider").level == level
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().out == ""


async def test_bulk_bodies_pass_both_ways(serve):
    body = bytes(range(256)) * 40_000
    server = await serve(echo, bulk=True, body_limit_bytes=len(body))
    async with SbiClient(bulk=True, timeout_s=30) as bulk:
        response = await bulk.request("POST", f"http://127.0.0.1:{server.port}/", body=body)
    assert response.body == body
