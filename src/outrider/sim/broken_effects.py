"""Outbox and timers with one rule taken out, as worlds to be searched (`sim.twins` says what is found)."""

# ruff: noqa: D102 (a twin's class says what it does wrong; what its methods are for is said in `EffectWorld`)

from outrider.protocol.ownership import Row
from outrider.sim.effects import Content, EffectWorld, Entry, Net, State


class DeliveryNotOpen(EffectWorld):
    """A key is given away while one of its deliveries is under way."""

    def may_drain(self, net: Net) -> bool:
        return True


class ManyUnderWay(EffectWorld):
    """The next entry leaves before the one before it was answered."""

    def one_under_way(self) -> bool:
        return False


class CountsAnew(EffectWorld):
    """A new owner counts its units from the beginning, and so the ids of its entries."""

    blind = ("§5: entry",)

    def received(self, content: Content) -> Content:
        return content._replace(n=0)


class OutboxStaysBehind(EffectWorld):
    """A new owner does not go on with the entries that are left."""

    def received(self, content: Content) -> Content:
        return content._replace(outbox=())


class EntryBeforeDisk(EffectWorld):
    """An entry leaves before its unit is durable."""

    def leaves_after_commit(self) -> bool:
        return False


class DeletedFirst(EffectWorld):
    """An entry is deleted from the outbox before it is delivered."""

    def deleted_after_answer(self) -> bool:
        return False


class NothingDropped(EffectWorld):
    """The receiver takes whatever comes."""

    def drops(self, s: State, entry: Entry) -> bool:
        return False


class LastIdInMemory(EffectWorld):
    """The receiver forgets the last id when it restarts."""

    def remembers(self) -> bool:
        return False


class ShadowFires(EffectWorld):
    """The timer of a copy fires."""

    def may_fire(self, row: Row) -> bool:
        return True


class GenerationUnchecked(EffectWorld):
    """A firing does not ask whether its generation is still the armed one."""

    def is_current(self, net: Net) -> bool:
        return True


class RearmedApart(EffectWorld):
    """A timer is armed anew in another commit than the one in which it fires."""

    def rearms_in_commit(self) -> bool:
        return False


class OverdueNotFound(EffectWorld):
    """A timer that was due before its key came is not looked at again."""

    def notes_arrival(self) -> bool:
        return False
