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
        "state is copied ahead, and UEs that arrive at the target change owner already",
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
    """Which side of the migration this network is on. One leads, and it is home: the others follow what it tells.

    Where the service leaves home, home is the source. Where it goes onward, from one network that hosts it to another,
    home is a third: it leads, and the source only gives.
    """

    SOURCE = "source"
    """Home, which gives; it leads."""
    TARGET = "target"
    HOME = "home"
    """Home of a migration between two others; it leads."""
    GIVER = "giver"
    """The source of a migration whose home is a third."""

    @property
    def leads(self) -> bool:
        """Whether this side decides when the next phase begins."""
        return self in (Role.SOURCE, Role.HOME)


class Fact(enum.Enum):
    """What one side has made true; never taken back."""

    PERMITTED = "PERMITTED"
    """This side has judged both permissions and found nothing against."""
    PREPARED = "PREPARED"
    """Target: package verified and running, NF instances registered but undiscoverable, store open, clocks close.
    Giver: the host runs, clocks close."""
    COPIED = "COPIED"
    """Giver: the copy is durable at the target, and followed."""
    MOVED = "MOVED"
    """Giver: the target has taken every key that was in scope here."""
    STOPPED = "STOPPED"
    """The own keeper holds, grants and accepts nothing in this migration any more."""
    DECIDED = "DECIDED"
    """Giver: it is stopped, and the target has answered for every key that it was given."""
    RECEIVING = "RECEIVING"
    """Lead: the own keeper takes keys back."""
    RETURNED = "RETURNED"
    """Target: no key is owned or granted here any more."""
    HOME = "HOME"
    """Lead: no key is at the target any more, or on its way there."""
    CLEARED = "CLEARED"
    """Target: instances deregistered, host stopped, state and software erased, receipt signed."""
    CLOSED = "CLOSED"
    """Lead: the receipt is checked and kept."""
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
    """The furthest phase that the partner has told: the target, or at a network that follows, the lead."""
    peer_facts: frozenset[Fact] = frozenset()
    giver_facts: frozenset[Fact] = frozenset()
    """Home of a migration between two others: what the giver has told."""
    ending: Ending | None = None


class Command(enum.Enum):
    """What the caller does after the row is journalled; in the order given, each repeatable without effect."""

    SEND_OFFER = "send the offer"
    """Lead → `OfferJudged`."""
    JUDGE_OFFER = "judge the offer"
    """Target, giver → `OfferJudged`."""
    CHECK_PERMISSIONS = "exchange and judge the permissions"
    """Lead → `Judged`."""
    FETCH_PACKAGE = "fetch the package and verify it"
    """Target, or `Failed`."""
    START_HOST = "install the package and start the host"
    """Target, or `Failed`."""
    REGISTER_INSTANCES = "register the NF instances, undiscoverable"
    """Target, or `Failed`."""
    OPEN_STAGING = "open the store for the copy"
    """Target, or `Failed`."""
    SELF_TEST = "test the host and measure the clocks"
    """Target, giver → `Prepared` or `Failed`."""
    START_COPY = "copy and follow, and let UEs that arrive change owner"
    """Source, giver, or `Failed`; home gives what it has itself."""
    AWAIT_COPY = "wait until the copy is durable"
    """Source, giver → `CopyDurable` or `Failed`; home waits for the giver's."""
    RELOCATE = "let all in scope change owner"
    """Source, giver, home."""
    AWAIT_MOVED = "wait until all in scope have moved"
    """Source, giver → `AllMoved` or `Failed`; home waits for the giver's."""
    MAKE_DISCOVERABLE = "make the NF instances discoverable"
    """Target."""
    STOP_GRANTING = "stop the keeper: nothing new is held, granted or accepted"
    """→ `Stopped`."""
    CHECK_DECIDED = "wait for the target's answers"
    """Giver → `Decided`."""
    TAKE_BACK = "open the keeper for the way back"
    """Lead → `Receiving`."""
    CHECK_WHOLE = "wait until every UE is home"
    """Lead → `Whole`."""
    GIVE_BACK = "give every UE back"
    """Target; needs the lead to be RECEIVING."""
    CHECK_EMPTY = "wait until no UE is here"
    """Target → `Empty`."""
    FINISH = "end the streams"
    """Lead, giver."""
    CLEAR = "deregister, stop, erase, and sign the receipt"
    """Target → `Cleared`."""
    DECLARE_LOST = "ban the target's store and take back what it had"
    """Source → `Whole`."""
    CLOSE = "check the receipt"
    """Lead → `Closed`."""
    TELL_PARTNER = "tell the partner where this side stands"
    """→ `PeerIs` (its answer), `PeerForgot` or `PeerSilent`."""


