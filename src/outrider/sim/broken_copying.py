"""The copy with one rule taken out, as worlds to be searched (`sim.twins` says what is found)."""

# ruff: noqa: D102 (a twin's class says what it does wrong; what its methods are for is said in `CopyWorld`)

from outrider.protocol.ownership import Ownership, Row
from outrider.sim.copying import Copies, Copy, CopyWorld, Frame, State


class DurableBeforeSeal(CopyWorld):
    """A copy counts as durable when it has been sent, before the target has made it so."""

    def durable_when(self, s: State, frame: Frame) -> bool:
        return frame.kind == "chunk" and frame.gen == s.a.gen and s.a.cursor == 2


class AheadDropped(CopyWorld):
    """What is committed between the reading of a chunk and its sending is not sent behind it."""

    def keeps_ahead(self) -> bool:
        return False


class StagingKept(CopyWorld):
    """A staging file is used on after a crash, though it has no journal."""

    def staged_after_crash(self, staged: Copies | None) -> Copies | None:
        return staged and tuple(copy and Copy(copy.head, copy.units - 1) for copy in staged)


class StagingWins(CopyWorld):
    """The staging file replaces what came early."""

    def carried(self, row: Row, live: Copy | None, staged: Copy | None) -> bool:
        return live is not None and staged is None


class StagedOverNewer(CopyWorld):
    """The staging file replaces what came early and went back, though that is newer."""

    def carried(self, row: Row, live: Copy | None, staged: Copy | None) -> bool:
        return live is not None and (row.state is not Ownership.FOREIGN or staged is None)


class RowBeforeContent(CopyWorld):
    """The OWNED row is durable before the content is."""

    def with_row(self) -> bool:
        return False


class GhostsStay(CopyWorld):
    """A chunk leaves UEs in its range that the source does not have."""

    def deletes_ghosts(self) -> bool:
        return False


class LogOnOwned(CopyWorld):
    """A log entry or chunk is applied to what this network owns."""

    def may_follow(self, row: Row) -> bool:
        return True
