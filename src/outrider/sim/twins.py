"""Twins: the protocol with one rule taken out. The search must catch each, or the rule is not known to be needed.

`SAFE_ALONE` are the opposite: rules that another rule covers, so that the search finds nothing without them. They are
kept because a fault of the program, a hostile peer or a fault outside these worlds may break the other one.
"""

from dataclasses import dataclass, replace
from typing import Any

from outrider.sim import broken, broken_copying, broken_effects, broken_requests
from outrider.sim.copying import CopyBounds
from outrider.sim.effects import EffectBounds
from outrider.sim.model import Driver
from outrider.sim.requests import RequestBounds
from outrider.sim.space import Space
from outrider.sim.sync import SyncBounds
from outrider.sim.values import Bounds
from outrider.sim.world import World
from outrider.sim.worlds import AnyBounds


@dataclass(frozen=True)
class Twin:
    """A world without a rule, where the search looks for it, and what it finds."""

    name: str
    clause: str
    world: type[Any]
    """A driver of `sim.world`, or a whole world."""
    bounds: AnyBounds
    finds: str
    """Beginning of the predicate that breaks; empty where nothing does."""

    @property
    def without(self) -> str:
        """What the twin does wrong, in a sentence."""
        return (self.world.__doc__ or "").split("\n")[0]

    @property
    def liveness(self) -> bool:
        """Whether it is to be found by what never ends, or by what is wrong."""
        return self.finds in ("I8", "I9", "")

    def space(self) -> Space[Any]:
        """The twin's world."""
        space = self.world(self.bounds)
        return World(space) if isinstance(space, Driver) else space


_ONE, _TWO = Bounds(networks=3, epochs=4, writes=1), Bounds(epochs=5, writes=2)
_STAR = Bounds(star=True, epochs=4, writes=1)
_SYNC = SyncBounds(epochs=4, writes=2)
_HOMELESS = Bounds(networks=3, epochs=4, writes=1, home_losses=True)
_DECLARED = Bounds(networks=3, epochs=4, writes=1, losses=True, declares=True)