C = Command
_PREPARE = (C.FETCH_PACKAGE, C.START_HOST, C.REGISTER_INSTANCES, C.OPEN_STAGING, C.SELF_TEST)


def demands(row: Row) -> tuple[Command, ...]:
    """What is to be done now: all that the row says, and nothing that only a crash would forget."""
    match row.role:
        case Role.SOURCE | Role.HOME:
            return _lead(row)
        case Role.TARGET:
            return _target(row)
        case Role.GIVER:
            return _giver(row)


def _lead(row: Row) -> tuple[Command, ...]:
    match row.phase:
        case Phase.NEGOTIATING:
            return (C.SEND_OFFER,)
        case Phase.PERMITTING:
            return (C.CHECK_PERMISSIONS,)
        case Phase.COPYING:
            # The keeper first: a UE that is found at the target before its keeper gives would be served remotely.
            return (C.START_COPY, C.TELL_PARTNER, C.AWAIT_COPY)
        case Phase.RELOCATING:
            return (C.RELOCATE, C.TELL_PARTNER, C.AWAIT_MOVED)
        case Phase.RETURNING:
            if Fact.RECEIVING not in row.facts:
                return (C.TAKE_BACK, C.TELL_PARTNER)
            return (C.TELL_PARTNER, C.CHECK_WHOLE) if nothing_there(row) else (C.TELL_PARTNER,)
        case Phase.ABORTING:
            return _lead_aborting(row)
        case Phase.RETIRED:
            close = (C.CLOSE,) if Fact.CLEARED in row.peer_facts and Fact.CLOSED not in row.facts else ()
            return (C.FINISH, C.TELL_PARTNER, *close)
        case Phase.ABORTED:
            return (C.TELL_PARTNER, C.FINISH)
        case Phase.PREPARING | Phase.SETTLED:
            return (C.TELL_PARTNER,)


def _lead_aborting(row: Row) -> tuple[Command, ...]:
    if Fact.STOPPED not in row.facts:
        return (C.STOP_GRANTING, C.TELL_PARTNER)
    if Fact.HOME in row.facts:
        return (C.FINISH, C.TELL_PARTNER)
    if Fact.LOST in row.facts:
        return (C.TELL_PARTNER, C.DECLARE_LOST)
    if may_have_moved(row) and Fact.RECEIVING not in row.facts:
        return (C.TAKE_BACK, C.TELL_PARTNER)
    # A source sees in its own store whether every key is home; where another gave, only the two can tell.
    waits = row.role is Role.HOME and may_have_moved(row) and not nothing_there(row)
    return (C.TELL_PARTNER,) if waits else (C.TELL_PARTNER, C.CHECK_WHOLE)


def nothing_there(row: Row) -> bool:
    """Lead: whether the target has told that no key is there, and the giver, if another gave, that none is to come."""
    decided = row.role is not Role.HOME or Fact.DECIDED in row.giver_facts
    return Fact.RETURNED in row.peer_facts and decided


def _giver(row: Row) -> tuple[Command, ...]:
    match row.phase:
        case Phase.NEGOTIATING:
            return (C.JUDGE_OFFER,)
        case Phase.PERMITTING:
            return ()
        case Phase.PREPARING:
            return (C.TELL_PARTNER,) if Fact.PREPARED in row.facts else (C.SELF_TEST,)
        case Phase.COPYING:
            return (C.TELL_PARTNER,) if Fact.COPIED in row.facts else (C.START_COPY, C.TELL_PARTNER, C.AWAIT_COPY)
        case Phase.RELOCATING if Fact.MOVED not in row.facts:
            return (C.RELOCATE, C.TELL_PARTNER, C.AWAIT_MOVED)
        case Phase.RETURNING | Phase.ABORTING:
            if Fact.STOPPED not in row.facts:
                return (C.STOP_GRANTING, C.TELL_PARTNER)
            return (C.TELL_PARTNER,) if Fact.DECIDED in row.facts else (C.TELL_PARTNER, C.CHECK_DECIDED)
        case Phase.RETIRED | Phase.ABORTED:
            return (C.FINISH, C.TELL_PARTNER)
        case Phase.RELOCATING | Phase.SETTLED:
            return (C.TELL_PARTNER,)


