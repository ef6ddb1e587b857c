"""What a migration's row says: phases, roles, facts, and what has to be done now. The rules are in `migration`.

Everything here is a function of the row alone, so that a restart needs nothing else.
"""

import enum

import msgspec


class Phase(enum.Enum):
    """Where a migration stands at one network. Each has its sentence and what it waits for."""

    NEGOTIATING = "NEGOTIATING"
    PERMITTING = "PERMITTING"
    PREPARING = "PREPARING"
    COPYING = "COPYING"
    RELOCATING = "RELOCATING"
    SETTLED = "SETTLED"
    RETURNING = "RETURNING"
    ABORTING = "ABORTING"
    RETIRED = "RETIRED"
    ABORTED = "ABORTED"

    @property
    def sentence(self) -> str:
        """One sentence for people: the same in CLI, API, log and documentation."""
        return _SENTENCES[self][0]

    @property
    def waiting_for(self) -> str:
        """What has to happen before this phase ends; `waiting_for(row)` is more exact."""
        return _SENTENCES[self][1]

    @property
    def rank(self) -> int:
        """Phases never go to a lower rank."""
        return _RANK[self]


_SENTENCES = {
    Phase.NEGOTIATING: (
        "the networks agree on the terms; nothing is reserved yet",
        "the partner's answer to the offer",
    ),
    Phase.PERMITTING: (
        "each side checks package, SBOM and both permissions; nothing has moved",
        "the verdict of both sides",
    ),
    Phase.PREPARING: (
        "the target fetches and verifies the package and starts it, invisible to consumers",
        "the target to be prepared",
    ),
    Phase.COPYING: (
        "state is copied ahead while the service runs on at the source",
        "the copy to be durable at the target",
    ),
    Phase.RELOCATING: (
        "the service can be found at the target, and UEs change owner",
        "UEs to arrive, the return, or the deadline",
    ),
    Phase.SETTLED: ("every UE in scope is at the target; home keeps a shadow", "the return, or the deadline"),
    Phase.RETURNING: ("every UE goes back home", "the last UE to be home"),
    Phase.ABORTING: ("stopped: nothing new is granted, and what has moved goes back", "the last UE to be home"),
    Phase.RETIRED: ("every UE is home and the target gives the service up", "the target's erasure receipt"),
    Phase.ABORTED: ("stopped, and what was done is undone", "nothing"),
}

_RANK = {phase: rank for rank, phase in enumerate(Phase)}

ENDS = (Phase.RETIRED, Phase.ABORTED)
"""Entered at most once, never left."""


class Role(enum.Enum):
    """Which side of the migration this network is on."""

    SOURCE = "source"
    TARGET = "target"


class Fact(enum.Enum):
    """What one side has made true; never taken back."""

    PERMITTED = "PERMITTED"
    """This side has judged both permissions and found nothing against."""
    PREPARED = "PREPARED"
    """Target: package verified and running, NF instances registered but undiscoverable, store open, clocks close."""
    STOPPED = "STOPPED"
    """The own keeper holds, grants and accepts nothing in this migration any more."""
    RECEIVING = "RECEIVING"
    """Source: the own keeper takes keys back."""
    RETURNED = "RETURNED"
    """Target: no key is owned or granted here any more."""
    HOME = "HOME"
    """Source: every key is owned here again."""
    CLEARED = "CLEARED"
    """Target: instances deregistered, host stopped, state and software erased, receipt signed."""
    CLOSED = "CLOSED"
    """Source: the receipt is checked and kept."""
    LOST = "LOST"
    """Source: an operator has declared the target's store lost; home takes back what that had, and hears it no more."""


class Ending(msgspec.Struct, frozen=True, rename="camel"):
    """Why a migration ends, or goes back: a stable code, a sentence, who decided, and in which phase that met it."""

    cause: str
    sentence: str
    by: str = ""
    """The network whose operator, clock or fault it was: its log is the one to read."""
    phase: Phase = Phase.NEGOTIATING
    """The phase of *this* side when it heard."""


class Row(msgspec.Struct, frozen=True, rename="camel"):
    """The durable row of one migration at one network."""

    role: Role
    move_all: bool = False
    phase: Phase = Phase.NEGOTIATING
    facts: frozenset[Fact] = frozenset()
    peer: Phase = Phase.NEGOTIATING
    """The furthest phase that the partner has told."""
    peer_facts: frozenset[Fact] = frozenset()
    ending: Ending | None = None


