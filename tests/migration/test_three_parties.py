"""Three machines and a bad link: home leads, one gives, one takes; they end, and alike, with no key at the target.

A smaller world than that of two parties: a key is at the giver ("G"), given and not decided (">"), at the target ("T"),
given back and not decided ("<"), or home ("H"). Checked: nothing is given after a stop, nothing is erased that somebody
owns or that is not decided, and all three come to the same end.
"""

import random
from typing import Any

import pytest

from outrider.protocol import migration as m
from outrider.protocol import phase as phases
from outrider.protocol.migration import MIGRATION
from outrider.protocol.phase import ENDS, Command, Ending, Fact, Phase, Role, Row, over

C, H, G, T = Command, Role.HOME, Role.GIVER, Role.TARGET
KEYS = 5


class Broken(AssertionError):
    """Something happened that must never happen."""


class World:
    def __init__(self, chance: random.Random, *, move_all: bool) -> None:
        self.chance, self.move_all = chance, move_all
        self.rows: dict[Role, Row] = {H: Row(H, move_all)}
        self.commands: dict[Role, list[Command]] = {H: [], G: [], T: []}
        self.arriving: dict[Role, list[Any]] = {H: [m.Begin()], G: [], T: []}
        self.keys = ["G"] * KEYS
        self.giving = self.sweep = self.takes = self.home_takes = self.gives_back = False
        self.stopped: set[Role] = set()
        self.erased = False

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

    def move(self) -> None:
        i = self.chance.randrange(KEYS)
        match self.keys[i]:
            case "G" if self.giving and G not in self.stopped and (self.sweep or self.chance.random() < 0.5):
                self.keys[i] = ">"
            case ">" if self.erased:
                raise Broken("a key is given to a store that is erased")
            case ">":
                self.keys[i] = "T" if self.takes else "G"
            case "T" if self.gives_back:
                self.keys[i] = "<"
            case "<" if self.home_takes:
                self.keys[i] = "H"

    def tick(self, *, good: bool) -> None:
        """One thing happens; with `good` nothing is lost any more, so that there is an end."""
        self.move()
        role = self.chance.choice([H, G, T])
        if self.arriving[role]:
            event = self.chance.choice(self.arriving[role])
            if good or self.chance.random() < 0.8:  # else it will come once more
                self.arriving[role].remove(event)
            self.feed(role, event)
        elif self.chance.random() < 0.1:
            self.feed(role, m.Resume())
        elif self.commands[role]:
            command = self.commands[role][0]
            if self.do(role, command, good=good) and self.commands[role][:1] == [command]:
                self.commands[role].pop(0)
        elif good:
            self.feed(role, m.Resume())

    def refuse(self, odds: float, cause: str) -> Ending | None:
        return Ending(cause, cause) if self.chance.random() < odds else None

    def do(self, role: Role, command: Command, *, good: bool) -> bool:
        row, found = self.rows[role], list[Any]()
        match command:
            case C.SEND_OFFER:
                for other in (G, T):
                    if other not in self.rows:
                        self.rows[other] = Row(other, self.move_all)
                        self.feed(other, m.Begin())
                if any(self.rows[other].phase is Phase.NEGOTIATING for other in (G, T)):
                    return False
                refused = next((r.ending for r in self.rows.values() if r.phase is Phase.ABORTED), None)
                found = [m.OfferJudged(refused)]
            case C.JUDGE_OFFER:
                found = [m.OfferJudged(self.refuse(0.05, "NF_TYPE_ABSENT"))]
            case C.CHECK_PERMISSIONS:
                for other in (G, T):
                    self.feed(other, m.Judged(self.refuse(0.05, "PERMISSION_MISSING")))
                permitted = all(Fact.PERMITTED in self.rows[other].facts for other in (G, T))
                found = [m.Judged(None if permitted else Ending("PERMISSION_MISSING", "no"))]
            case C.OPEN_STAGING:
                self.takes = T not in self.stopped
            case C.SELF_TEST:
                refused = self.refuse(0.05, "WORKER_DEAD")
                found = [m.Failed(refused) if refused else m.Prepared()]
            case C.START_COPY | C.RELOCATE:
                self.giving = self.giving or role is G
                self.sweep = self.sweep or (role is G and command is C.RELOCATE and self.move_all)
            case C.AWAIT_COPY:
                if role is H and Fact.COPIED not in row.giver_facts:
                    return False
                if role is G and not good and self.chance.random() < 0.9:  # UEs come while it runs
                    return False
                found = [m.CopyDurable()]
            case C.AWAIT_MOVED:
                if (Fact.MOVED not in row.giver_facts) if role is H else any(key in "G>" for key in self.keys):
                    return False
                found = [m.AllMoved()]
            case C.STOP_GRANTING:
                self.stopped.add(role)
                self.takes = self.takes and role is not T
                found = [m.Stopped()]
            case C.CHECK_DECIDED:
                if ">" in self.keys:
                    return False
                found = [m.Decided()]
            case C.TAKE_BACK:
                self.home_takes = True
                found = [m.Receiving()]
            case C.GIVE_BACK:
                if not self.home_takes:
                    raise Broken("the target gives to a home that does not take")
                self.takes, self.gives_back = False, True
            case C.CHECK_EMPTY:
                if "T" in self.keys or "<" in self.keys:
                    return False
                found = [m.Empty()]
            case C.CHECK_WHOLE:
                found = [m.Whole()]
            case C.CLEAR:
                if set(self.keys) - {"G", "H"}:
                    raise Broken(f"erased while keys are {self.keys}")
                self.takes, self.erased = False, True
                found = [m.Cleared()]
            case C.CLOSE:
                found = [m.Closed()]
            case C.TELL_PARTNER:
                found = [event for other in ((G, T) if role is H else (H,)) for event in self.tell(role, other, good)]
        for event in found:
            self.feed(role, event)
        return True

    def tell(self, role: Role, other: Role, good: bool) -> list[Any]:
        if not good and self.chance.random() < 0.3:
            return []
        if other not in self.rows:
            return [m.PeerForgot()] if other is T or self.rows[role].phase in m.BEFORE else []
        mine, theirs = self.rows[role], self.rows[other]
        self.arriving[other].append(m.PeerIs(mine.phase, mine.facts, mine.ending, giver=role is G))
        return [m.PeerIs(theirs.phase, theirs.facts, theirs.ending, giver=other is G)]


