"""Worlds with LMSFs: some of every scenario, what a node's crash leaves, and what the notary looks at."""

import asyncio
from random import Random

import msgspec
import pytest

from outrider.core.contract import Contract
from outrider.core.refusal import Refused
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Logged
from outrider.functions.lmsf.record import Migration
from outrider.package import statements
from outrider.protocol.phase import Fact, Phase, Role, Row
from outrider.sim.whole import papers
from outrider.sim.whole.disk import Disk
from outrider.sim.whole.journal import VirtualJournal
from outrider.sim.whole.ledger import Ledger
from outrider.sim.whole.loop import VirtualLoop, context
from outrider.sim.whole.notary import Notary
from outrider.sim.whole.play import play
from outrider.sim.whole.run import run
from outrider.sim.whole.scenario import HOME, NAMES, B, Fault, draw
from outrider.sim.whole.service import MANIFEST
from outrider.sim.whole.trace import Trace


@pytest.mark.parametrize("name", NAMES)
def test_a_world_with_lmsfs_of_each_scenario_holds(name):
    result = play(draw("7", name, lmsfs=True))
    assert result.violations == []
    assert result.commits > 10


def sentences(result, where):
    return [event.sentence for event in result.events if event.where == where]


def undisturbed(seed="1", name="visit"):
    return msgspec.structs.replace(draw(seed, name, lmsfs=True), faults=[], unwilling="")


def test_a_visit_goes_through_every_phase_and_leaves_nothing():
    result = play(undisturbed(), story=True)
    assert result.violations == []
    for network in (HOME, B):
        said = " ".join(sentences(result, f"{network}/node"))
        reached = [phase for phase in Phase if f"phase {phase.value}," in said]
        settled = [phase for phase in reached if phase is not Phase.SETTLED]
        assert settled == [
            Phase.PERMITTING, Phase.PREPARING, Phase.COPYING, Phase.RELOCATING, Phase.RETURNING, Phase.RETIRED,
        ]  # fmt: skip


def test_a_node_that_is_killed_takes_its_keeper_with_it_and_goes_on():
    plan = undisturbed()
    killed = Fault(plan.acts[0].at_s + 1.0, "node-kill", B, 0.3)
    result = play(msgspec.structs.replace(plan, faults=[killed]), story=True)
    assert result.violations == []
    assert any("goes down (kill -9" in sentence for sentence in sentences(result, f"{B}/node"))
    assert any("its node has ended" in sentence for sentence in sentences(result, B))
    assert any("is up for the 2. time" in sentence for sentence in sentences(result, B))
    assert any("phase RETIRED" in sentence for sentence in sentences(result, f"{B}/node"))


@pytest.mark.parametrize("write", range(1, 12))
def test_a_node_is_killed_after_each_write_of_its_journal(write):
    plan = undisturbed()
    killed = Fault(plan.acts[0].at_s - 0.05, "node-kill-at", B, 0.0, times=write)
    result = play(msgspec.structs.replace(plan, faults=[killed]), story=True)
    assert result.violations == []
    assert any("after a write of its journal" in sentence for sentence in sentences(result, f"{B}/node"))


def test_nothing_is_granted_where_a_network_is_unwilling():
    plan = msgspec.structs.replace(undisturbed(), unwilling=B)
    result = play(plan, story=True)
    assert result.violations == []
    said = [event.sentence for event in result.events]
    assert any("phase ABORTED" in sentence for sentence in said)
    assert not any("state granted" in sentence for sentence in said)


@pytest.mark.parametrize("fault", ["done-before-journal", "found-too-early"])
def test_what_an_lmsf_does_wrong_at_once_is_caught_at_once(fault):
    assert run(seeds=10, fault=fault, stop_at_first=True).failed


# ------------------------------------------------------------------------------------------- the journal


class World:
    """A journal in a loop of its own."""

    def __init__(self, folder):
        self.loop = VirtualLoop("a journal")
        self.folder = folder
        self.disk = Disk(HOME, Random("a disk"), None)  # type: ignore[arg-type]
        self.kept = []
        self.trace = None

    def run(self, do):
        async def whole():
            self.trace = Trace()
            return await do()

        return self.loop.run_until_complete(whole())

    def open(self):
        return VirtualJournal(
            self.folder / "lmsf.db", HOME, SystemClock(),
            disk=self.disk, kept=lambda *what: self.kept.append(what), reached=lambda: None,
        )  # fmt: skip


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.loop.end()


def test_the_journal_keeps_writes_in_their_order_and_tells_afterwards(world):
    async def do():
        journal = world.open()
        told = []

        async def put(name):
            await journal.put("package", name, b"{}", event=("m", Logged(1, "Begin", "NEGOTIATING", "asked")))
            told.append((name, len(world.kept)))

        await asyncio.gather(*(put(str(i)) for i in range(5)))
        await journal.drop("package", "0")
        assert [name for _, name, _ in world.kept] == ["0", "1", "2", "3", "4", "0"]
        assert [name for name, _ in told] == ["0", "1", "2", "3", "4"]
        assert all(kept > int(name) for name, kept in told)
        assert len(journal.all("package")) == 4
        assert len(await journal.events("m")) == 5
        journal.close()

    world.run(do)


