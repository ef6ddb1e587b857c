"""Requests within the own network, with tokens of its NRF: for the LMSF, and for the operator's commands."""

from collections.abc import Sequence

import msgspec

from outrider.sbi.client import SbiClient
from outrider.sbi.http import Response
from outrider.sbi.problem import JSON
from outrider.sbi.tokens import TokenSource

_encoder = msgspec.json.Encoder()


def bodied(headers: Sequence[tuple[str, str]], body: bytes, json: object) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of a request whose body may be given as JSON."""
    sent = list(headers)
    if json is not msgspec.UNSET:
        body = _encoder.encode(json)
        if not any(name.lower() == "content-type" for name, _ in sent):
            sent.append(("content-type", JSON))
    return sent, body


class Inner:
    """Implements the LMSF's port of this name."""

    def __init__(self, client: SbiClient, tokens: TokenSource) -> None:
        self._client = client
        self._tokens = tokens

    async def request(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        target_nf_type: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = msgspec.UNSET,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send with a token for `scope`; a token that is refused is fetched anew once."""
        sent, body = bodied(headers, body, json)
        for attempt in range(2):
            bearer = await self._tokens.bearer(scope=scope, target_nf_type=target_nf_type)
            response = await self._client.request(
                method, url, headers=[*sent, ("authorization", bearer)], body=body, timeout_s=timeout_s
            )
            if response.status != 401 or attempt:
                break
            self._tokens.forget()
        return response
