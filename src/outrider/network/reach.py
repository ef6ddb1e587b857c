"""How the operator's commands reach the running node of a folder: its address, and tokens by the network's own key."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.network import state
from outrider.network.inner import Inner
from outrider.network.keys import Keys, load_private, private_pem
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource


class Reach:
    """The operator's way to the node: whoever can read the folder's keys is the operator."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.node = state.running(directory)
        keys = Keys(directory / "keys")
        instance = keys.instances().lmsf
        signer = CcaSigner(private_pem(load_private(keys.internal_key)), instance)
        self._client = SbiClient()
        tokens = TokenSource(self._client, self.node.root, instance, "LMSF", signer)
        self._inner = Inner(self._client, tokens)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        scope: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = msgspec.UNSET,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send to the node, with a token for `scope` where one is needed; `Refused` (NODE_DOWN) if it is not there."""
        url = self.node.root + path
        try:
            if scope is None:
                return await self._client.request(
                    method, url, headers=headers, body=body, json=json, timeout_s=timeout_s
                )
            return await self._inner.request(
                method,
                url,
                scope=scope,
                target_nf_type="LMSF",
                headers=headers,
                body=body,
                json=json,
                timeout_s=timeout_s,
            )
        except Unreachable as error:
            raise Refused(
                Refusal(
                    "NODE_DOWN",
                    f"The node of {self._directory} ran as process {self.node.pid}, but does not answer: {error}.",
                    {"root": self.node.root},
                    f"Look at its log, and start it with `outrider network run {self._directory}`.",
                    status=504,
                )
            ) from None