TWINS = {
    twin.name: twin
    for twin in (
        Twin("grant-before-disk", "§3.2", broken.SendsGrantFirst, _TWO, "I1"),
        Twin("accepted-before-disk", "§3.4", broken.SendsAcceptedFirst, _TWO, "I1"),
        Twin("refused-before-disk", "§3.4", broken.SendsRefusedFirst, _TWO, "I1"),
        Twin("granted-in-memory", "§1, §10", broken.GrantedForgotten, _TWO, "I1"),
        Twin("work-after-grant", "§3.2, §4.1", broken.WorksAfterGrant, Bounds(epochs=4, writes=2, units=True), "I5"),
        Twin("source-decides-alone", "§3.3", broken.SourceDecidesAlone, _TWO, "I1"),
        Twin("grant-not-repeated", "§3.3", broken.GrantNotRepeated, Bounds(recalls=False), "I9"),
        Twin("need-not-answered", "§3.4", broken.NeedNotAnswered, _ONE, "I9"),
        Twin("unequal-accepted", "§3.4", broken.UnequalAccepted, _ONE, "I3"),
        Twin("refusal-not-written", "§3.4", broken.RefusalNotWritten, _TWO, "I1"),
        Twin("recall-not-written", "§3.5", broken.RecallOfUnseenNotWritten, _TWO, "I1"),
        Twin("stale-refused", "§3.6", broken.StaleRefused, _ONE, "I1"),
        Twin("stale-decided-anew", "§3.6", broken.StaleDecidedAnew, _ONE, "I1"),
        Twin("refusal-forgotten", "§3.6", broken.RefusalForgotten, _TWO, "I1"),
        Twin("old-accepted-believed", "§3.7", broken.OldAcceptedBelieved, _TWO, "I1"),
        Twin("old-refused-believed", "§3.7", broken.OldRefusedBelieved, _TWO, "I1"),
        Twin("epoch-reused", "§3.8", broken.EpochReused, _ONE, "I2"),
        Twin("epoch-by-hearsay", "§1", broken.EpochByHearsay, _TWO, "I1"),
        Twin("takes-after-abort", "§3.9", broken.TakesAfterAbort, Bounds(aborts=True), "§3.9"),
        Twin("gives-after-abort", "§3.9", broken.GivesAfterAbort, Bounds(aborts=True), "§3.9"),
        Twin("reborn-answers", "§9", broken.RebornAnswers, Bounds(networks=3, epochs=4, writes=1, losses=True), "I1"),
        Twin("declared-alive", "§9", broken.DeclaredAlive, _DECLARED, "I1"),
        Twin("lost-epoch-reused", "§9", broken.LostEpochReused, _DECLARED, "I2"),
        Twin("lost-not-taken-back", "§9", broken.LostNotTakenBack, _DECLARED, "I9"),
        Twin("lost-store-heard", "§9", broken.LostStoreHeard, replace(_STAR, losses=True, declares=True), "alarm"),
        Twin("home-begins-as-owner", "§9", broken.HomeBeginsAsOwner, _HOMELESS, "I1"),
        Twin("older-copy-served", "§9", broken.OlderCopyServed, replace(_HOMELESS, writes=0), "I1"),
        Twin("late-chunk-on-owned", "§7", broken.LateChunkOnOwned, Bounds(epochs=4, writes=2, stream=True), "I3"),
        Twin("late-chunk-on-granted", "§7", broken.LateChunkOnGranted, Bounds(epochs=5, writes=2, stream=True), "I3"),
        Twin("excepted-forgotten", "§1", broken.ExceptedForgotten, _STAR, "I1"),
        Twin("excepted-not-kept", "§1", broken.ExceptedNotKept, _STAR, "I1"),
        Twin("excepted-not-set-apart", "§1", broken.ExceptedNotSetApart, _STAR, "I1"),
        Twin("excepted-not-in-recall", "§1, §3.5", broken.ExceptedNotInRecall, _STAR, "I1"),
        Twin("fold-without-floor", "§1", broken.FoldWithoutFloor, _STAR, "alarm"),
        Twin("granted-row-in-the-way", "§1, §3.4", broken.GrantedRowInTheWay, _STAR, "alarm"),
        Twin("synced-when-fenced", "§8", broken.SyncedWhenFenced, _SYNC, "S1"),
        Twin("2xx-before-synced", "§8", broken.AnswersBeforeSynced, _SYNC, "S1"),
        Twin("reclaim-in-lease", "§8", broken.ReclaimsInLease, _SYNC, "S2"),
        Twin("read-without-lease", "§8", broken.ReadsWithoutLease, _SYNC, "S2"),
        Twin("reclaim-same-epoch", "§8", broken.ReclaimsSameEpoch, _SYNC, "I1"),
        Twin("fence-in-memory", "§8", broken.FenceInMemory, _SYNC, "I1"),
        Twin("reclaim-too-low", "§8", broken.ReclaimsTooLow, SyncBounds(epochs=5, writes=1), "I9"),
        Twin("fenced-ignored", "§8", broken.FencedIgnored, _SYNC, "I9"),
        Twin("synced-leaves-row", "§8", broken.SyncedLeavesRow, _SYNC, "I9"),
        Twin("reads-anywhere", "§3.1", broken_requests.ReadsAnywhere, RequestBounds("AB", reads="r-"), "I7"),
        Twin("held-forgotten", "§3.2, §3.7", broken_requests.HeldForgotten, RequestBounds("A", refusals=True), "I8"),
        Twin("two-at-once", "§4.1", broken_requests.TwoAtOnce, RequestBounds("AA", units=True), "I3"),
        Twin(
            "old-process-commits",
            "§1, §4.1",
            broken_requests.OldProcessCommits,
            RequestBounds("AA", units=True, crashes=1),
            "I3",
        ),
        Twin("runs-again", "§4.3", broken_requests.RunsAgain, RequestBounds("AB", crashes=1), "I6"),
        Twin("not-taken-back", "§4.5", broken_requests.NotTakenBack, RequestBounds("ABB", impatience=2), "order"),
        Twin(
            "not-taken-back-refused",
            "§3.7, §4.5",
            broken_requests.NotTakenBackRefused,
            RequestBounds("AA", epochs=3, refusals=True),
            "order",
        ),
        Twin("queue-before-held", "§4.5", broken_requests.QueueBeforeHeld, RequestBounds("AA"), "order"),
        Twin("own-behind-queue", "§4.5", broken_requests.OwnBehindQueue, RequestBounds("BB", impatience=2), "order"),
        Twin("own-as-they-left", "§4.5", broken_requests.OwnAsTheyLeft, RequestBounds("BB", impatience=1), "order"),
        Twin("forward-not-awaited", "§4.5", broken_requests.ForwardNotAwaited, RequestBounds("A"), "refused"),
        Twin("forwards-forwards", "§4.6", broken_requests.ForwardsForwards, RequestBounds("A"), "loop"),
        Twin(
            "aims-anywhere", "§4.6", broken_requests.AimsAnywhere, RequestBounds("B", networks=3, gives_up=True), "loop"
        ),
        Twin("late-is-503", "§4.7", broken_requests.LateIs503, RequestBounds("B", expiries=1), "I8"),
        Twin("last-try-is-503", "§4.7", broken_requests.LastTryIs503, RequestBounds("B", expiries=2, crashes=1), "I8"),
        Twin(
            "sent-after-answer",
            "§4.7",
            broken_requests.SentAfterAnswer,
            RequestBounds("AB", expiries=1, crashes=1),
            "I8",
        ),
        Twin(
            "restart-unnoticed",
            "§4.7",
            broken_requests.RestartUnnoticed,
            RequestBounds("B", expiries=1, crashes=1),
            "I8",
        ),
        Twin("delivery-not-open", "§5, §3.1", broken_effects.DeliveryNotOpen, EffectBounds(entries="1"), "§5"),
        Twin("many-under-way", "§5", broken_effects.ManyUnderWay, EffectBounds(entries="2"), "I6"),
        Twin("counts-anew", "§5, §1", broken_effects.CountsAnew, EffectBounds(entries="11", timeouts=1), "I6"),
        Twin("outbox-stays-behind", "§5, §1", broken_effects.OutboxStaysBehind, EffectBounds(entries="1"), "I6"),
        Twin("entry-before-disk", "§5", broken_effects.EntryBeforeDisk, EffectBounds(entries="11", crashes=1), "I6"),
        Twin("deleted-first", "§5", broken_effects.DeletedFirst, EffectBounds(entries="1", timeouts=1), "I6"),
        Twin("nothing-dropped", "§5, §6", broken_effects.NothingDropped, EffectBounds(entries="1", timeouts=1), "I6"),
        Twin(
            "last-id-in-memory",
            "§6",
            broken_effects.LastIdInMemory,
            EffectBounds(entries="1", timeouts=1, crashes=1),
            "I6",
        ),
        Twin("shadow-fires", "§5", broken_effects.ShadowFires, EffectBounds(firings=1), "I6"),
        Twin("generation-unchecked", "§5", broken_effects.GenerationUnchecked, EffectBounds(4, firings=2), "I6"),
        Twin("rearmed-apart", "§5", broken_effects.RearmedApart, EffectBounds(firings=1, crashes=1), "§5"),
        Twin("overdue-not-found", "§5, §10", broken_effects.OverdueNotFound, EffectBounds(firings=1), "§5"),
        Twin("durable-before-seal", "§7", broken_copying.DurableBeforeSeal, CopyBounds(), "acked"),
        Twin("ahead-dropped", "§7", broken_copying.AheadDropped, CopyBounds(crashes=0), "acked"),
        Twin("staging-kept", "§7, §10", broken_copying.StagingKept, CopyBounds(early=False), "I4"),
        Twin("staging-wins", "§7", broken_copying.StagingWins, CopyBounds(crashes=0), "I4"),
        Twin("staged-over-newer", "§7", broken_copying.StagedOverNewer, CopyBounds(crashes=0, returns=1), "acked"),
        Twin("row-before-content", "§7, §3.4", broken_copying.RowBeforeContent, CopyBounds(), "I4"),
        Twin("ghosts-stay", "§7", broken_copying.GhostsStay, CopyBounds(visited=True, crashes=0), "I9"),
    )
}
"""Each is found."""

SAFE_ALONE = {
    twin.name: twin
    for twin in (
        Twin("drain-only", "§4.1", broken.DrainOnly, Bounds(epochs=4, writes=2, units=True), ""),
        Twin("commit-check-only", "§3.1", broken.CommitCheckOnly, Bounds(epochs=4, writes=2, units=True), ""),
        Twin("answers-of-anybody", "§3.7", broken.AnswersOfAnybody, _ONE, ""),
        Twin("log-follows-anything", "§7", broken.LogFollowsAnything, Bounds(epochs=3, writes=2, stream=True), ""),
        Twin("read-unchecked", "§3.1", broken_requests.ReadUnchecked, RequestBounds("AB", reads="r-"), ""),
        Twin("log-on-owned", "§7", broken_copying.LogOnOwned, CopyBounds(writes=1, crashes=0), ""),
        Twin("unfold-unchecked", "§1", broken.UnfoldUnchecked, Bounds(star=True, epochs=3, writes=1), ""),
    )
}
"""Nothing is found, in the whole world: another rule covers them."""