class Command(enum.Enum):
    """What the caller does after the row is journalled; in the order given, each repeatable without effect."""

    SEND_OFFER = "send the offer"
    """Source → `OfferJudged`."""
    JUDGE_OFFER = "judge the offer"
    """Target → `OfferJudged`."""
    CHECK_PERMISSIONS = "exchange and judge the permissions"
    """Source → `Judged`."""
    FETCH_PACKAGE = "fetch the package and verify it"
    """Target, or `Failed`."""
    START_HOST = "install the package and start the host"
    """Target, or `Failed`."""
    REGISTER_INSTANCES = "register the NF instances, undiscoverable"
    """Target, or `Failed`."""
    OPEN_STAGING = "open the store for the copy"
    """Target, or `Failed`."""
    SELF_TEST = "test the host and measure the clocks"
    """Target → `Prepared` or `Failed`."""
    START_COPY = "copy and follow"
    """Source → `CopyDurable` or `Failed`."""
    RELOCATE = "let UEs change owner"
    """Source."""
    AWAIT_MOVED = "wait until all in scope have moved"
    """Source → `AllMoved` or `Failed`."""
    MAKE_DISCOVERABLE = "make the NF instances discoverable"
    """Target."""
    STOP_GRANTING = "stop the keeper: nothing new is held, granted or accepted"
    """→ `Stopped`."""
    TAKE_BACK = "open the keeper for the way back"
    """Source → `Receiving`."""
    CHECK_WHOLE = "wait until every UE is home"
    """Source → `Whole`."""
    GIVE_BACK = "give every UE back"
    """Target; needs the source to be RECEIVING."""
    CHECK_EMPTY = "wait until no UE is here"
    """Target → `Empty`."""
    FINISH = "end the streams"
    """Source."""
    CLEAR = "deregister, stop, erase, and sign the receipt"
    """Target → `Cleared`."""
    DECLARE_LOST = "ban the target's store and take back what it had"
    """Source → `Whole`."""
    CLOSE = "check the receipt"
    """Source → `Closed`."""
    TELL_PARTNER = "tell the partner where this side stands"
    """→ `PeerIs` (its answer), `PeerForgot` or `PeerSilent`."""


C = Command
_PREPARE = (C.FETCH_PACKAGE, C.START_HOST, C.REGISTER_INSTANCES, C.OPEN_STAGING, C.SELF_TEST)


def demands(row: Row) -> tuple[Command, ...]:
    """What is to be done now: all that the row says, and nothing that only a crash would forget."""
    return _source(row) if row.role is Role.SOURCE else _target(row)


def _source(row: Row) -> tuple[Command, ...]:
    match row.phase:
        case Phase.NEGOTIATING:
            return (C.SEND_OFFER,)
        case Phase.PERMITTING:
            return (C.CHECK_PERMISSIONS,)
        case Phase.COPYING:
            return (C.TELL_PARTNER, C.START_COPY)
        case Phase.RELOCATING:
            # The keeper first: a UE that is found at the target before its keeper gives would be served remotely.
            return (C.RELOCATE, C.TELL_PARTNER, C.AWAIT_MOVED)
        case Phase.RETURNING:
            if Fact.RECEIVING not in row.facts:
                return (C.TAKE_BACK, C.TELL_PARTNER)
            return (C.TELL_PARTNER, C.CHECK_WHOLE) if Fact.RETURNED in row.peer_facts else (C.TELL_PARTNER,)
        case Phase.ABORTING:
            return _source_aborting(row)
        case Phase.RETIRED:
            close = (C.CLOSE,) if Fact.CLEARED in row.peer_facts and Fact.CLOSED not in row.facts else ()
            return (C.FINISH, C.TELL_PARTNER, *close)
        case Phase.ABORTED:
            return (C.TELL_PARTNER, C.FINISH)
        case Phase.PREPARING | Phase.SETTLED:
            return (C.TELL_PARTNER,)


def _source_aborting(row: Row) -> tuple[Command, ...]:
    if Fact.STOPPED not in row.facts:
        return (C.STOP_GRANTING, C.TELL_PARTNER)
    if Fact.HOME in row.facts:
        return (C.FINISH, C.TELL_PARTNER)
    if Fact.LOST in row.facts:
        return (C.TELL_PARTNER, C.DECLARE_LOST)
    if may_have_moved(row) and Fact.RECEIVING not in row.facts:
        return (C.TAKE_BACK, C.TELL_PARTNER)
    return (C.TELL_PARTNER, C.CHECK_WHOLE)


