"""For authors of NF services; runs inside workers and depends on no other part of Outrider.

    import outrider.sdk as sdk

    nf = sdk.NfService(app)             # any ASGI app: Starlette, FastAPI, plain

    @nf.on_timer("renew")
    async def renew(timer: sdk.Timer) -> None:
        unit = sdk.unit()               # the unit of work that this code runs in
        unit.put("grant", {"until": unit.now_ms + 60_000})
        unit.arm("renew", after_ms=30_000)

One rule to know: **state that is kept anywhere else than in `unit()` does not move with the UE**. Module globals,
`app.state`, files and caches stay where they are; `outrider.sdk.testing` finds them. See `Unit` for all a unit does.
"""

from outrider.sdk.service import Message, NfService, Timer
from outrider.sdk.unit import NoUnit, Reject, Replica, Reply, Serving, Unit, unit

__all__ = [
    "Message",
    "NfService",
    "NoUnit",
    "Reject",
    "Replica",
    "Reply",
    "Serving",
    "Timer",
    "Unit",
    "unit",
]
