import asyncio
import socket

import pytest

from outrider.sbi import client as client_module
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response


async def echo(request: Request) -> Response:
    return Response(200, [("x-type", request.headers.get("content-type", ""))], request.body)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_json_is_encoded_and_named(serve, client):
    server = await serve(echo)
    response = await client.request("POST", f"http://127.0.0.1:{server.port}/", json={"a": None})
    assert response.json() == {"a": None}
    assert response.header("x-type") == "application/json"


async def test_another_json_type_is_the_callers_to_name(serve, client):
    server = await serve(echo)
    patch = [("Content-Type", "application/json-patch+json")]
    response = await client.request("PATCH", f"http://127.0.0.1:{server.port}/", json=[], headers=patch)
    assert response.header("x-type") == "application/json-patch+json"


async def test_a_redirect_is_given_to_the_caller(serve, client):
    async def away(request: Request) -> Response:
        return Response(307, [("location", "http://127.0.0.1:1/")])

    server = await serve(away)
    response = await client.request("GET", f"http://127.0.0.1:{server.port}/")
    assert (response.status, response.header("location")) == (307, "http://127.0.0.1:1/")


async def test_nobody_listening_means_not_sent(client):
    with pytest.raises(Unreachable) as error:
        await client.request("POST", f"http://127.0.0.1:{unused_port()}/x")
    assert error.value.not_sent
    assert "refused" in str(error.value)


async def test_an_unknown_host_means_not_sent(client):
    with pytest.raises(Unreachable) as error:
        await client.request("POST", "http://nowhere.invalid/x")
    assert error.value.not_sent


async def test_a_connection_that_does_not_come_about_means_not_sent(client, monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_LIMIT_S", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with SbiClient() as impatient:
            with pytest.raises(Unreachable) as error:
                await impatient.request("POST", f"http://127.0.0.1:{full.getsockname()[1]}/x")
        for one in fill:
            one.close()
    assert error.value.not_sent


async def test_a_late_answer_may_have_had_its_effect(serve, client):
    never = asyncio.Event()

    async def hangs(request: Request) -> Response:
        await never.wait()
        return Response(204)

    server = await serve(hangs)
    with pytest.raises(Unreachable) as error:
        await client.request("POST", f"http://127.0.0.1:{server.port}/", timeout_s=0.1)
    never.set()
    assert not error.value.not_sent


async def test_a_connection_that_breaks_after_the_request_may_have_had_its_effect(client):
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)  # the preface of HTTP/2
        writer.transport.abort()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable) as error:
            await client.request("POST", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", body=b"x")
    assert not error.value.not_sent


async def test_an_answer_over_the_limit_is_dropped(serve, client, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 1000)
    server = await serve(echo)
    url = f"http://127.0.0.1:{server.port}/"
    assert len((await client.request("POST", url, body=b"x" * 1000)).body) == 1000
    with pytest.raises(Unreachable, match="more than 1000 bytes"):
        await client.request("POST", url, body=b"x" * 1001)


@pytest.mark.parametrize("url", ["", "/x", "http://", "nonsense"])
async def test_a_malformed_url_is_the_callers_mistake(client, url):
    with pytest.raises(ValueError, match=r"URL|host"):
        await client.request("GET", url)


async def test_a_server_that_comes_back_is_found_again(serve, client):
    first = await serve(echo)
    url = f"http://127.0.0.1:{first.port}/"
    await client.request("GET", url)
    await first.stop()
    with pytest.raises(Unreachable):
        await client.request("GET", url)
    await serve(echo, port=first.port)
    assert (await client.request("GET", url)).status == 200


async def test_an_environment_proxy_is_not_used(serve, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    server = await serve(echo)
    async with SbiClient() as fresh:
        assert (await fresh.request("GET", f"http://127.0.0.1:{server.port}/")).status == 200
