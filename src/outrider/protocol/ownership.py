"""Who owns a key: the one machine that every key, every network and every role runs (PROTOCOL.md §1-§3, §8).

This is the dangerous part of Outrider. It is small, it does no I/O, reads no clock and draws no chance:
`OWNERSHIP.step(row, vol, event)` returns the new row, and the caller makes the row durable *before* it does what
the commands say. The same table serves the network that gives, the network that takes, home, and a third network
onward; it does not know which it is, so it cannot be lenient to itself.

Theory of operation
-------------------
A key is OWNED by at most one network. To give it away, the owner first stops starting work on it (HELD, volatile),
lets open work end, and then makes GRANTED(x) durable, where x is one more than its epoch. From that instant it
commits nothing for the key: only the grantee may, at x. It sends GRANT until it hears an answer, for ever.

The grantee answers ACCEPTED after it has made {content, OWNED(x)} durable in one commit, or REFUSED after it has
made "I refused x" durable. Either answer can be lost; GRANT is repeated and is also the inquiry, and the durable row
gives the same answer again.

Why two owners cannot be
    GRANTED(x) precedes GRANT(x) on the disk, so at the giver nothing is committed below x any more. Only the one
    network named in the row can accept x, an epoch number is used for one grant only, and a refusal is durable
    before it is told. So when the giver takes the key back (OWNED(x+1), after REFUSED(x)), the grantee can never
    accept x again: its own row says that it refused it, and its epoch has reached x.

Why silence is not failure
    Between GRANTED and the answer the giver does not know whether the grantee serves. Any decision of its own would
    be a guess, and a wrong guess is two owners. An operator who wants the key back sends RECALL, which the grantee
    answers with REFUSED if it has not accepted, *also if it never saw the grant*, and with ACCEPTED if it has.

Why a stale question is answered ACCEPTED
    A GRANT or RECALL for an epoch at or below the receiver's own is old: the giver is repeating itself because an
    answer was lost. The receiver may have accepted, served, and given the key onward since. Only the row
    "FOREIGN, exactly x, refused" proves a refusal. Everything else means x was taken once; answering REFUSED there
    lets the giver take the key back while somebody else owns it.

Why hearsay does not move an epoch
    `now` in an answer and NOT_OWNER tell where the key probably is. They are hints for routing, kept in memory. If
    they raised the row's epoch, the real GRANT that comes later would look stale and the key would be lost for ever.

Crash cases, at each point
    HELD: in memory only, so still OWNED; nobody was promised anything. · GRANTED durable, GRANT not sent: resent at
    restart. · GRANT sent, not arrived: resent. · arrived, not committed: resent, decided then. · committed, ACCEPTED
    lost: GRANT resent, answered ACCEPTED from the row. · giver dies after ACCEPTED was sent: row still GRANTED,
    resends, hears ACCEPTED. Nothing else is written anywhere, so there is nothing else to lose.

Sync mode (§8)
    A target's acceptance and commits count only once home has them (`SYNCED`), so home may take the key back without
    asking: it fences the epoch durably (no SYNCED for it any more), waits the target's read lease out, and owns x+1.
    The target that hears of the fence gives up its unsynced tail.

A store that is gone for good (§9)
    Its answers never come. Home bans it durably when an operator declares it lost, hears nothing of it any more, and
    only then owns every key that it had given away to it, above every epoch that the store can have used. What the
    store did and home's shadow does not have is lost with it. If the store is not gone, there are two owners: here
    nothing but the operator's word stands between.
"""

import enum
from dataclasses import dataclass
from typing import Literal

import msgspec

from outrider.protocol.table import Rule, Step, Table


class Ownership(enum.Enum):
    """Durable state of a key at one network. Each has its sentence and what it waits for."""

    OWNED = "owned"
    GRANTED = "granted"
    FOREIGN = "foreign"

    @property
    def sentence(self) -> str:
        """One sentence for people: the same in CLI, API, log and documentation."""
        return _SENTENCES[self][0]

    @property
    def waiting_for(self) -> str:
        """What has to happen before this state ends."""
        return _SENTENCES[self][1]


