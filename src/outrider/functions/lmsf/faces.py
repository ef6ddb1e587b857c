"""Who may ask what of an LMSF: the own network (operator, CLI, console) and each partner, with their tokens."""

from outrider.core.ids import NetworkId
from outrider.functions.lmsf import openapi, operator, partner
from outrider.functions.lmsf.engine import Lmsf
from outrider.functions.lmsf.guard import Guard
from outrider.sbi.router import Router
from outrider.sbi.tokens import TokenVerifier


class Faces:
    """The APIs of one LMSF."""

    def __init__(self, lmsf: Lmsf, verifier: TokenVerifier) -> None:
        self._lmsf = lmsf
        self._guard = Guard(verifier, lmsf.config.instance_id, lmsf.config.network, lmsf.clock, lmsf.calls)
        self.router = Router()
        operator.routes(lmsf, self._guard.routes(self.router, lmsf.config.network))
        openapi.routes(self.router)

    def partner_router(self, network: str) -> Router:
        """What one partner may reach; its tokens must name it as the consumer's network."""
        router = Router()
        partner.routes(self._lmsf, network, self._guard.routes(router, NetworkId.parse(network)))
        return router
