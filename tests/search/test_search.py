"""The ownership machine against everything that may happen in small worlds (PROTOCOL.md §11)."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from outrider.protocol.ownership import OWNERSHIP
from outrider.sim import search as command
from outrider.sim.effects import EffectBounds, EffectWorld
from outrider.sim.model import Driver
from outrider.sim.search import Found, search, story_text
from outrider.sim.sync import SyncBounds, SyncWorld
from outrider.sim.twins import SAFE_ALONE, TWINS, Twin
from outrider.sim.values import Bounds
from outrider.sim.world import World
from outrider.sim.worlds import IN_CI, LARGE, WORLDS, open_world

pytestmark = pytest.mark.timeout(900)
"""A search is bounded by its world, not by the clock; this is for machines that do much else."""

QUICK = (
    "one-ue",
    "units",
    "abort",
    "abort-units",
    "lost-disk",
    "lost-home",
    "declared",
    "star-units",
    "requests",
    "requests-three",
    "timers",
)
BESIDE_THE_MODEL = {
    "want-unproved": "evidence is judged before; a WANT that is refused changes nothing",
    "grant-late": "a deadline is as good as `HoldEnded`, which is tried",
    "owner-grant": "raises an alarm, which is a fault: it is tried and never fires",
    "owner-recall": "as `owner-grant`",
    **{
        f"other-store-{ask}-{at}": "who has lost its disk stays FOREIGN here: every question names the old one"
        for ask in ("grant", "recall")
        for at in ("owned", "granted")
    },
}
"""Rules that no step of the worlds uses, and why that leaves nothing out."""


@cache
def searched(name: str) -> tuple[Found, frozenset[str]]:
    space = open_world(IN_CI[name])
    found = search(space)
    return found, frozenset(space.driver.fired if isinstance(space, World) else space.fired)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", QUICK)
def test_nothing_breaks_in_a_small_world(name: str) -> None:
    found, _ = searched(name)
    assert found.complete, f"{found}\n{story_text(found.story)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in IN_CI if name not in QUICK])
def test_nothing_breaks_in_a_larger_world(name: str) -> None:
    found, _ = searched(name)
    assert found.complete, f"{found}\n{story_text(found.story)}"


@pytest.mark.slow
def test_the_worlds_use_every_rule_that_can_matter() -> None:
    used = frozenset[str]().union(*(searched(name)[1] for name in IN_CI))
    assert {rule.id for rule in OWNERSHIP.rules} - used == BESIDE_THE_MODEL.keys()


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_world_without_a_rule_breaks(twin: Twin) -> None:
    found = search(twin.space(), liveness=twin.liveness, seconds_max=60)
    assert found.fault is not None, f"without the rule nothing goes wrong: {twin.without}"
    assert found.fault.startswith(twin.finds), found.fault


@pytest.mark.slow
@pytest.mark.parametrize("twin", SAFE_ALONE.values(), ids=SAFE_ALONE)
def test_a_rule_that_another_one_covers_is_not_missed(twin: Twin) -> None:
    found = search(twin.space())
    assert found.complete, f"this rule is needed by itself now: {found}\n{story_text(found.story)}"


class Forgetful(World):
    """A world in which a message that `alive` gives up, but that still matters, is a fault."""

    def check(self, state: tuple[int, ...]) -> str | None:
        return self.old_news(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(networks=3, epochs=4, writes=1),
        Bounds(star=True, epochs=4, writes=0),
        Bounds(networks=3, star=True, epochs=3, writes=0),
        Bounds(networks=3, star=True, epochs=3, writes=0, losses=True),
        Bounds(star=True, epochs=3, writes=0, home_losses=True),
        Bounds(ues=2, star=True, epochs=3, writes=0, recalls=False),
    ],
)
def test_messages_that_are_forgotten_matter_no_more(bounds: Bounds) -> None:
    assert search(Forgetful(Driver(bounds)), liveness=False).complete


class ForgetfulSync(SyncWorld):
    """As `Forgetful`, in sync mode."""

    def check(self, s):  # type: ignore[no-untyped-def]
        return self.old_news(s)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [SyncBounds(epochs=4, writes=1), SyncBounds(epochs=2, writes=2)])
def test_messages_that_are_forgotten_in_sync_mode_matter_no_more(bounds: SyncBounds) -> None:
    assert search(ForgetfulSync(bounds), liveness=False).complete


class ForgetfulEffects(EffectWorld):
    """As `Forgetful`, with outbox and timers."""

    def check(self, s):  # type: ignore[no-untyped-def]
        return self.old_news(s)


@pytest.mark.parametrize("kind", [{"entries": "1"}, {"firings": 1, "crashes": 1}])
def test_messages_that_are_forgotten_beside_an_outbox_or_a_timer_matter_no_more(kind: dict[str, Any]) -> None:
    assert search(ForgetfulEffects(EffectBounds(forget=False, **kind)), liveness=False).complete


def test_the_documentation_names_every_world_and_every_twin() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "exhaustive-search.md").read_text()
    for name in (*IN_CI, *TWINS, *SAFE_ALONE):
        assert f"`{name}`" in text, f"docs/explanation/exhaustive-search.md does not speak of {name}"


def test_a_story_is_a_shortest_one_and_names_who_did_what() -> None:
    twin = TWINS["source-decides-alone"]
    found = search(twin.space(), liveness=False)
    assert [label.split(":")[0] for label, _ in found.story] == [
        "A gives u1 to B",
        "A repeats its grant of u1",
        "B hears GRANT u1@2 of A",
    ]
    assert "A: u1 OWNED 3" in story_text(found.story)
    assert "B: u1 OWNED 2" in story_text(found.story)


def test_a_budget_ends_a_search_and_says_so() -> None:
    found = search(World(Driver(WORLDS["star"])), states_max=100)
    assert not found.complete
    assert found.fault is None
    assert "budget used up" in str(found)


def test_the_command_line_searches_a_world_with_other_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["one-ue", "--networks", "2", "--epochs", "3", "--writes", "1", "--no-refusals"]) == 0
    assert "all states seen" in capsys.readouterr().out


def test_the_command_line_shows_how_a_twin_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--twin", "excepted-not-kept"]) == 0
    assert "I1: u1 has two owners, A and B" in capsys.readouterr().out


def test_the_command_line_says_that_its_budget_was_used_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["star", "--states", "50"]) == 3


def test_the_command_line_names_worlds_and_twins(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*IN_CI, *LARGE, *TWINS))
