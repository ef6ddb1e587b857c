"""Two machines, two keepers and a bad link: whatever is lost, doubled, late or restarted, they end, and alike.

The keepers are as small as they can be: a key is at the source, at the target, or given and not yet decided. The
link loses, doubles and reorders views; commands are cut off and given again; the target's store may be lost, and the
source's operator says so. Checked: nothing is granted after a stop, nothing is erased that somebody owns or that is not
decided, nothing is taken back from a store that lives, and both sides come to the same end.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from outrider.protocol import migration as m
from outrider.protocol import phase as phases
from outrider.protocol.migration import MIGRATION
from outrider.protocol.phase import ENDS, Command, Ending, Fact, Phase, Role, Row, over

C, S, T = Command, Role.SOURCE, Role.TARGET
OTHER = {S: T, T: S}
KEYS = 6


class Broken(AssertionError):
    """Something happened that must never happen."""


@dataclass
class Keepers:
    """Where keys are: "S", "T", ">" given to the target and not decided, "<" given back and not decided; "X" in a store
    that is lost."""

    keys: list[str] = field(default_factory=lambda: ["S"] * KEYS)
    granting: bool = False
    stopped: set[Role] = field(default_factory=set)
    taking: bool = False
    open: bool = False
    giving: bool = False
    exists: bool = False
    sweep: bool = False
    lost: bool = False

    def lose(self) -> None:
        """The target's disk is gone; what was on its way to it is never answered."""
        self.lost = True
        self.keys = ["X" if key in "T<>" else key for key in self.keys]

    def move(self, chance: random.Random) -> None:
        i = chance.randrange(KEYS)
        match self.keys[i]:
            case "S" if self.granting and S not in self.stopped and (self.sweep or chance.random() < 0.5):
                self.keys[i] = "X" if self.lost else ">"
            case ">" if self.exists:
                self.keys[i] = "T" if self.taking and T not in self.stopped else "S"
            case "T" if self.giving:
                self.keys[i] = "<"
            case "<" if self.open:
                self.keys[i] = "S"

    @property
    def whole(self) -> bool:
        return all(k == "S" for k in self.keys)

    @property
    def empty(self) -> bool:
        return not any(k in "T<" for k in self.keys)


class World:
    def __init__(self, chance: random.Random, *, move_all: bool) -> None:
        self.chance, self.move_all = chance, move_all
        self.rows: dict[Role, Row] = {S: Row(S, move_all)}
        self.commands: dict[Role, list[Command]] = {S: [], T: []}
        self.arriving: dict[Role, list[Any]] = {S: [m.Begin()], T: []}
        self.keepers = Keepers()
        self.early = False
        """A key has moved while the copy ran."""

    def feed(self, role: Role, event: Any) -> None:
        if role not in self.rows:
            return
        step = MIGRATION.step(self.rows[role], None, event)
        self.rows[role] = step.row
        if step.commands:
            self.commands[role] = list(step.commands)

    @property
    def over(self) -> bool:
        return all(over(row) for row in self.rows.values())

    def tick(self, *, good: bool) -> None:
        """One thing happens; with `good` nothing is lost any more, so that there is an end."""
        chance = self.chance
        self.keepers.move(chance)
        self.early |= self.rows[S].phase is Phase.COPYING and "T" in self.keepers.keys
        role = chance.choice([S, T])
        if self.arriving[role]:
            event = chance.choice(self.arriving[role])
            if good or chance.random() < 0.8:  # else it will come once more
                self.arriving[role].remove(event)
            return self.feed(role, event)
        if chance.random() < 0.1:
            return self.feed(role, m.Resume())
        if self.commands[role]:
            command = self.commands[role][0]
            # The next of the list, unless what was done has replaced it.
            if self.do(role, command, good=good) and self.commands[role][:1] == [command]:
                self.commands[role].pop(0)
        elif role in self.rows and good:
            self.feed(role, m.Resume())
        return None

    def refuse(self, odds: float, cause: str) -> Ending | None:
        return Ending(cause, cause) if self.chance.random() < odds else None

    def do(self, role: Role, command: Command, *, good: bool) -> bool:
        k, row = self.keepers, self.rows[role]
        found: list[Any] = []
        match command:
            case C.SEND_OFFER:
                if T not in self.rows:
                    self.rows[T] = Row(T, self.move_all)
                    self.feed(T, m.Begin())
                target = self.rows[T]
                if target.phase is Phase.NEGOTIATING:
                    return False
                refused = target.ending if target.phase is Phase.ABORTED else None
                found = [m.OfferJudged(refused)]
            case C.JUDGE_OFFER:
                found = [m.OfferJudged(self.refuse(0.1, "NF_TYPE_ABSENT"))]
            case C.CHECK_PERMISSIONS:
                self.feed(T, m.Judged(self.refuse(0.1, "PERMISSION_MISSING")))
                permitted = Fact.PERMITTED in self.rows[T].facts
                found = [m.Judged(None if permitted else Ending("PERMISSION_MISSING", "no"))]
            case C.OPEN_STAGING:
                k.exists = k.taking = True
            case C.SELF_TEST:
                refused = self.refuse(0.1, "WORKER_DEAD")
                found = [m.Failed(refused) if refused else m.Prepared()]
            case C.START_COPY:
                k.granting = True
            case C.AWAIT_COPY:
                if not good and self.chance.random() < 0.9:  # a copy takes a while, and UEs come meanwhile
                    return False
                found = [m.CopyDurable()]
            case C.RELOCATE:
                k.granting, k.sweep = True, self.move_all
            case C.AWAIT_MOVED:
                if not (self.move_all and all(key == "T" for key in k.keys)):
                    return False
                found = [m.AllMoved()]
            case C.STOP_GRANTING:
                k.stopped.add(role)
                found = [m.Stopped()]
            case C.TAKE_BACK:
                k.granting, k.open = False, True
                found = [m.Receiving()]
            case C.GIVE_BACK:
                if not k.open:
                    raise Broken("the target gives to a source that does not take")
                k.giving = True
            case C.CHECK_WHOLE:
                if phases.may_have_moved(row) and not k.whole:
                    return False
                found = [m.Whole()]
            case C.CHECK_EMPTY:
                if not k.empty:
                    return False
                found = [m.Empty()]
            case C.DECLARE_LOST:
                if not k.lost:
                    raise Broken("a store that lives is declared lost")
                k.keys = ["S" if key == "X" else key for key in k.keys]
                found = [m.Whole()]
            case C.CLEAR:
                if not k.whole:
                    raise Broken(f"erased while keys are {k.keys}")
                k.exists = False
                found = [m.Cleared()]
            case C.CLOSE:
                found = [m.Closed()]
            case C.TELL_PARTNER:
                found = self.tell(role, row, good=good)
        for event in found:
            self.feed(role, event)
        return True

    def tell(self, role: Role, row: Row, *, good: bool) -> list[Any]:
        other = OTHER[role]
        if not good and self.chance.random() < 0.3:
            return []
        if other not in self.rows:
            return [m.PeerForgot()]
        self.arriving[other].append(m.PeerIs(row.phase, row.facts, row.ending))
        theirs = self.rows[other]
        return [m.PeerIs(theirs.phase, theirs.facts, theirs.ending)]


