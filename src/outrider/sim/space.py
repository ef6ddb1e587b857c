"""What a search needs of a world: where it begins, what may follow, and what must hold."""

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Edge(NamedTuple, Generic[S]):
    """One step of a world. `fault` says which predicate the step itself breaks, if it breaks one."""

    state: S
    label: str
    fault: str | None = None


class Space(Protocol[S]):
    """A world to be searched."""

    def initial(self) -> S:
        """Where it begins."""

    def next(self, state: S) -> Iterator[Edge[S]]:
        """Every step that it may take from here."""

    def check(self, state: S) -> str | None:
        """Which predicate does not hold in this state; None if all hold."""

    def settles(self, state: S) -> str | None:
        """What stays undone although nothing fails from here on; None if nothing does."""

    def text(self, state: S) -> list[str]:
        """The state for people, a line for each network."""
