"""Requests with one rule taken out, as worlds to be searched (`sim.twins` names them and says what is found)."""

# ruff: noqa: D102 (a twin's class says what it does wrong; what its methods are for is said in `RequestWorld`)

from outrider.protocol.ownership import Row
from outrider.sim.requests import Host, Job, Msg, Pending, RequestWorld, Unit


class RunsAgain(RequestWorld):
    """What has run is not known by its idempotency row."""

    def ran_before(self, copy: tuple[int, ...], r: int) -> int | None:
        return None


class NotTakenBack(RequestWorld):
    """Own forwards without an answer are left where they are when their key comes."""

    def takes_back(self) -> bool:
        return False


class NotTakenBackRefused(RequestWorld):
    """Own forwards without an answer are left where they are when the grant behind which they went is refused."""

    def takes_back_refused(self) -> bool:
        return False


class QueueBeforeHeld(RequestWorld):
    """What has waited at the new owner runs before what rode in the grant."""

    def at_acceptance(self, held: list[Job], own: list[Job], queue: tuple[Job, ...]) -> list[Job]:
        return [*super().at_acceptance([], own, queue), *held]


class OwnBehindQueue(RequestWorld):
    """Own forwards that are taken back run behind what has waited at the new owner."""

    def at_acceptance(self, held: list[Job], own: list[Job], queue: tuple[Job, ...]) -> list[Job]:
        return [*held, *queue, *own]


class OwnAsTheyLeft(RequestWorld):
    """Own forwards that are taken back run in the order in which they left last, before what has waited here."""

    def at_acceptance(self, held: list[Job], own: list[Job], queue: tuple[Job, ...]) -> list[Job]:
        return [*held, *own, *queue]


class HeldForgotten(RequestWorld):
    """The giver keeps no copy of what rides in its grant."""

    def keeps_given(self) -> bool:
        return False


class ForwardsForwards(RequestWorld):
    """A forward that has come to the wrong network is forwarded on."""

    def passes_on(self) -> bool:
        return True


class AimsAnywhere(RequestWorld):
    """A request that was not run goes wherever it is told, whatever the epoch."""

    def aims_again(self, job: Job, me: int, epoch: int, owner: int) -> bool:
        return True


class ForwardNotAwaited(RequestWorld):
    """A forward does not wait for the grant that its sender knows of."""

    def waits(self, job: Job, row: Row) -> bool:
        return False


class LateIs503(RequestWorld):
    """A forward that may have arrived and has no answer in time is told 503."""

    def late(self, pending: Pending, *, left: bool) -> int:
        return 503


class LastTryIs503(RequestWorld):
    """503 of the owner is passed on, though the request was sent before."""

    def believed(self, pending: Pending, status: int) -> int:
        return status


class SentAfterAnswer(RequestWorld):
    """What a lane has not seen acknowledged is sent again to a new incarnation, also when it has been answered."""

    def settled(self, lane: tuple[Msg, ...], fwd: int) -> tuple[Msg, ...]:
        return lane


class RestartUnnoticed(RequestWorld):
    """That a restarted peer did not run a request is taken to mean that it never did."""

    def marks_restart(self) -> bool:
        return False


class TwoAtOnce(RequestWorld):
    """Two units of one key run at a time."""

    def may_begin(self, host: Host) -> bool:
        return True


class OldProcessCommits(RequestWorld):
    """A commit does not ask whether its process is still the one that the disk belongs to."""

    def ghosts_commit(self) -> bool:
        return True


class ReadUnchecked(RequestWorld):
    """A read of a held key is answered whoever owns the key by then."""

    def still_owned(self, host: Host, read: Unit) -> bool:
        return True


class ReadsAnywhere(RequestWorld):
    """Reads are answered from whatever copy is there."""

    def reads_at(self, row: Row) -> bool:
        return True