_SENTENCES = {
    Ownership.OWNED: ("this network owns the key and alone may change it", "a request to give it away"),
    Ownership.GRANTED: (
        "this network has given the key away and does not know yet whether it was taken",
        "the other network's ACCEPTED or REFUSED, however long that takes",
    ),
    Ownership.FOREIGN: ("another network owns the key; what is here is a copy", "a grant"),
}


class Row(msgspec.Struct, frozen=True, array_like=True):
    """The durable ownership row of a key.

    OWNED(epoch) · GRANTED(epoch → peer) · FOREIGN(epoch, peer, refused): `refused` means that *this* network refused
    exactly `epoch`. `fenced` (sync mode, at home) means that `epoch` gets no SYNCED any more. `mig` is the migration
    the last change belongs to. `epoch` grows only by this network's own decision on that epoch.
    """

    state: Ownership
    epoch: int
    peer: str | None = None
    refused: bool = False
    fenced: bool = False
    mig: str | None = None


class Held(msgspec.Struct, frozen=True):
    """The owner has stopped starting work on the key because it is about to give it to `peer`."""

    peer: str
    mig: str


class Vol(msgspec.Struct, frozen=True):
    """What a crash may lose: the hold, whether a WANT is out, whether home has synced the acceptance (sync mode)."""

    held: Held | None = None
    wanted: bool = False
    synced: bool = False


NO_VOL = Vol()

Stepped = Step[Row, Vol]
Fit = Literal["fits", "need", "wrong"]


# ------------------------------------------------------------------------------------------------ events
# What can happen to a key. Facts that need a clock, the store or the contract are looked up by the caller and
# stand in the event as values.


@dataclass(frozen=True, slots=True)
class Want:
    """Another network asks for the key because its UE has arrived there (or the sweep offers it: `proved`)."""

    peer: str
    mig: str
    proved: bool = True
    allowed: bool = True
    """The contract covers it: migration running, not aborted, not below the minimum dwell."""


@dataclass(frozen=True, slots=True)
class Drained:
    """No unit, timer or delivery of the held key is open any more."""

    in_time: bool
    aborted: bool = False
    floor: int = 0
    """Highest epoch folded into `*p` (`partition.fold`); 0 for other keys."""


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """The hold's deadline has passed, or an emergency request or an operator cancels it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """GRANT(x) has come. `fit`: body fits and digest is equal, a FULL is needed, or a FULL has a wrong digest."""

    peer: str
    x: int
    mig: str
    fit: Fit = "fits"
    to_this_store: bool = True
    admitted: bool = True
    """Migration neither aborted nor revoked here, and there is room."""
    cause: str = "MIGRATION_ABORTED"


@dataclass(frozen=True, slots=True)
class Recall:
    """RECALL(x) has come: refuse it if you have not accepted."""

    peer: str
    x: int
    mig: str = ""
    to_this_store: bool = True
    """It asks the store that the grant was for. A reborn one knows nothing of x: its REFUSED would make two owners."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """ACCEPTED(x) has come, or a proof of it: a log entry or an answer by the peer as owner at x or above."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class Refused:
    """REFUSED(x) has come."""

    peer: str
    x: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """NEED(x) has come: the grant's body does not fit the peer's copy."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class Resend:
    """The back-off of an unanswered grant has run out, or the host has restarted."""

    aborted: bool = False


@dataclass(frozen=True, slots=True)
class Aborted:
    """The migration is aborted or its permission revoked (§3.9)."""

    mig: str


@dataclass(frozen=True, slots=True)
class Demand:
    """A request for the key has come to this network, which has a running migration for it."""

    mig: str


@dataclass(frozen=True, slots=True)
class NotOwner:
    """The WANT was answered: not given. Also when no grant came within the bound (`epoch` 0)."""

    peer: str
    epoch: int


@dataclass(frozen=True, slots=True)
class DeclaredLost:
    """At home: an operator has declared the peer's store lost. It is banned: nothing that it does counts any more."""

    peer: str