def _target(row: Row) -> tuple[Command, ...]:
    match row.phase:
        case Phase.NEGOTIATING:
            return (C.JUDGE_OFFER,)
        case Phase.PERMITTING:
            return ()
        case Phase.PREPARING:
            return (C.TELL_PARTNER,) if Fact.PREPARED in row.facts else _PREPARE
        case Phase.COPYING | Phase.RELOCATING | Phase.SETTLED:
            return (C.MAKE_DISCOVERABLE, C.TELL_PARTNER)
        case Phase.RETURNING:
            return (C.TELL_PARTNER, *_give_back(row))
        case Phase.ABORTING:
            return _target_aborting(row)
        case Phase.RETIRED:
            return (C.TELL_PARTNER,) if Fact.CLEARED in row.facts else (C.CLEAR, C.TELL_PARTNER)
        case Phase.ABORTED:
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
    """Whether keys can have left the source: it, or the lead before it, has let the keeper grant.

    That is so from COPYING on: a UE that arrives before the copy is durable is granted whole (PROTOCOL.md §7).
    """
    reached = row.ending.phase if row.ending is not None and row.phase is Phase.ABORTING else row.phase
    return reached.rank >= Phase.COPYING.rank


def may_clear(row: Row) -> bool:
    """Whether the target may erase: it never had a key, or it has none and the source owns them all."""
    if Fact.PREPARED not in row.facts:
        return True
    home = Fact.HOME in row.peer_facts or row.peer in ENDS
    return home and Fact.RETURNED in row.facts


def over(row: Row) -> bool:
    """Whether this side has nothing left to do but to tell the partner."""
    if row.phase is Phase.RETIRED and row.role is not Role.GIVER:
        return (Fact.CLOSED if row.role.leads else Fact.CLEARED) in row.facts
    return row.phase in ENDS


def waiting_for(row: Row) -> str:
    """What has to happen next, as exactly as the row knows it."""
    lead = _LEAD[row.role]
    match row.phase:
        case Phase.NEGOTIATING if not row.role.leads:
            return "this network's own answer to the offer"
        case Phase.PERMITTING if Fact.PERMITTED in row.facts and not row.role.leads:
            return f"the {lead} to ask for preparation"
        case Phase.PREPARING if Fact.PREPARED in row.facts:
            return "the source to start the copy" if row.role is Role.TARGET else "the target to be prepared"
        case Phase.COPYING if Fact.COPIED in row.facts:
            return f"{lead} to begin the relocation"
        case Phase.RETURNING | Phase.ABORTING:
            return _waiting_back(row)
        case Phase.RETIRED if row.role is Role.GIVER:
            return "nothing"
        case Phase.RETIRED if not row.role.leads:
            return "the source to take the receipt" if Fact.CLEARED in row.facts else "the erasure to be complete"
        case Phase.RETIRED if Fact.CLOSED in row.facts:
            return "nothing"
    return row.phase.waiting_for


_LEAD = {Role.SOURCE: "source", Role.TARGET: "source", Role.HOME: "home", Role.GIVER: "home"}
"""What a network that follows calls the one that leads; a target does not know whether that one gives, too."""


def _waiting_back(row: Row) -> str:
    if Fact.STOPPED not in row.facts and (row.phase is Phase.ABORTING or row.role is Role.GIVER):
        return "the keeper to confirm that it grants nothing any more"
    if row.role.leads:
        return _waiting_lead(row)
    if row.role is Role.GIVER:
        decided = Fact.DECIDED in row.facts
        return "home to have every UE" if decided else "the target's answers about UEs that it was given"
    if row.phase is Phase.ABORTING and may_clear(row):
        return "the erasure to be complete"
    if Fact.RETURNED in row.facts:
        return "home to confirm that it has every UE"
    return "the last UE to be home" if Fact.RECEIVING in row.peer_facts else "home to take UEs back"


def _waiting_lead(row: Row) -> str:
    if Fact.HOME in row.facts:
        return "the target to clear up"
    if Fact.LOST in row.facts:
        return "the own keeper to take back what the lost store had"
    if Fact.RECEIVING not in row.facts:
        return "the own keeper to take UEs back"
    if row.role is Role.HOME and Fact.RETURNED in row.peer_facts:
        return "the source to have the target's answers about UEs that it gave"
    return "the last UE to be home"
