"""The link of a peer that has no networks: a relay before its target."""

import socket
from pathlib import Path

from outrider.bench.options import Link
from outrider.demo.processes import Running

HOST = "127.0.0.1"


async def relay_to(port: int, link: Link, directory: Path) -> Running:
    """Start a relay of that link to a port; `ready` says where it listens."""
    rate = [] if link.mbit is None else ["--bytes-per-s", str(int(link.mbit * 1e6 / 8))]
    return await Running.start(
        "relay", directory / "relay.log", "outrider.demo.relay",
        "--listen", f"{HOST}:0", "--connect", f"{HOST}:{port}", "--delay-ms", str(link.rtt_ms / 2), *rate,
    )  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; whoever listens there says if one is taken before it starts."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
