"""Writes frames to the other side of a worker's socket; used at both ends."""

import asyncio


class Writer:
    """Collects the frames of one turn of the event loop into one write: under load, one system call for many units."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self.pending_bytes = 0
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []

    def write(self, frame: bytes) -> None:
        """Send it with this turn's other frames."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(frame)
        self.pending_bytes += len(frame)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self.pending_bytes = 0
        if not self._transport.is_closing():
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))
