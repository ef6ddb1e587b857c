import ssl

import pytest

from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer, ServerTls


async def hello(request: Request) -> Response:
    return Response(200, body=b"hello")


@pytest.fixture
def ours(authority):
    return authority("ours")


@pytest.fixture
def partner(authority):
    return authority("partner")


@pytest.fixture
async def server(serve, ours, partner):
    return await serve(hello, tls=ours.server("border", clients=partner))


async def refusal(url: str, **options) -> Unreachable:
    async with SbiClient(**options) as client:
        with pytest.raises(Unreachable) as refused:
            await client.request("GET", url)
    return refused.value


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_partner_with_its_certificate_is_served(serve, ours, partner, bulk):
    server = await serve(hello, tls=ours.server("border", clients=partner), bulk=bulk)
    async with SbiClient(tls=partner.client("peer", servers=ours), bulk=bulk) as client:
        for host in ("127.0.0.1", "localhost"):
            assert (await client.request("GET", f"https://{host}:{server.port}/")).body == b"hello"


async def test_a_client_without_a_certificate_is_refused(server, ours, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.file))  # so that the server, at least, is trusted
    error = await refusal(f"https://127.0.0.1:{server.port}/")
    assert "UnknownIssuer" not in str(error)


async def test_a_client_of_another_authority_is_refused(server, ours, authority):
    await refusal(f"https://127.0.0.1:{server.port}/", tls=authority("other").client("peer", servers=ours))


async def test_a_client_that_speaks_no_tls_is_refused(server):
    await refusal(f"http://127.0.0.1:{server.port}/")


async def test_a_server_of_another_authority_is_not_trusted(serve, authority, partner, ours):
    server = await serve(hello, tls=authority("other").server("border", clients=partner))
    error = await refusal(f"https://127.0.0.1:{server.port}/", tls=partner.client("peer", servers=ours))
    assert error.not_sent


async def test_an_authority_of_the_system_does_not_speak_for_a_partner(serve, authority, partner, ours, monkeypatch):
    other = authority("other")
    server = await serve(hello, tls=other.server("border", clients=partner))
    monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    error = await refusal(f"https://127.0.0.1:{server.port}/", tls=partner.client("peer", servers=ours))
    assert "UnknownIssuer" in str(error)


async def test_a_server_with_another_name_is_not_trusted(server, partner, ours):
    await refusal(f"https://127.0.0.2:{server.port}/", tls=partner.client("peer", servers=ours))


async def test_a_client_with_a_certificate_never_speaks_in_the_clear(serve, partner, ours):
    plain = await serve(hello)
    await refusal(f"http://127.0.0.1:{plain.port}/", tls=partner.client("peer", servers=ours))


async def test_a_key_of_another_certificate_is_an_error_at_start(ours, partner):
    one, two = ours.server("one", clients=partner), ours.server("two", clients=partner)
    with pytest.raises(ssl.SSLError):
        await SbiServer(hello, tls=one._replace(key_file=two.key_file)).start()


async def test_an_authority_file_without_a_certificate_is_an_error_at_start(ours, partner):
    files = ours.server("one", clients=partner)
    with pytest.raises(ssl.SSLError):
        await SbiServer(hello, tls=ServerTls(files.cert_file, files.key_file, files.key_file)).start()