def live(seed: int) -> World:
    chance = random.Random(seed)
    world = World(chance, move_all=chance.random() < 0.5)
    wishes = [
        m.StopAsked(Ending("OPERATOR_ABORT", "stop")),
        m.ReturnAsked(Ending("RETURN_ASKED", "back")),
        m.TermsEnded(Ending("STAY_ENDED", "over")),
    ]
    for _ in range(chance.randrange(600)):
        world.tick(good=False)
        if chance.random() < 0.01:
            world.feed(chance.choice([H, G, T]), chance.choice(wishes))
    for i in range(6_000):
        if world.over:
            break
        if i == 800:  # whoever is still there goes home
            world.feed(H, wishes[1])
            if world.rows[H].phase in m.BEFORE:
                world.feed(H, wishes[0])
        world.tick(good=True)
    return world


@pytest.mark.parametrize("block", range(5))
def test_they_end_alike_and_no_key_is_at_the_target(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        world = live(seed)
        assert world.over, (seed, world.rows, world.keys)
        assert set(world.keys) <= {"G", "H"}, (seed, world.keys)
        ends = {row.phase for row in world.rows.values()}
        assert len(ends) == 1, (seed, world.rows)
        assert ends <= set(ENDS)


def test_both_ends_are_reached_with_keys_that_had_moved() -> None:
    worlds = [live(seed) for seed in range(300)]
    for end in ENDS:
        assert any(w.rows[H].phase is end and "H" in w.keys for w in worlds)


def _any_breaks(seeds: range) -> bool:
    for seed in seeds:
        try:
            live(seed)
        except Broken:
            return True
    return False


@pytest.mark.parametrize("needed", [Fact.RETURNED, Fact.DECIDED])
def test_home_needs_the_word_of_both_before_the_target_erases(needed: Fact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin that does not wait for one of them erases a store that owns a key, or that a key is on its way to."""

    def hasty(row: Row) -> bool:
        told = row.giver_facts if needed is Fact.RETURNED else row.peer_facts
        return (Fact.DECIDED if needed is Fact.RETURNED else Fact.RETURNED) in told

    def too_soon(row: Row) -> bool:
        return Fact.PREPARED not in row.facts or Fact.HOME in row.peer_facts or row.peer in ENDS

    for module in (phases, m):
        monkeypatch.setattr(module, "nothing_there", hasty)
        if needed is Fact.RETURNED:  # else the target's own word holds it back
            monkeypatch.setattr(module, "may_clear", too_soon)
    assert _any_breaks(range(2_000))


def test_the_rule_that_keys_may_be_away_from_the_copy_on_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of home does not ask the two where keys are if it stops the copy; the target erases what came early."""

    def later(row: Row) -> bool:
        reached = row.ending.phase if row.ending is not None and row.phase is Phase.ABORTING else row.phase
        return reached.rank >= Phase.RELOCATING.rank

    for module in (phases, m):
        monkeypatch.setattr(module, "may_have_moved", later)
    assert _any_breaks(range(2_000))
