"""The phases of a migration: the one machine that both LMSFs run, each on its own journal (DESIGN §5, PROTOCOL §3.9).

`MIGRATION.step(row, None, event)` returns the new row; the caller journals it *before* it does what the commands say.
The machine does no I/O, reads no clock and draws no chance. All networks run the same table; where they differ, the
rule says so. No network coordinates the others: each has its own row, and they tell each other what they know.

Theory of operation
-------------------
A row (`protocol.phase`) is a phase and a set of facts. Phases only go forward (`rank`), facts are only added. What
the partner says is its own phase and facts, whole, each time; it is merged by the highest rank and by union. So a
message that comes late, twice or in the wrong order changes nothing, a lost one is repaired by the next, and there is
no message that must arrive exactly once.

What has to be done now is a function of the row alone (`demands`). Each step returns it, and so does a restart: going
on after a crash is not a second mechanism but the same one. Every command may be repeated; a command that has taken
effect before has none. What a command finds out comes back as an event.

The source, which is home, leads to RELOCATING: it offers, both sides sign the same contract and judge the same
permissions, the target prepares and says PREPARED, and the source copies. From COPYING on UEs change owner as they
arrive: a grant that carries the whole context needs no copy, so nobody waits for it. Where the contract says move-all,
the others follow without waiting for their UEs when the copy is durable (RELOCATING), until all have moved (SETTLED).
Nothing in this table moves a UE. That is `protocol.ownership`, in the keepers; a keeper grants only between "copy" and
"stop".

The way back is one procedure, whatever started it. The source opens its keeper for the return (RECEIVING), the target
gives every key back until it has none (RETURNED), the source sees in its own store that it owns every key (HOME), and
only then the target erases (CLEARED). RETURNING ends in RETIRED, ABORTING in ABORTED; the rest is the same.

Why an abort cannot lose a UE
    The first command of ABORTING stops the own keeper (STOPPED): no hold, no grant, no acceptance in this migration
    any more, and keys in doubt are recalled. Telling the partner comes second, so a partner that cannot be reached
    does not delay it. The target erases only after the source has said HOME, because a key that the source has
    granted is not decided until the target's store has answered; an erased store cannot answer.

Why both sides end alike
    RETIRED and ABORTED are entered once and never left. The target follows the source into its end; an abort that
    meets a source which is RETIRED already came too late and ends RETIRED too.

Where the service goes onward
    From a network that hosts it (the giver) to another one, with home a third. Home leads, as it does where it is the
    source: so nothing of the way back is otherwise, and home can stop it at any moment. What is new is that another
    one gives. The giver follows home's phases: it copies in COPYING and says COPIED, gives from then on and says
    MOVED, stops when home goes back or stops, and says DECIDED when the target has answered for everything that it was
    given. Home's own store does not show what is at the target. So home is whole (HOME) when the target has nothing
    (RETURNED) and the giver will give nothing (DECIDED); before that the target does not erase.

What a lost store does
    The target's keeper comes back without its store (PROTOCOL.md §9): it owns nothing, so it gives nothing back, and
    the way back waits. Where the source's operator declares the store lost, that ends: the source's keeper stops, takes
    back what the store had, and says HOME; the target clears what is left. A target declares nothing: what its copies
    are worth is home's to say.

What a party that hears nothing does
    Before PREPARED the target holds nothing: it stops when the phase takes too long, and clears. Before COPYING
    nothing can have moved, and in COPYING the source sees in its own store whether anything has: if nothing is away it
    ends ABORTED without the partner's answer, and the partner learns it when it asks. Nobody concludes anything from
    silence about keys that are away: the side that has them serves them, and ABORTING or RETURNING waits, and says for
    whom.

Crash cases
    after the event, before the journal: it did not happen; the partner repeats itself, the operator saw no answer. ·
    after the journal, before the command: `Resume` gives the command again. · after the command, before its event: it
    is run again, without effect, and gives the event. · node of either side lost for a while: its keepers end with it
    and come back with it, from their own rows; the phases stand still. · keeper lost: restarted by its node from its
    own rows, with what it was told of the migration; a command that waits for it goes on waiting. · both nodes crash
    in ABORTING: each resumes by stopping its own keeper. · the partner has forgotten the migration (restored from an
    old disk): before RELOCATING it is aborted, and ends if nothing is away; later it waits for a human, because UEs are
    there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from outrider.protocol.phase import Ending, Fact, Phase, Role, Row, demands, may_clear, may_have_moved, nothing_there
from outrider.protocol.table import Rule, Step, Table

Stepped = Step[Row, None]


# ------------------------------------------------------------------------------------------------ events
# What can happen to a migration. Facts that need a clock, a store or a signature are looked up by the caller.


@dataclass(frozen=True, slots=True)
class Begin:
    """The operator asks for it (lead), or an offer has come (target, giver)."""


@dataclass(frozen=True, slots=True)
class OfferJudged:
    """The answer to the offer: at a network that follows its own judgement, at the lead what came back."""

    refused: Ending | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Permissions are exchanged and judged: at the lead by all sides, at a network that follows by itself."""

    refused: Ending | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Target, giver: everything of PREPARING is done."""


@dataclass(frozen=True, slots=True)
class CopyDurable:
    """Source, giver: the copy is durable at the target, and followed. Home: the giver says so."""


@dataclass(frozen=True, slots=True)
class AllMoved:
    """Source, giver: the target owns every key in scope, and digests were equal. Home: the giver says so."""


@dataclass(frozen=True, slots=True)
class ReturnAsked:
    """Somebody entitled asks for the way back."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class TermsEnded:
    """The contract's deadline has passed, or a permission has expired or was revoked."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class StopAsked:
    """An operator stops the migration."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class DeclaredLost:
    """Source: an operator declares that the target's store is gone for good, with what it had not told yet."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Failed:
    """A command was refused, or its tries are used up: the phase cannot be completed."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Overdue:
    """The phase has taken longer than its bound."""

    phase: Phase
    ending: Ending