def _target(row: Row) -> tuple[Command, ...]:
    match row.phase:
        case Phase.NEGOTIATING:
            return (C.JUDGE_OFFER,)
        case Phase.PERMITTING:
            return ()
        case Phase.PREPARING:
            return (C.TELL_PARTNER,) if Fact.PREPARED in row.facts else _PREPARE
        case Phase.RELOCATING | Phase.SETTLED:
            return (C.MAKE_DISCOVERABLE, C.TELL_PARTNER)
        case Phase.RETURNING:
            return (C.TELL_PARTNER, *_give_back(row))
        case Phase.ABORTING:
            return _target_aborting(row)
        case Phase.RETIRED:
            return (C.TELL_PARTNER,) if Fact.CLEARED in row.facts else (C.CLEAR, C.TELL_PARTNER)
        case Phase.COPYING | Phase.ABORTED:
            return (C.TELL_PARTNER,)


def _give_back(row: Row) -> tuple[Command, ...]:
    if Fact.RETURNED in row.facts or Fact.RECEIVING not in row.peer_facts:
        return ()
    # A source that owns every key has closed the way back, and needs nothing given.
    return (C.CHECK_EMPTY,) if Fact.HOME in row.peer_facts else (C.GIVE_BACK, C.CHECK_EMPTY)


def _target_aborting(row: Row) -> tuple[Command, ...]:
    if Fact.STOPPED not in row.facts:
        return (C.STOP_GRANTING, C.TELL_PARTNER)
    if may_clear(row):
        return (C.CLEAR, C.TELL_PARTNER)
    if Fact.RETURNED in row.facts:
        return (C.TELL_PARTNER,)
    return (C.TELL_PARTNER, *(_give_back(row) or (C.CHECK_EMPTY,)))


def may_have_moved(row: Row) -> bool:
    """Whether keys can have left the source: it has let its keeper grant."""
    reached = row.ending.phase if row.ending is not None and row.phase is Phase.ABORTING else row.phase
    return reached.rank >= Phase.RELOCATING.rank


def may_clear(row: Row) -> bool:
    """Whether the target may erase: it never had a key, or it has none and the source owns them all."""
    if Fact.PREPARED not in row.facts:
        return True
    home = Fact.HOME in row.peer_facts or row.peer in ENDS
    return home and Fact.RETURNED in row.facts


def over(row: Row) -> bool:
    """Whether this side has nothing left to do but to tell the partner."""
    if row.phase is Phase.RETIRED:
        return (Fact.CLOSED if row.role is Role.SOURCE else Fact.CLEARED) in row.facts
    return row.phase is Phase.ABORTED


def waiting_for(row: Row) -> str:
    """What has to happen next, as exactly as the row knows it."""
    source = row.role is Role.SOURCE
    match row.phase:
        case Phase.NEGOTIATING if not source:
            return "this network's own answer to the offer"
        case Phase.PERMITTING if Fact.PERMITTED in row.facts and not source:
            return "the source to ask for preparation"
        case Phase.PREPARING if Fact.PREPARED in row.facts:
            return "the source to start the copy"
        case Phase.RETURNING | Phase.ABORTING:
            return _waiting_back(row, source)
        case Phase.RETIRED if not source:
            return "the source to take the receipt" if Fact.CLEARED in row.facts else "the erasure to be complete"
        case Phase.RETIRED if Fact.CLOSED in row.facts:
            return "nothing"
    return row.phase.waiting_for


def _waiting_back(row: Row, source: bool) -> str:
    if row.phase is Phase.ABORTING and Fact.STOPPED not in row.facts:
        return "the keeper to confirm that it grants nothing any more"
    if source:
        if Fact.HOME in row.facts:
            return "the target to clear up"
        if Fact.LOST in row.facts:
            return "the own keeper to take back what the lost store had"
        return "the last UE to be home" if Fact.RECEIVING in row.facts else "the own keeper to take UEs back"
    if row.phase is Phase.ABORTING and may_clear(row):
        return "the erasure to be complete"
    if Fact.RETURNED in row.facts:
        return "home to confirm that it has every UE"
    return "the last UE to be home" if Fact.RECEIVING in row.peer_facts else "home to take UEs back"
