"""The way to a partner's keeper says whether what it was given has certainly not arrived."""

from collections.abc import AsyncIterator

import pytest

from outrider.functions.n32.inbound import unreachable
from outrider.host.link import Link
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer


class Tokens:
    """Stands where the NRF's tokens come from."""

    async def bearer(self, **_: object) -> str:
        return "Bearer t"

    def forget(self) -> None:
        pass


@pytest.fixture
async def answers() -> AsyncIterator[tuple[list[Response], Link]]:
    given: list[Response] = []

    async def border(request: Request) -> Response:
        return given.pop()

    server = SbiServer(border)
    await server.start()
    async with SbiClient() as client:
        link = Link("counter", "999-70", f"http://127.0.0.1:{server.port}", client, Tokens())  # type: ignore[arg-type]
        yield given, link
        await link.close()
    await server.stop()


@pytest.mark.parametrize("not_sent", [True, False])
async def test_what_the_border_knows_is_passed_on(answers, not_sent):
    given, link = answers
    given.append(unreachable("The border of B did not answer.", Unreachable("x", not_sent=not_sent)))
    with pytest.raises(Unreachable) as caught:
        await link.post("999-71", b"", bulk=False)
    assert caught.value.not_sent is not_sent
