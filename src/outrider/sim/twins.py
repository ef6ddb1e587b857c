"""Twins: the protocol with one rule taken out. The search must catch each, or the rule is not known to be needed.

`SAFE_ALONE` are the opposite: rules that another rule covers, so that the search finds nothing without them. They are
kept because a fault of the program, a hostile peer or a fault outside these worlds may break the other one.
"""

from dataclasses import dataclass, replace
from typing import Any

from outrider.sim import broken
from outrider.sim.model import Driver
from outrider.sim.space import Space
from outrider.sim.sync import SyncBounds, SyncWorld
from outrider.sim.values import Bounds
from outrider.sim.world import World


@dataclass(frozen=True)
class Twin:
    """A world without a rule, where the search looks for it, and what it finds."""

    name: str
    clause: str
    world: type[Driver] | type[SyncWorld]
    bounds: Bounds | SyncBounds
    finds: str
    """Beginning of the predicate that breaks; empty where nothing does."""

    @property
    def without(self) -> str:
        """What the twin does wrong, in a sentence."""
        return (self.world.__doc__ or "").split("\n")[0]

    @property
    def liveness(self) -> bool:
        """Whether it is to be found by what never ends, or by what is wrong."""
        return self.finds in ("I9", "")

    def space(self) -> Space[Any]:
        """The twin's world."""
        if isinstance(self.bounds, SyncBounds):
            assert issubclass(self.world, SyncWorld)
            return self.world(self.bounds)
        assert issubclass(self.world, Driver)
        return World(self.world(self.bounds))


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
        Twin("unfold-unchecked", "§1", broken.UnfoldUnchecked, Bounds(star=True, epochs=3, writes=1), ""),
    )
}
"""Nothing is found, in the whole world: another rule covers them."""