def test_a_crash_leaves_the_first_few_writes_of_the_journal(world):
    left = set()

    async def do():
        for _ in range(30):
            journal = world.open()
            before = len(journal.all("package"))
            writing = [
                asyncio.get_running_loop().create_task(
                    journal.put("package", f"{before + i}", b"{}"), context=context("node")
                )
                for i in range(3)
            ]
            while len(journal._line) < 3:
                await asyncio.sleep(0)
            journal.crash()
            for task in writing:
                task.cancel()
            again = world.open()
            left.add(len(again.all("package")) - before)
            again.close()

    world.run(do)
    assert left == {0, 1, 2, 3}


def test_a_full_disk_is_told_and_nothing_is_kept(world):
    async def do():
        journal = world.open()
        world.disk.full = True
        with pytest.raises(Refused, match="disk"):
            await journal.put("package", "p", b"{}")
        world.disk.full = False
        assert journal.all("package") == world.kept == []
        journal.close()

    world.run(do)


# -------------------------------------------------------------------------------------------- the notary


def record(network, phase, *facts, role=Role.SOURCE, **changes):
    key = papers.operator_key("1", HOME)
    terms = {
        "contractId": "m", "service": MANIFEST.service, "version": "1", "packageDigest": papers.DIGEST,
        "sbomDigest": papers.SBOM_DIGEST, "source": HOME, "target": B, "home": HOME, "purpose": "test", "maxUes": 9,
        "window": {"startMs": 0, "endMs": 9}, "deadlineMs": 9,
    }  # fmt: skip
    contract = statements.sign_contract(msgspec.convert(terms, Contract), key).decode()
    row = Row(role=role, phase=phase, facts=frozenset(facts), **changes)
    partner = B if network == HOME else HOME
    return Migration(
        id="m", service=MANIFEST.service, version="1", partner=partner, row=row, contract=contract,
        manifest=MANIFEST, package_bytes=1, created_ms=0,
    )  # fmt: skip


def watched(world, do):
    """The rules that were broken while this was told to a notary."""

    async def whole():
        do(Notary(Ledger(world.trace), {}, world.trace))
        return [violation.rule for violation in world.trace.violations]

    return world.run(whole)


def keep(notary, network, made):
    notary.kept(network, "migration", "m", msgspec.json.encode(made))


def test_phases_and_facts_only_grow(world):
    def do(notary):
        keep(notary, HOME, record(HOME, Phase.PREPARING, Fact.PERMITTED))
        keep(notary, HOME, record(HOME, Phase.ABORTING, Fact.PERMITTED))
        keep(notary, HOME, record(HOME, Phase.PREPARING, Fact.PERMITTED))
        keep(notary, HOME, record(HOME, Phase.ABORTED))

    assert watched(world, do) == ["phases", "phases"]


def test_an_end_is_never_left(world):
    def do(notary):
        keep(notary, HOME, record(HOME, Phase.RETIRED))
        keep(notary, HOME, record(HOME, Phase.ABORTED))

    assert watched(world, do) == ["phases"]


def test_what_is_taken_for_true_of_the_other_is_durable_there(world):
    def do(notary):
        keep(notary, B, record(B, Phase.PREPARING, Fact.PERMITTED, role=Role.TARGET))
        keep(notary, HOME, record(HOME, Phase.PREPARING, peer_facts=frozenset({Fact.PREPARED})))
        keep(notary, HOME, record(HOME, Phase.PREPARING, peer=Phase.COPYING))

    assert watched(world, do) == ["hearsay", "hearsay"]


def test_what_is_done_is_demanded_by_a_durable_row(world):
    def do(notary):
        path = "/outrider-host/v1/migrations/m"
        keep(notary, HOME, record(HOME, Phase.PREPARING))
        for verb in ("relocate", "finish", "abort"):
            notary.orders(HOME, "POST", f"{path}/{verb}")
        keep(notary, HOME, record(HOME, Phase.SETTLED))
        notary.orders(HOME, "POST", f"{path}/relocate")
        notary.orders(HOME, "POST", f"{path}.r/relocate")

    assert watched(world, do) == ["commit, then do"] * 4


def test_ends_are_alike(world):
    def do(notary):
        keep(notary, HOME, record(HOME, Phase.ABORTED))
        keep(notary, B, record(B, Phase.ABORTED, role=Role.TARGET))
        assert notary.judge({"m": (HOME, B)}) == []
        keep(notary, B, record(B, Phase.ABORTED, Fact.PREPARED, role=Role.TARGET))
        assert [v.rule for v in notary.judge({"m": (HOME, B)})] == ["receipt"]
        keep(notary, "999-72", record(B, Phase.RETIRED, role=Role.TARGET))
        assert [v.rule for v in notary.judge({"m": (HOME, "999-72")})] == ["ends"]

    assert watched(world, do) == []


def test_a_notary_believes_no_answer_before_its_row_is_durable(world):
    def do(notary):
        notary.answers(HOME, "m", "ABORTING")
        keep(notary, HOME, record(HOME, Phase.ABORTING))
        notary.answers(HOME, "m", "ABORTING")
        notary.took_back(HOME, "p")
        notary.kept(HOME, "revocation", f"{HOME}/p", b"{}")
        notary.took_back(HOME, "p")

    assert watched(world, do) == ["commit, then send"] * 2