@dataclass(frozen=True, slots=True)
class Synced:
    """Sync mode, at the target: home has made the acceptance durable."""

    x: int


@dataclass(frozen=True, slots=True)
class SyncAsked:
    """Sync mode, at home: the target asks whether what it has committed in epoch x is durable here, and it is."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Sync mode, at home: the link is down; take the key back without asking."""


@dataclass(frozen=True, slots=True)
class LeaseOut:
    """Sync mode, at home: the target's read lease has certainly run out."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Sync mode, at the target: home has fenced epoch x and owns the key, or will."""

    peer: str
    x: int


# ---------------------------------------------------------------------------------------------- commands
# What the caller does after the row is durable. `peer` names a network.


@dataclass(frozen=True, slots=True)
class Hold:
    """Start no write, timer or delivery of the key; report `Drained` when none is open."""


@dataclass(frozen=True, slots=True)
class Release:
    """Run what waits for the key here, in order."""


@dataclass(frozen=True, slots=True)
class ForwardQueue:
    """Send what waits for the key to the owner, in order."""

    peer: str


@dataclass(frozen=True, slots=True)
class SendWant:
    """Ask the owner for the key."""

    peer: str
    mig: str


@dataclass(frozen=True, slots=True)
class SendGrant:
    """Send GRANT(x); with `full`, the whole context."""

    peer: str
    x: int
    full: bool = False


@dataclass(frozen=True, slots=True)
class SendRecall:
    """Send RECALL(x)."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class SendAccepted:
    """Send ACCEPTED(x) with where the key is now, as far as this network knows."""

    peer: str
    x: int
    epoch: int
    owner: str | None


@dataclass(frozen=True, slots=True)
class SendRefused:
    """Send REFUSED(x)."""

    peer: str
    x: int
    cause: str


@dataclass(frozen=True, slots=True)
class SendNeed:
    """Send NEED(x): the body does not fit, send the whole."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class SendNotOwner:
    """Answer a WANT that is not granted. `owner` None: this network itself."""

    peer: str
    epoch: int
    owner: str | None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Install:
    """Put the grant's content into the same commit as the row."""


@dataclass(frozen=True, slots=True)
class BecomeShadow:
    """The copy here is a shadow from now on; answers to the held requests come from the new owner."""