def live(seed: int) -> World:
    chance = random.Random(seed)
    world = World(chance, move_all=chance.random() < 0.5)
    wishes = [
        m.StopAsked(Ending("OPERATOR_ABORT", "stop")),
        m.ReturnAsked(Ending("RETURN_ASKED", "back")),
        m.TermsEnded(Ending("STAY_ENDED", "over")),
    ]
    lost = m.DeclaredLost(Ending("STORE_LOST", "gone"))
    for _ in range(chance.randrange(400)):
        world.tick(good=False)
        if chance.random() < 0.0005:
            world.keepers.lose()
        if world.keepers.lost and chance.random() < 0.01:
            world.feed(S, lost)
        if chance.random() < 0.01:
            world.feed(chance.choice([S, T]), chance.choice(wishes))
    for i in range(4_000):
        if world.over:
            break
        if i == 500:  # whoever is still there goes home
            world.feed(S, wishes[1])
            if world.rows[S].phase in m.BEFORE:
                world.feed(S, wishes[0])
        if i == 1_000 and world.keepers.lost:
            world.feed(S, lost)
        world.tick(good=True)
    return world


@pytest.mark.parametrize("block", range(20))
def test_they_end_alike_with_every_key_at_home(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        world = live(seed)
        assert world.over, (seed, world.rows, world.keepers)
        assert world.keepers.whole, seed
        ends = {row.phase for row in world.rows.values()}
        assert len(ends) == 1, (seed, world.rows)
        assert ends <= set(ENDS)


def test_stores_are_lost_and_declared_lost() -> None:
    worlds = [live(seed) for seed in range(300)]
    declared = [w for w in worlds if Fact.LOST in w.rows[S].facts]
    assert len(declared) > 5
    assert all(w.rows[S].phase is Phase.ABORTED and w.rows[S].ending.cause == "STORE_LOST" for w in declared)
    assert any(w.keepers.lost and Fact.LOST not in w.rows[S].facts for w in worlds), "lost before anything was there"


def test_both_ends_and_every_phase_are_reached() -> None:
    reached = {row.phase for seed in range(300) for row in live(seed).rows.values()}
    assert reached == set(ENDS)


def test_keys_move_while_the_copy_runs_and_come_home_when_it_is_stopped() -> None:
    met = [
        w.rows[S].ending.phase for seed in range(300) if (w := live(seed)).rows[S].phase is Phase.ABORTED and w.early
    ]
    assert met.count(Phase.COPYING) > 5


def _any_breaks(seeds: range) -> bool:
    for seed in seeds:
        try:
            live(seed)
        except Broken:
            return True
    return False


def test_the_rule_that_home_must_have_everything_before_the_target_erases_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The twin without it erases a store that a grant is on its way to."""

    def too_soon(row: Row) -> bool:
        return Fact.PREPARED not in row.facts or Fact.RETURNED in row.facts

    monkeypatch.setattr(phases, "may_clear", too_soon)
    monkeypatch.setattr(m, "may_clear", too_soon)
    assert _any_breaks(range(2_000))


def test_the_rule_that_the_source_must_take_before_the_target_gives_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(row: Row) -> tuple[Command, ...]:
        return () if Fact.RETURNED in row.facts else (C.GIVE_BACK, C.CHECK_EMPTY)

    monkeypatch.setattr(phases, "_give_back", at_once)
    assert _any_breaks(range(2_000))


def test_the_rule_that_keys_may_be_away_from_the_copy_on_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin that begins to look for them when the copy is durable erases what came early."""

    def later(row: Row) -> bool:
        reached = row.ending.phase if row.ending is not None and row.phase is Phase.ABORTING else row.phase
        return reached.rank >= Phase.RELOCATING.rank

    monkeypatch.setattr(phases, "may_have_moved", later)
    monkeypatch.setattr(m, "may_have_moved", later)
    assert _any_breaks(range(2_000))