@dataclass(frozen=True, slots=True)
class Stopped:
    """The own keeper has confirmed that nothing is granted or accepted in this migration any more."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Giver: no key that it gave is without an answer, and it gives none any more."""


@dataclass(frozen=True, slots=True)
class Receiving:
    """Lead: the own keeper is open for the way back."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Target: the own keeper owns and has granted nothing."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Lead: no key is at the target, or on its way there."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Target: everything is erased and the receipt is signed."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Lead: the receipt is checked and kept."""


@dataclass(frozen=True, slots=True)
class PeerIs:
    """The partner tells where it stands; or, to home, the giver."""

    phase: Phase
    facts: frozenset[Fact] = frozenset()
    ending: Ending | None = None
    giver: bool = False


@dataclass(frozen=True, slots=True)
class PeerForgot:
    """The partner answers that it knows no such migration."""


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """The partner has not answered within the bound for telling it."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The node has restarted, or it is time to look again."""


EVENTS: tuple[type, ...] = (
    Begin, OfferJudged, Judged, Prepared, CopyDurable, AllMoved, ReturnAsked, TermsEnded, StopAsked, DeclaredLost,
    Failed, Overdue, Stopped, Decided, Receiving, Empty, Whole, Cleared, Closed, PeerIs, PeerForgot, PeerSilent, Resume,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- rules


def _go(row: Row, phase: Phase, why: str, **changes: Any) -> Stepped:
    new = msgspec.structs.replace(row, phase=phase, **changes)
    return Step(new, None, demands(new), why)


def _know(row: Row, fact: Fact, why: str) -> Stepped:
    return _go(row, row.phase, why, facts=row.facts | {fact})


def _merged(row: Row, e: PeerIs) -> Row:
    if e.giver:
        return msgspec.structs.replace(row, giver_facts=row.giver_facts | e.facts)
    peer = max(row.peer, e.phase, key=lambda phase: phase.rank)
    return msgspec.structs.replace(row, peer=peer, peer_facts=row.peer_facts | e.facts)


def _met(row: Row, ending: Ending) -> Ending:
    return msgspec.structs.replace(ending, phase=row.phase)


def _resume(row: Row, vol: None, e: Begin | Resume) -> Stepped:
    return Step(row, None, demands(row), f"going on: {row.phase.sentence}")


def _abort(row: Row, vol: None, e: StopAsked | Failed | TermsEnded | Overdue) -> Stepped:
    return _go(row, Phase.ABORTING, f"stopped: {e.ending.sentence}", ending=_met(row, e.ending))


def _lost(row: Row, vol: None, e: DeclaredLost) -> Stepped:
    met = row.ending.phase if row.phase is Phase.ABORTING and row.ending is not None else row.phase
    ending = msgspec.structs.replace(e.ending, phase=met)
    return _go(row, Phase.ABORTING, f"lost: {ending.sentence}", ending=ending, facts=row.facts | {Fact.LOST})


def _refused(row: Row, vol: None, e: OfferJudged) -> Stepped:
    assert e.refused is not None
    clean = Fact.HOME if row.role.leads else Fact.CLEARED if row.role is Role.TARGET else Fact.DECIDED
    why = f"refused: {e.refused.sentence}"
    return _go(row, Phase.ABORTED, why, facts=row.facts | {clean}, ending=_met(row, e.refused))


def _agreed(row: Row, vol: None, e: OfferJudged) -> Stepped:
    why = "both sides have signed the contract" if row.role is not Role.GIVER else "signed here"
    return _go(row, Phase.PERMITTING, why)


def _not_permitted(row: Row, vol: None, e: Judged) -> Stepped:
    assert e.refused is not None
    return _go(row, Phase.ABORTING, f"not permitted: {e.refused.sentence}", ending=_met(row, e.refused))


def _permitted_lead(row: Row, vol: None, e: Judged) -> Stepped:
    return _go(row, Phase.PREPARING, "all sides permit it", facts=row.facts | {Fact.PERMITTED})


def _permitted_here(row: Row, vol: None, e: Judged) -> Stepped:
    return _know(row, Fact.PERMITTED, "permitted here")


def _prepared(row: Row, vol: None, e: Prepared) -> Stepped:
    return _know(row, Fact.PREPARED, "ready for the copy")


def _copied(row: Row, vol: None, e: CopyDurable) -> Stepped:
    return _go(row, Phase.RELOCATING, "the copy is durable at the target and is followed")


def _copied_here(row: Row, vol: None, e: CopyDurable) -> Stepped:
    return _know(row, Fact.COPIED, "the copy is durable at the target and is followed")


def _moved_here(row: Row, vol: None, e: AllMoved) -> Stepped:
    return _know(row, Fact.MOVED, "the target has every UE that was in scope here")


def _settle(row: Row, vol: None, e: AllMoved) -> Stepped:
    return _go(row, Phase.SETTLED, "every UE in scope is at the target")


def _return(row: Row, vol: None, e: ReturnAsked | TermsEnded) -> Stepped:
    return _go(row, Phase.RETURNING, f"going back: {e.ending.sentence}", ending=_met(row, e.ending))


def _stopped(row: Row, vol: None, e: Stopped) -> Stepped:
    return _know(row, Fact.STOPPED, "the keeper grants and accepts nothing any more")


def _decided(row: Row, vol: None, e: Decided) -> Stepped:
    return _know(row, Fact.DECIDED, "nothing that was given is in doubt")


def _decided_end(row: Row, vol: None, e: Decided) -> Stepped:
    return _go(row, Phase.ABORTED, "nothing was given", facts=row.facts | {Fact.DECIDED})


def _receiving(row: Row, vol: None, e: Receiving) -> Stepped:
    return _know(row, Fact.RECEIVING, "open for the way back")


def _empty(row: Row, vol: None, e: Empty) -> Stepped:
    return _know(row, Fact.RETURNED, "no UE is here any more")


def _whole_return(row: Row, vol: None, e: Whole) -> Stepped:
    return _go(row, Phase.RETIRED, "every UE is home", facts=row.facts | {Fact.HOME})


def _whole_end(row: Row, vol: None, e: Whole) -> Stepped:
    return _go(row, Phase.ABORTED, "every UE is home and the target is clear", facts=row.facts | {Fact.HOME})


def _whole(row: Row, vol: None, e: Whole) -> Stepped:
    return _know(row, Fact.HOME, "every UE is home")


def _cleared(row: Row, vol: None, e: Cleared) -> Stepped:
    return _know(row, Fact.CLEARED, "erased, and the receipt is signed")


def _cleared_end(row: Row, vol: None, e: Cleared) -> Stepped:
    return _go(row, Phase.ABORTED, "erased, and the receipt is signed", facts=row.facts | {Fact.CLEARED})


def _closed(row: Row, vol: None, e: Closed) -> Stepped:
    return _know(row, Fact.CLOSED, "the target's erasure receipt is checked")


def _peer_aborts(row: Row, vol: None, e: PeerIs) -> Stepped:
    told = e.ending or Ending("PARTNER_ABORTED", "the partner has stopped it without a cause")
    return _go(_merged(row, e), Phase.ABORTING, f"the partner stopped it: {told.sentence}", ending=_met(row, told))


def _peer_returns(row: Row, vol: None, e: PeerIs) -> Stepped:
    told = e.ending or Ending("RETURN_ASKED", "the partner asks for the way back")
    return _go(_merged(row, e), Phase.RETURNING, f"going back: {told.sentence}", ending=_met(row, told))


def _follow(row: Row, vol: None, e: PeerIs) -> Stepped:
    return _go(_merged(row, e), e.phase, f"the lead is {e.phase.value}: {e.phase.sentence}")


def _start_copy(row: Row, vol: None, e: PeerIs) -> Stepped:
    return _go(_merged(row, e), Phase.COPYING, "the target is prepared")


def _peer_cleared(row: Row, vol: None, e: PeerIs) -> Stepped:
    return _go(_merged(row, e), Phase.ABORTED, "the target is clear")


def _out_of_order(row: Row, vol: None, e: PeerIs) -> Stepped:
    sentence = f"the partner says {e.phase.value} when this side is only {row.phase.value}"
    return _go(
        _merged(row, e), Phase.ABORTING, sentence, ending=Ending("PARTNER_OUT_OF_ORDER", sentence, phase=row.phase)
    )


def _heard(row: Row, vol: None, e: PeerIs) -> Stepped:
    new = _merged(row, e)
    if new == row:
        return Step(row, None, (), "nothing new from the partner")
    # What the partner does is news only where this side waits for it.
    who = "giver" if e.giver else "partner"
    return Step(new, None, demands(new) if demands(new) != demands(row) else (), f"the {who} is {e.phase.value}")


def _peer_lost(row: Row, vol: None, e: PeerIs) -> Stepped:
    assert e.ending is not None
    met = row.ending.phase if row.ending is not None else row.phase
    ending = msgspec.structs.replace(e.ending, phase=met)
    return _go(_merged(row, e), row.phase, f"the source declares the store here lost: {ending.sentence}", ending=ending)


def _forgotten(row: Row, vol: None, e: PeerForgot) -> Stepped:
    ending = Ending("PARTNER_FORGOT", "the partner knows no such migration any more", phase=row.phase)
    return _go(row, Phase.ABORTING, "stopped: " + ending.sentence, ending=ending)


def _alone_end(row: Row, vol: None, e: PeerForgot | PeerSilent) -> Stepped:
    return _go(row, Phase.ABORTED, "every UE is home; the partner did not say that it is clear")


def _lead_only(row: Row, vol: None, e: Any) -> bool:
    return row.role.leads


def _follower_only(row: Row, vol: None, e: Any) -> bool:
    return not row.role.leads


def _target_only(row: Row, vol: None, e: Any) -> bool:
    return row.role is Role.TARGET


def _giver_only(row: Row, vol: None, e: Any) -> bool:
    return row.role is Role.GIVER


def _nothing_given(row: Row, vol: None, e: Decided) -> bool:
    return row.role is Role.GIVER and not may_have_moved(row)


def _refusal(row: Row, vol: None, e: OfferJudged | Judged) -> bool:
    return e.refused is not None


def _lead_past(phase: Phase) -> Callable[[Row, None, Any], bool]:
    return lambda r, v, e: not r.role.leads and phase.rank <= e.phase.rank <= Phase.RETIRED.rank


def _lead_in(phase: Phase) -> Callable[[Row, None, Any], bool]:
    return lambda r, v, e: not r.role.leads and e.phase is phase


def _permitted_and_asked(row: Row, vol: None, e: PeerIs) -> bool:
    return _lead_in(Phase.PREPARING)(row, vol, e) and Fact.PERMITTED in row.facts


def _unprepared_but_past(row: Row, vol: None, e: PeerIs) -> bool:
    return Fact.PREPARED not in row.facts and _lead_past(Phase.COPYING)(row, vol, e)


def _all_prepared(row: Row, vol: None, e: PeerIs) -> bool:
    told = _merged(row, e)
    giver = row.role is not Role.HOME or Fact.PREPARED in told.giver_facts
    return row.role.leads and Fact.PREPARED in told.peer_facts and giver


def _nothing_there(row: Row, vol: None, e: Whole) -> bool:
    return row.role.leads and nothing_there(row)


def _done_and_retired(row: Row, vol: None, e: PeerIs) -> bool:
    done = Fact.RETURNED if row.role is Role.TARGET else Fact.DECIDED
    return _lead_in(Phase.RETIRED)(row, vol, e) and done in row.facts


def _decided_and_aborted(row: Row, vol: None, e: PeerIs) -> bool:
    return row.role is Role.GIVER and e.phase is Phase.ABORTED and Fact.DECIDED in row.facts


def _lead_stopped(row: Row, vol: None, e: Whole) -> bool:
    return row.role.leads and Fact.STOPPED in row.facts


def _stopped_and_target_clear(row: Row, vol: None, e: Whole) -> bool:
    return _lead_stopped(row, vol, e) and Fact.CLEARED in row.peer_facts


def _lead_home(row: Row, vol: None, e: PeerForgot | PeerSilent) -> bool:
    return row.role.leads and Fact.HOME in row.facts


def _home_and_target_clear(row: Row, vol: None, e: PeerIs) -> bool:
    return row.role.leads and Fact.HOME in row.facts and Fact.CLEARED in _merged(row, e).peer_facts


def _source_not_home(row: Row, vol: None, e: DeclaredLost) -> bool:
    return row.role is Role.SOURCE and Fact.HOME not in row.facts


def _this_phase(row: Row, vol: None, e: Overdue) -> bool:
    return e.phase is row.phase


def _stopped_there(row: Row, vol: None, e: PeerIs) -> bool:
    return e.phase in (Phase.ABORTING, Phase.ABORTED)


def _declared_there(row: Row, vol: None, e: PeerIs) -> bool:
    return Fact.LOST in e.facts - row.peer_facts and e.ending is not None and row.role is Role.TARGET


def _returning_there(row: Row, vol: None, e: PeerIs) -> bool:
    return e.phase is Phase.RETURNING


def _move_all(row: Row, vol: None, e: AllMoved) -> bool:
    return row.role.leads and row.move_all


def _target_may_clear(row: Row, vol: None, e: Cleared) -> bool:
    return row.role is Role.TARGET and may_clear(row)


P = Phase
LIVE = (P.NEGOTIATING, P.PERMITTING, P.PREPARING, P.COPYING, P.RELOCATING, P.SETTLED, P.RETURNING)
"""Phases that can still be stopped."""
BEFORE = (P.NEGOTIATING, P.PERMITTING, P.PREPARING)
"""Phases in which no UE can have moved."""
SERVING = (P.COPYING, P.RELOCATING, P.SETTLED)
"""Phases in which the target serves."""
_AHEAD = (
    (P.PREPARING, (P.COPYING, P.RELOCATING, P.SETTLED)),
    (P.COPYING, (P.RELOCATING, P.SETTLED)),
    (P.RELOCATING, (P.SETTLED,)),
)
_past, _in = _lead_past, _lead_in


def _rules(
    *lines: tuple[str, Phase | tuple[Phase, ...], type, Phase | None, str, str, Any, Any],
) -> list[Rule[Row, None]]:
    """A rule for each phase that a line names; `None` as the phase entered is the phase left."""
    rules = []
    for name, ats, on, to, when, clause, then, guard in lines:
        for at in ats if isinstance(ats, tuple) else (ats,):
            rule_id = f"{name}-{at.value}" if isinstance(ats, tuple) else name
            rules.append(Rule(rule_id, at, on, to or at, when, clause, then, guard))
    return rules


# fmt: off
RULES: tuple[Rule[Row, None], ...] = tuple(_rules(
    # Start and restart: do what the row demands.
    ("begin", P.NEGOTIATING, Begin, None, "asked for, or offered", "§5", _resume, None),
    ("resume", tuple(P), Resume, None, "restart", "§5", _resume, None),
    # Terms and permissions. A refused offer has left nothing anywhere, so it ends at once.
    ("offer-refused", P.NEGOTIATING, OfferJudged, P.ABORTED, "refused", "§5", _refused, _refusal),
    ("offer-agreed", P.NEGOTIATING, OfferJudged, P.PERMITTING, "signed", "§5", _agreed, None),
    ("not-permitted", P.PERMITTING, Judged, P.ABORTING, "refused by a side", "§6", _not_permitted, _refusal),
    ("permitted", P.PERMITTING, Judged, P.PREPARING, "lead: by all", "§6", _permitted_lead, _lead_only),
    ("permitted-here", P.PERMITTING, Judged, None, "follower: here", "§6", _permitted_here, None),
    # Anybody stops it, in any phase, and hears of it from the partner.
    ("stop", LIVE, StopAsked, P.ABORTING, "an operator stops", "§3.9", _abort, None),
    ("lost", (*LIVE[3:], P.ABORTING), DeclaredLost, P.ABORTING, "source: not home", "§9", _lost, _source_not_home),
    ("failed", LIVE, Failed, P.ABORTING, "a step is refused", "§3.9", _abort, None),
    ("overdue", LIVE, Overdue, P.ABORTING, "this phase", "§3.9", _abort, _this_phase),
    ("peer-stops", LIVE, PeerIs, P.ABORTING, "another has stopped", "§3.9", _peer_aborts, _stopped_there),
    ("terms-ended", BEFORE, TermsEnded, P.ABORTING, "deadline, permission", "§6", _abort, None),
    ("forgotten", LIVE[1:4], PeerForgot, P.ABORTING, "partner knows nothing", "§3.9", _forgotten, None),
    # The source leads, or home where that is a third.
    ("all-prepared", P.PREPARING, PeerIs, P.COPYING, "lead: target, giver", "§5", _start_copy, _all_prepared),
    ("copy-durable", P.COPYING, CopyDurable, P.RELOCATING, "lead", "§5, §7", _copied, _lead_only),
    ("all-moved", P.RELOCATING, AllMoved, P.SETTLED, "lead: move-all", "§5", _settle, _move_all),
    ("copied-here", P.COPYING, CopyDurable, None, "giver", "§5, §7", _copied_here, _giver_only),
    ("moved-here", P.RELOCATING, AllMoved, None, "giver", "§5", _moved_here, _giver_only),
    # The others follow, also over a phase that they did not hear of, but never over what they have not done themselves.
    ("prepare", P.PERMITTING, PeerIs, P.PREPARING, "permitted here, asked", "§5, §6", _follow, _permitted_and_asked),
    ("prepared", P.PREPARING, Prepared, None, "follower", "§5", _prepared, _follower_only),
    ("skips", BEFORE[:2], PeerIs, P.ABORTING, "follower: lead skips", "§6", _out_of_order, _past(P.PREPARING)),
    ("unprepared", P.PREPARING, PeerIs, P.ABORTING, "follower: lead skips", "§6", _out_of_order, _unprepared_but_past),
    *((f"follow-{to.value}-from-{at.value}", at, PeerIs, to, "follower: lead is there", "§5", _follow, _in(to))
      for at, phases in _AHEAD for to in phases),
    # The way back: asked for by anybody entitled, or the terms have ended.
    ("return", SERVING, ReturnAsked, P.RETURNING, "asked", "§5", _return, None),
    ("terms-ended", SERVING, TermsEnded, P.RETURNING, "deadline, permission", "§6", _return, None),
    ("peer-returns", SERVING, PeerIs, P.RETURNING, "another asks", "§5", _peer_returns, _returning_there),
    ("peer-returns", BEFORE[2:], PeerIs, P.RETURNING, "follower: lead asks", "§5", _peer_returns, _in(P.RETURNING)),
    # The way back, whatever started it.
    ("stopped", P.ABORTING, Stopped, None, "keeper has stopped", "§3.9", _stopped, None),
    ("giver-stopped", P.RETURNING, Stopped, None, "giver: keeper has stopped", "§8", _stopped, _giver_only),
    ("decided-end", P.ABORTING, Decided, P.ABORTED, "giver: nothing given", "§3.9", _decided_end, _nothing_given),
    ("decided", (P.RETURNING, P.ABORTING), Decided, None, "giver: all answered", "§8", _decided, _giver_only),
    ("receiving", (P.RETURNING, P.ABORTING), Receiving, None, "lead: keeper open", "§3.9", _receiving, _lead_only),
    ("empty", (P.RETURNING, P.ABORTING), Empty, None, "target: no key here", "§3.9", _empty, _target_only),
    ("whole", P.RETURNING, Whole, P.RETIRED, "lead: target empty", "§5", _whole_return, _nothing_there),
    ("retire", (P.RETURNING, P.ABORTING), PeerIs, P.RETIRED, "follower: done, lead retired", "§5",
     _follow, _done_and_retired),
    ("cleared", P.RETIRED, Cleared, None, "target: erased", "§5", _cleared, _target_only),
    ("closed", P.RETIRED, Closed, None, "lead: receipt checked", "§5", _closed, _lead_only),
    # The end of an abort: home has everything first, then the target clears.
    ("whole-end", P.ABORTING, Whole, P.ABORTED, "lead: target clear", "§3.9", _whole_end, _stopped_and_target_clear),
    ("whole-abort", P.ABORTING, Whole, None, "lead: target not clear", "§3.9", _whole, _lead_stopped),
    ("cleared-end", P.ABORTING, Cleared, P.ABORTED, "target: erased", "§3.9", _cleared_end, _target_may_clear),
    ("peer-cleared", P.ABORTING, PeerIs, P.ABORTED, "lead: all home", "§3.9", _peer_cleared, _home_and_target_clear),
    ("forgot-end", P.ABORTING, PeerForgot, P.ABORTED, "lead: all home", "§3.9", _alone_end, _lead_home),
    ("silent-end", P.ABORTING, PeerSilent, P.ABORTED, "lead: all home", "§3.9", _alone_end, _lead_home),
    ("lead-aborted", P.ABORTING, PeerIs, P.ABORTED, "giver: all answered", "§3.9", _follow, _decided_and_aborted),
    ("peer-lost", P.ABORTING, PeerIs, None, "target: declared lost", "§9", _peer_lost, _declared_there),
    # Everything else that the partner says is remembered.
    ("heard", tuple(P), PeerIs, None, "news", "§5", _heard, None),
))
# fmt: on

MIGRATION = Table(RULES, lambda row: row.phase)
"""The table that everything runs: production, tests and diagrams."""