@dataclass(frozen=True, slots=True)
class SendSynced:
    """Sync mode, from home: SYNCED for epoch x; what was asked about counts."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class SendFenced:
    """Sync mode, from home: nothing of epoch x counts any more."""

    peer: str
    x: int


@dataclass(frozen=True, slots=True)
class DropTail:
    """Sync mode: forget what home has not synced; a mismatch of heads brings a FULL."""


@dataclass(frozen=True, slots=True)
class StoreLost:
    """The grant is for another store than this one: §9, no traffic until it is resolved."""

    peer: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """An invariant of a peer or of this network is broken; nothing was changed."""

    sentence: str


# ------------------------------------------------------------------------------------------------- rules


def _now(row: Row) -> tuple[int, str | None]:
    return row.epoch, None if row.state is Ownership.OWNED else row.peer


def _hold(row: Row, vol: Vol, e: Want) -> Stepped:
    return Step(row, replace_vol(vol, held=Held(e.peer, e.mig)), (Hold(),), f"holding for {e.peer}")


def _want_again(row: Row, vol: Vol, e: Want) -> Stepped:
    return Step(row, vol, (), "already being given away")


def _want_held(row: Row, vol: Vol, e: Want) -> Stepped:
    assert vol.held is not None
    no = SendNotOwner(e.peer, *_now(row), cause="HELD_FOR_ANOTHER")
    return Step(row, vol, (no,), f"being given to {vol.held.peer}, so not to {e.peer} now")


def _want_unproved(row: Row, vol: Vol, e: Want) -> Stepped:
    no = SendNotOwner(e.peer, *_now(row), cause="ARRIVAL_NOT_PROVED")
    return Step(row, vol, (no,), f"{e.peer} has not proved that the UE is there")


def _want_not_here(row: Row, vol: Vol, e: Want) -> Stepped:
    return Step(row, vol, (SendNotOwner(e.peer, *_now(row)),), "not given: " + row.state.sentence)


def _grant_away(row: Row, vol: Vol, e: Drained) -> Stepped:
    assert vol.held is not None
    x, peer = max(row.epoch, e.floor) + 1, vol.held.peer
    given = Row(Ownership.GRANTED, x, peer, mig=vol.held.mig)
    return Step(given, NO_VOL, (SendGrant(peer, x),), f"given to {peer} at epoch {x}")


def _unhold(row: Row, vol: Vol, e: Drained | HoldEnded | Aborted) -> Stepped:
    assert vol.held is not None
    no = SendNotOwner(vol.held.peer, *_now(row), cause="RELOCATION_PUT_OFF")
    return Step(row, replace_vol(vol, held=None), (Release(), no), "hold ended before a grant; serving on here")


def _accept(row: Row, vol: Vol, e: Grant) -> Stepped:
    taken = Row(Ownership.OWNED, e.x, mig=e.mig)
    done = (Install(), SendAccepted(e.peer, e.x, e.x, None), Release())
    return Step(taken, NO_VOL, done, f"taken from {e.peer} at epoch {e.x}")


def _refuse(row: Row, vol: Vol, e: Grant | Recall) -> Stepped:
    cause = "RECALLED" if isinstance(e, Recall) else "DIGEST_MISMATCH" if e.fit == "wrong" else e.cause
    # What waits for the grant need not wait longer. It goes behind REFUSED in the lane: the giver owns the key again by
    # the time that it gets there.
    no: tuple[object, ...] = (SendRefused(e.peer, e.x, cause), ForwardQueue(e.peer))
    if cause == "DIGEST_MISMATCH":
        no += (Alarm(f"a whole context from {e.peer} does not match its digest"),)
    refused = Row(Ownership.FOREIGN, e.x, e.peer, refused=True, mig=e.mig or row.mig)
    return Step(refused, replace_vol(vol, wanted=False), no, f"epoch {e.x} refused: {cause}")


def _need(row: Row, vol: Vol, e: Grant) -> Stepped:
    return Step(row, vol, (SendNeed(e.peer, e.x),), "the copy here does not fit the grant")


def _store_lost(row: Row, vol: Vol, e: Grant | Recall) -> Stepped:
    return Step(row, vol, (StoreLost(e.peer),), "the grant is for a store that this one is not")


def _again_accepted(row: Row, vol: Vol, e: Grant | Recall) -> Stepped:
    return Step(row, vol, (SendAccepted(e.peer, e.x, *_now(row)),), f"epoch {e.x} was taken before")


def _again_refused(row: Row, vol: Vol, e: Grant | Recall) -> Stepped:
    return Step(row, vol, (SendRefused(e.peer, e.x, "REFUSED_BEFORE"),), f"epoch {e.x} was refused before")


def _alarm_owner(row: Row, vol: Vol, e: Grant | Recall) -> Stepped:
    sentence = f"{e.peer} speaks of epoch {e.x}, but this network owns epoch {row.epoch}"
    return Step(row, vol, (Alarm(sentence),), sentence)


def _settled(row: Row, vol: Vol, e: Accepted) -> Stepped:
    return Step(
        Row(Ownership.FOREIGN, row.epoch, row.peer, mig=row.mig), NO_VOL, (BecomeShadow(),), f"{e.peer} has taken it"
    )


def _taken_back(row: Row, vol: Vol, e: Refused) -> Stepped:
    back = Row(Ownership.OWNED, row.epoch + 1, mig=row.mig)
    return Step(back, NO_VOL, (Release(),), f"{e.peer} refused epoch {row.epoch}; owned here at {row.epoch + 1}")


def _send_full(row: Row, vol: Vol, e: Need) -> Stepped:
    return Step(row, vol, (SendGrant(e.peer, row.epoch, full=True),), "the other network needs the whole context")


def _resend_grant(row: Row, vol: Vol, e: Resend) -> Stepped:
    assert row.peer is not None
    return Step(row, vol, (SendGrant(row.peer, row.epoch),), "no answer yet; asking again")


def _resend_recall(row: Row, vol: Vol, e: Resend | Aborted) -> Stepped:
    assert row.peer is not None
    return Step(row, vol, (SendRecall(row.peer, row.epoch),), "migration aborted; asking for the key back")


def _want(row: Row, vol: Vol, e: Demand) -> Stepped:
    assert row.peer is not None
    return Step(row, replace_vol(vol, wanted=True), (SendWant(row.peer, e.mig),), f"asking {row.peer} for the key")


def _not_given(row: Row, vol: Vol, e: NotOwner) -> Stepped:
    return Step(row, replace_vol(vol, wanted=False), (ForwardQueue(e.peer),), f"not given; served by {e.peer}")


def _synced(row: Row, vol: Vol, e: Synced) -> Stepped:
    return Step(row, replace_vol(vol, synced=True), (Release(),), "home has the acceptance; serving")


def _sync(row: Row, vol: Vol, e: SyncAsked) -> Stepped:
    # Saying SYNCED is home's own decision on epoch x: so its row follows, also to the epoch that the target took back
    # when home refused a return. Otherwise home could neither confirm that epoch nor fence it.
    known = Row(Ownership.FOREIGN, e.x, e.peer, mig=row.mig)
    return Step(known, NO_VOL, (SendSynced(e.peer, e.x),), f"what {e.peer} has committed counts")


def _say_fenced(row: Row, vol: Vol, e: SyncAsked) -> Stepped:
    return Step(row, vol, (SendFenced(e.peer, e.x),), f"epoch {e.x} is fenced or over")


def _fence(row: Row, vol: Vol, e: Fence) -> Stepped:
    return Step(replace_row(row, fenced=True), vol, (), f"epoch {row.epoch} fenced; waiting for the read lease to end")


def _reclaim(row: Row, vol: Vol, e: LeaseOut | DeclaredLost) -> Stepped:
    # Where home has refused `epoch`, the target may have taken it back at the next one already.
    x = row.epoch + (2 if row.refused else 1)
    return Step(Row(Ownership.OWNED, x, mig=row.mig), NO_VOL, (Release(),), f"reclaimed at epoch {x}")


def _give_up(row: Row, vol: Vol, e: Fenced) -> Stepped:
    lost = Row(Ownership.FOREIGN, row.epoch, e.peer, mig=row.mig)
    return Step(lost, NO_VOL, (DropTail(), ForwardQueue(e.peer)), f"{e.peer} has reclaimed the key")


def replace_vol(vol: Vol, **changes: object) -> Vol:
    """A copy of the volatile state with some fields changed."""
    return msgspec.structs.replace(vol, **changes)


def replace_row(row: Row, **changes: object) -> Row:
    """A copy of the row with some fields changed."""
    return msgspec.structs.replace(row, **changes)


_O, _G, _F = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN

RULES: tuple[Rule[Row, Vol], ...] = (
    # The owner gives (§3.1, §3.2).
    Rule(
        "want-again",
        _O,
        Want,
        _O,
        "held for that network already",
        "§3.1",
        _want_again,
        lambda r, v, e: v.held is not None and v.held.peer == e.peer,
    ),
    Rule("want-unproved", _O, Want, _O, "arrival not proved", "§2", _want_unproved, lambda r, v, e: not e.proved),
    Rule(
        "want-not-now",
        _O,
        Want,
        _O,
        "contract does not cover it",
        "§3.1",
        _want_not_here,
        lambda r, v, e: not e.allowed,
    ),
    Rule("want-held", _O, Want, _O, "held for another network", "§3.1", _want_held, lambda r, v, e: v.held is not None),
    Rule("want-hold", _O, Want, _O, "contract covers it: hold", "§3.1", _hold),
    Rule(
        "grant",
        _O,
        Drained,
        _G,
        "held, in time, not aborted",
        "§3.2",
        _grant_away,
        lambda r, v, e: v.held is not None and e.in_time and not e.aborted,
    ),
    Rule("grant-late", _O, Drained, _O, "too late or aborted", "§3.1", _unhold, lambda r, v, e: v.held is not None),
    Rule("hold-ended", _O, HoldEnded, _O, "held", "§3.1, §4.9", _unhold, lambda r, v, e: v.held is not None),
    Rule(
        "hold-aborted",
        _O,
        Aborted,
        _O,
        "held for that migration",
        "§3.9",
        _unhold,
        lambda r, v, e: v.held is not None and v.held.mig == e.mig,
    ),
    # The giver waits; it never decides by itself (§3.3, §3.7).
    Rule("resend-recall", _G, Resend, _G, "aborted", "§3.3", _resend_recall, lambda r, v, e: e.aborted),
    Rule("resend-grant", _G, Resend, _G, "no answer yet", "§3.3", _resend_grant),
    Rule("abort-recall", _G, Aborted, _G, "that migration", "§3.9", _resend_recall, lambda r, v, e: r.mig == e.mig),
    Rule(
        "accepted",
        _G,
        Accepted,
        _F,
        "from the grantee, this epoch or proof of it",
        "§3.7",
        _settled,
        lambda r, v, e: e.peer == r.peer and e.x >= r.epoch and not r.fenced,
    ),
    Rule(
        "refused",
        _G,
        Refused,
        _O,
        "from the grantee, this epoch",
        "§3.7",
        _taken_back,
        lambda r, v, e: e.peer == r.peer and e.x == r.epoch and not r.fenced,
    ),
    Rule(
        "need",
        _G,
        Need,
        _G,
        "from the grantee, this epoch",
        "§3.4",
        _send_full,
        lambda r, v, e: e.peer == r.peer and e.x == r.epoch,
    ),
    Rule("granted-want-again", _G, Want, _G, "from the grantee", "§3.3", _want_again, lambda r, v, e: e.peer == r.peer),
    Rule("granted-want", _G, Want, _G, "given away already", "§3", _want_not_here),
    # Anybody is asked about an old epoch (§3.6). After the question whether it is this store that is asked (§9), the
    # first line is the only one that may say REFUSED.
    *(
        rule
        for ask, name in ((Grant, "grant"), (Recall, "recall"))
        for rule in (
            *(
                Rule(
                    f"other-store-{name}-{at.value}",
                    at,
                    ask,
                    at,
                    "for another store",
                    "§3.4, §9",
                    _store_lost,
                    lambda r, v, e: not e.to_this_store,
                )
                for at in (_O, _G, _F)
            ),
            Rule(
                f"stale-{name}-refused",
                _F,
                ask,
                _F,
                "exactly the epoch refused here",
                "§3.6",
                _again_refused,
                lambda r, v, e: e.x == r.epoch and r.refused,
            ),
            *(
                Rule(
                    f"stale-{name}-{at.value}",
                    at,
                    ask,
                    at,
                    "epoch not above the row's",
                    "§3.6",
                    _again_accepted,
                    lambda r, v, e: e.x <= r.epoch,
                )
                for at in (_O, _G, _F)
            ),
            Rule(f"owner-{name}", _O, ask, _O, "epoch above the owner's: alarm", "§3.8", _alarm_owner),
        )
    ),
    # The taker decides, once per epoch (§3.4, §3.5). GRANT(x) in GRANTED(w<x) proves that w was taken.
    *(
        rule
        for at in (_F, _G)
        for rule in (
            Rule(
                f"refuse-{at.value}",
                at,
                Grant,
                _F,
                "aborted, revoked, no room, or wrong digest of a FULL",
                "§3.4",
                _refuse,
                lambda r, v, e: not e.admitted or e.fit == "wrong",
            ),
            Rule(
                f"unfit-{at.value}",
                at,
                Grant,
                at,
                "body does not fit the copy here",
                "§3.4",
                _need,
                lambda r, v, e: e.fit == "need",
            ),
            Rule(f"accept-{at.value}", at, Grant, _O, "digest equal", "§3.4", _accept),
            Rule(f"recall-{at.value}", at, Recall, _F, "epoch above the row's", "§3.5", _refuse),
        )
    ),
    # Requests at a network that does not own the key (§4.4).
    Rule(
        "demand",
        _F,
        Demand,
        _F,
        "no WANT out, owner known",
        "§4.4",
        _want,
        lambda r, v, e: not v.wanted and r.peer is not None,
    ),
    Rule("not-given", _F, NotOwner, _F, "WANT answered no, or not in time", "§4.4", _not_given),
    Rule("foreign-want", _F, Want, _F, "not the owner", "§3", _want_not_here),
    # A store that is gone for good answers nothing: the operator's word for it is the only way out (§8, §9).
    *(
        Rule(
            f"lost-{at.value}",
            at,
            DeclaredLost,
            _O,
            "at the peer whose store is declared lost",
            "§8, §9",
            _reclaim,
            lambda r, v, e: e.peer == r.peer,
        )
        for at in (_G, _F)
    ),
    # Sync mode (§8).
    Rule("synced", _O, Synced, _O, "this epoch", "§8", _synced, lambda r, v, e: e.x == r.epoch and not v.synced),
    *(
        Rule(
            f"sync-{at.value}",
            at,
            SyncAsked,
            _F,
            "by the owner known here, this epoch or above, not fenced",
            "§3.7, §8",
            _sync,
            lambda r, v, e: e.peer == r.peer and e.x >= r.epoch and not r.fenced,
        )
        for at in (_G, _F)
    ),
    *(
        Rule(
            f"sync-over-{at.value}",
            at,
            SyncAsked,
            at,
            "fenced, or below the row's epoch",
            "§8",
            _say_fenced,
            lambda r, v, e: r.fenced or e.x < r.epoch,
        )
        for at in (_O, _G, _F)
    ),
    Rule("fence-foreign", _F, Fence, _F, "sync mode, at home", "§8", _fence),
    Rule("fence-granted", _G, Fence, _G, "sync mode, at home", "§8", _fence),
    Rule("reclaim-foreign", _F, LeaseOut, _O, "fenced", "§8", _reclaim, lambda r, v, e: r.fenced),
    Rule("reclaim-granted", _G, LeaseOut, _O, "fenced", "§8", _reclaim, lambda r, v, e: r.fenced),
    Rule("fenced", _O, Fenced, _F, "home reclaimed this epoch", "§8", _give_up, lambda r, v, e: e.x == r.epoch),
)

OWNERSHIP = Table(RULES, lambda row: row.state)
"""The table that everything runs: production, tests, search and diagrams."""


def serves(row: Row, vol: Vol, *, permitted: bool, sync: bool = False) -> bool:
    """Whether a host may answer for the key: it owns it, the permission is valid and, in sync mode, home knows."""
    return row.state is Ownership.OWNED and permitted and (not sync or vol.synced)
