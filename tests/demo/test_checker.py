"""The checker passes every correct history and turns red at each planted fault."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outrider.demo.checker import Findings, Phase, Timeline, check
from outrider.demo.histories import (
    Arrived,
    Attempt,
    Basic,
    Discovered,
    Final,
    FinalPolicy,
    FinalPresence,
    FinalSession,
    Firing,
    HistoryError,
    Line,
    Notified,
    Opened,
    Outcome,
    Subscribed,
    Transaction,
    Writer,
    read,
)

HOME, TARGET = "999-70", "999-71-000007ed9d5"
TIMELINE = Timeline(
    HOME, TARGET, [Phase("before", 0.0, 100.0), Phase("during", 100.0, 200.0), Phase("after", 200.0, 1e9)]
)


@dataclass
class Service:
    """A service that does right, for one UE; what goes wrong is planted in the history that it leaves."""

    ue: str
    chance: random.Random
    recent: int = 8
    chained: bool = True
    owner: str = HOME
    clock: float = 1.0
    applied: list[int] = field(default_factory=list)
    lines: list[Transaction] = field(default_factory=list)

    def tick(self) -> float:
        self.clock += self.chance.uniform(0.001, 0.5)
        return self.clock

    def transact(self, seq: int, outcome: Outcome = "ok", *, takes_effect: bool = True, overlaps: bool = False) -> None:
        """One transaction; if it overlaps, it was sent before the answer to the one before came."""
        sent = self.lines[-1].sent + 1e-6 if overlaps and self.lines else self.tick()
        applied = outcome == "ok" or (outcome == "unknown" and takes_effect)
        previous = self.applied[-1] if self.applied else None
        if applied:
            self.applied.append(seq)
        ended = self.tick()
        ok = outcome == "ok"
        self.lines.append(
            Transaction(
                ue=self.ue,
                seq=seq,
                idem=f"{self.ue}-{seq}",
                network=self.owner,
                scheduled=sent,
                sent=sent,
                ended=ended,
                outcome=outcome,
                attempts=[Attempt(sent, ended, self.owner)],
                status={"ok": 200, "refused": 429, "failed": 503, "unknown": 504}[outcome],
                count=len(self.applied) if ok else None,
                last_seq=seq if ok else None,
                previous_seq=previous if ok and self.chained else None,
                chained=ok and self.chained,
                served_by=self.owner if ok else None,
            )
        )

    def final(self) -> Final:
        events = len(self.applied) + 1
        return Final(
            ue=self.ue,
            sent=self.tick(),
            ended=self.tick(),
            session=FinalSession(
                count=len(self.applied),
                last_seq=self.applied[-1] if self.applied else None,
                served_by=self.owner,
                recent_seqs=self.applied[-self.recent :] if self.recent else [],
            ),
            policy=FinalPolicy(1000, 0, 5, 5_500, [Firing(s, s * 1000, s * 1000 + 7) for s in range(1, 6)]),
            presence=FinalPresence(f"ue:{self.ue}", "g1", events),
        )


@dataclass
class Run:
    """The lines of a run, each kind to be tampered with."""

    transactions: list[Transaction]
    finals: list[Final]
    notified: list[Notified]
    other: list[Line] = field(default_factory=list)

    def findings(self, *, allow_failed: bool = False) -> Findings:
        lines: list[Line] = [*self.other, *self.transactions, *self.finals, *self.notified]
        return check(lines, TIMELINE, allow_failed=allow_failed)

    def at(self, seq: int, **changes: object) -> None:
        """Change the line of a transaction."""
        i = next(i for i, t in enumerate(self.transactions) if t.seq == seq)
        self.transactions[i] = replace(self.transactions[i], **changes)

    def session(self, **changes: object) -> None:
        """Change the session at the end."""
        session = self.finals[0].session
        assert session is not None
        self.finals[0] = replace(self.finals[0], session=replace(session, **changes))

    def policy(self, **changes: object) -> None:
        """Change the policy at the end."""
        policy = self.finals[0].policy
        assert policy is not None
        self.finals[0] = replace(self.finals[0], policy=replace(policy, **changes))


def run_of(services: list[Service]) -> Run:
    other: list[Line] = [Subscribed("g1", "s1", 0.0, 0.1)]
    notified: list[Notified] = []
    for service in services:
        other.append(Opened(service.ue, "g1", HOME, 0.2, 0.3, "ok", 201))
        notified += [
            Notified(1.0 + n, f"{service.ue}/{n}", "s1", "g1", f"ue:{service.ue}", n, 204)
            for n in range(1, len(service.applied) + 2)
        ]
    return Run([t for s in services for t in s.lines], [s.final() for s in services], notified, other)


@pytest.fixture
def run() -> Run:
    """Ten transactions of one UE, served at home, at the target from the sixth on."""
    service = Service("ue-1", random.Random(1))
    for seq in range(1, 11):
        if seq == 6:
            service.owner = TARGET
        service.transact(seq)
    return run_of([service])


# --------------------------------------------------------------------------------------- correct histories


@st.composite
def correct_services(draw: st.DrawFn) -> Service:
    service = Service(
        draw(st.sampled_from(["ue-1", "ue-2"])),
        random.Random(draw(st.integers(0, 2**32))),
        recent=draw(st.sampled_from([0, 1, 8])),
        chained=draw(st.booleans()),
    )
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["ok", "ok", "ok", "refused", "failed", "unknown"]),
                st.booleans(),
                st.booleans(),
                st.booleans(),
            ),
            min_size=1,
            max_size=30,
        )
    )
    for seq, (outcome, takes_effect, overlaps, moves) in enumerate(steps, 1):
        if moves:
            service.owner = TARGET if service.owner == HOME else HOME
        service.transact(seq, outcome, takes_effect=takes_effect, overlaps=overlaps)  # type: ignore[arg-type]
    service.transact(len(steps) + 1)
    return service


@given(correct_services())
@settings(max_examples=300, deadline=None)
def test_a_correct_history_passes(service: Service) -> None:
    findings = run_of([service]).findings(allow_failed=True)
    assert findings.verdict == "PASS", findings.reasons
    assert findings.requests_lost == findings.requests_duplicated == findings.requests_reordered == 0


@given(correct_services(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_answered_transaction_left_out_of_the_final_chain_is_seen(service: Service, data: st.DataObject) -> None:
    """The service forgets one answered transaction before the last: all later counts are one lower than they were."""
    answered = [t.seq for t in service.lines if t.outcome == "ok"]
    forgotten = data.draw(st.sampled_from(answered))
    forgetful = Service(service.ue, random.Random(0), service.recent, service.chained, service.owner)
    forgetful.lines = service.lines
    forgetful.applied = [seq for seq in service.applied if seq != forgotten]
    assert run_of([forgetful]).findings(allow_failed=True).verdict == "FAIL"


@given(correct_services(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_transaction_applied_once_more_at_the_end_is_seen(service: Service, data: st.DataObject) -> None:
    doubling = Service(service.ue, random.Random(0), 8, service.chained, service.owner)
    doubling.lines = service.lines
    answered = [t.seq for t in service.lines if t.outcome == "ok"]
    doubling.applied = [*service.applied, data.draw(st.sampled_from(answered))]
    findings = run_of([doubling]).findings(allow_failed=True)
    assert findings.verdict == "FAIL"
    assert findings.requests_duplicated + findings.requests_lost > 0


# -------------------------------------------------------------------------------------------- planted faults


def test_a_correct_run_passes(run: Run) -> None:
    findings = run.findings()
    assert findings.verdict == "PASS", findings.reasons
    assert (findings.ues, findings.requests_sent, findings.requests_ok) == (1, 10, 10)


def test_an_answered_transaction_that_the_target_does_not_know_is_lost(run: Run) -> None:
    """The target took over without the last two transactions: its counts begin again below."""
    for seq in range(6, 11):
        run.at(seq, count=seq - 2, previous_seq=3 if seq == 6 else seq - 1)
    run.session(count=8, recent_seqs=[1, 2, 3, 6, 7, 8, 9, 10])
    findings = run.findings()
    assert findings.requests_lost == 2
    assert "ue-1: transaction 4 was answered with count 4, but transaction 6 has count 4" in str(findings.reasons)
    assert findings.verdict == "FAIL"


def test_the_last_transactions_lost_are_seen_at_the_end(run: Run) -> None:
    run.session(count=8, last_seq=8, recent_seqs=[7, 8])
    findings = run.findings()
    assert findings.requests_lost == 2
    assert findings.verdict == "FAIL"


def test_a_sequence_number_applied_twice_is_duplicated(run: Run) -> None:
    """Transaction 5 was applied at both ends of a retry: all later counts are one higher."""
    for seq in range(6, 11):
        run.at(seq, count=seq + 1)
    run.session(count=11, recent_seqs=[4, 5, 5, 6, 7, 8, 9, 10])
    findings = run.findings()
    assert findings.requests_duplicated == 1
    assert findings.requests_lost == 0
    assert findings.verdict == "FAIL"


def test_a_duplicate_is_seen_by_the_count_alone(run: Run) -> None:
    """A service that does not tell what was applied before."""
    for seq in range(1, 11):
        run.at(seq, previous_seq=None, chained=False, count=seq if seq < 6 else seq + 1)
    run.session(count=11, recent_seqs=[])
    findings = run.findings()
    assert findings.requests_duplicated == 1
    assert findings.verdict == "FAIL"


def test_a_transaction_applied_before_one_answered_earlier_is_reordered(run: Run) -> None:
    run.at(7, count=8, previous_seq=8)
    run.at(8, count=7, previous_seq=6)
    run.at(9, previous_seq=7)
    run.session(recent_seqs=[3, 4, 5, 6, 8, 7, 9, 10])
    findings = run.findings()
    assert findings.requests_reordered == 1
    assert findings.requests_lost == findings.requests_duplicated == 0
    assert findings.verdict == "FAIL"


def test_overlapping_transactions_may_be_applied_in_either_order() -> None:
    service = Service("ue-1", random.Random(1))
    service.transact(2)
    service.transact(1, overlaps=True)
    assert run_of([service]).findings().verdict == "PASS"


def test_two_networks_that_give_the_same_count_are_two_owners(run: Run) -> None:
    """Split brain: home goes on at 6 while the target serves 6 to 10 from its copy."""
    late = run.transactions[-1].ended
    for i, seq in enumerate(range(11, 14)):
        extra = replace(run.transactions[5], seq=seq, sent=late + i, ended=late + i + 0.5, served_by=HOME, count=6 + i)
        run.transactions.append(replace(extra, previous_seq=5 if i == 0 else seq - 1))
    findings = run.findings()
    assert findings.owner_conflicts == 3
    assert findings.requests_lost == 3
    assert findings.verdict == "FAIL"


def test_two_networks_at_the_same_moment_are_two_owners(run: Run) -> None:
    run.transactions.append(replace(run.transactions[6], seq=99, served_by=HOME))
    findings = run.findings()
    assert findings.owner_conflicts == 1
    assert findings.verdict == "FAIL"


@pytest.mark.parametrize(("outcome", "status"), [("refused", 429), ("failed", 503)])
def test_a_transaction_applied_against_its_answer_is_a_phantom(run: Run, outcome: str, status: int) -> None:
    run.at(5, outcome=outcome, status=status, count=None, chained=False, previous_seq=None, served_by=None)
    findings = run.findings(allow_failed=True)
    assert findings.requests_phantom == 1
    assert findings.verdict == "FAIL"


def test_a_transaction_that_nobody_sent_is_a_phantom(run: Run) -> None:
    run.session(count=11, last_seq=77, recent_seqs=[10, 77])
    assert run.findings().requests_phantom == 1


def test_a_request_without_an_answer_fails_the_verdict_unless_faults_were_injected() -> None:
    service = Service("ue-1", random.Random(1))
    service.transact(1)
    service.transact(2, "unknown")
    run = run_of([service])
    assert run.findings(allow_failed=True).verdict == "PASS"
    findings = run.findings()
    assert findings.requests_failed == findings.requests_unknown == 1
    assert findings.verdict == "FAIL"


@pytest.mark.parametrize("part", ["session", "policy", "presence"])
def test_a_ue_that_cannot_be_read_at_the_end_fails_the_verdict(run: Run, part: str) -> None:
    run.finals[0] = replace(run.finals[0], **{part: None})
    assert f"The {part} of 1 UEs could not be read" in str(run.findings().reasons)


def test_an_empty_history_is_no_pass() -> None:
    assert check([], TIMELINE).verdict == "FAIL"


# ------------------------------------------------------------------------------------- timers, notifications


def firings(*sequences: int) -> list[Firing]:
    return [Firing(s, s * 1000, s * 1000 + 3) for s in sequences]


@pytest.mark.parametrize(
    ("changes", "missed", "doubled"),
    [
        ({}, 0, 0),
        ({"firings": firings(1, 2, 4, 5), "renewals": 4}, 1, 0),
        ({"now_ms": 9_500}, 2, 0),  # due by then, with 2 s of grace: 7
        ({"now_ms": 7_500}, 0, 0),
        ({"firings": firings(1, 2, 3, 3, 4, 5), "renewals": 6}, 0, 1),
        ({"firings": firings(4, 5)}, 0, 0),  # the first three have left the bounded list
        ({"firings": firings(4, 5), "renewals": 6}, 0, 1),
        ({"firings": firings(4, 5), "renewals": 4}, 1, 0),
        ({"firings": [], "renewals": 0, "now_ms": 500}, 0, 0),
        ({"firings": [], "renewals": 0}, 3, 0),
    ],
)
def test_firings_missed_and_doubled_are_counted(
    run: Run, changes: dict[str, object], missed: int, doubled: int
) -> None:
    run.policy(**changes)
    findings = run.findings()
    assert (findings.timers_missed, findings.timers_doubled) == (missed, doubled)
    assert (findings.verdict == "PASS") == (missed == doubled == 0)


Tamper = Callable[[list[Notified]], list[Notified]]


@pytest.mark.parametrize(
    ("tamper", "lost", "duplicated", "reordered"),
    [
        (lambda n: n, 0, 0, 0),
        (lambda n: [*n, n[4]], 0, 0, 0),  # the same id again: what the id is for
        (lambda n: [replace(n[0], status=503), *n], 0, 0, 0),  # refused, then delivered
        (lambda n: [*n, replace(n[4], id="other")], 0, 1, 0),
        (lambda n: n[:4] + n[5:], 1, 0, 0),
        (lambda n: n[:-1], 1, 0, 0),
        (lambda n: [], 11, 0, 0),
        (lambda n: [replace(n[0], status=503), *n[1:]], 1, 0, 0),
        (lambda n: [n[0], n[2], n[1], *n[3:]], 0, 0, 1),
    ],
)
def test_notifications_lost_doubled_and_reordered_are_counted(
    run: Run, tamper: Tamper, lost: int, duplicated: int, reordered: int
) -> None:
    run.notified = tamper(run.notified)
    findings = run.findings()
    assert findings.notifications_lost == lost
    assert findings.notifications_duplicated == duplicated
    assert findings.notifications_reordered == reordered
    assert (findings.verdict == "PASS") == (lost == duplicated == reordered == 0)


def test_a_subscription_made_later_gets_what_comes_later(run: Run) -> None:
    run.other[0] = Subscribed("g1", "s1", 5.0, 5.1)
    run.notified = run.notified[3:]
    assert run.findings().verdict == "PASS"


# ----------------------------------------------------------------------------------------------- the figures


def test_latency_is_measured_from_when_a_transaction_was_due_and_kept_by_phase(run: Run) -> None:
    run.at(1, scheduled=10.0, sent=10.5, ended=11.0)
    for seq in range(2, 11):
        run.at(seq, scheduled=150.0 + seq, sent=150.0 + seq, ended=150.0 + seq + 0.020)
    findings = run.findings()
    assert findings.latency_ms["before"].max == 1000.0
    assert findings.latency_ms["during"].p99 == 20.0
    assert findings.latency_ms["after"].count == 0


def test_the_share_served_by_the_target_counts_the_first_request_after_each_arrival(run: Run) -> None:
    for seq in range(6, 11):
        run.at(seq, network=TARGET)
    t = next(t for t in run.transactions if t.seq == 6)
    run.other.append(Arrived("ue-1", TARGET, t.sent - 0.1, t.sent - 0.0001))
    assert run.findings().served_locally_on_arrival == 1.0
    run.at(6, served_by=HOME)
    assert run.findings().served_locally_on_arrival == 0.0


def test_the_basic_part_is_counted_and_compared_with_before(run: Run) -> None:
    for start, latency in ((10.0, 0.010), (110.0, 0.011)):
        run.other += [Basic("ue-1", "register", HOME, start, start, start + latency, 200)]
    findings = run.findings()
    assert (findings.basic_sent, findings.basic_failed, findings.basic_p99_ratio) == (2, 0, 1.1)
    run.other.append(Basic("ue-1", "register", HOME, 120.0, 120.0, 121.0, None))
    findings = run.findings()
    assert findings.basic_failed == 1
    assert findings.verdict == "FAIL"


def test_instances_found_at_the_target_are_given_by_phase(run: Run) -> None:
    for at, instances in ((10.0, 0), (110.0, 0), (120.0, 1), (210.0, 1), (220.0, 0)):
        run.other += [Discovered(TARGET, at, instances), Discovered(HOME, at, 1)]
    findings = run.findings()
    assert (findings.discovery_before, findings.discovery_during, findings.discovery_after) == (0, 1, 0)


# --------------------------------------------------------------------------------------------- as a process


def test_histories_are_read_as_they_were_written_but_for_a_last_line_cut_short(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with Writer(path) as history:
        for line in run.transactions:
            history.write(line)
    with path.open("ab") as file:
        file.write(b'{"kind":"transac')
    assert list(read([path]))[1:] == run.transactions


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"kind":"dance"}\n')
    with pytest.raises(HistoryError, match=r"h\.jsonl:1: "):
        list(read([path]))


@pytest.mark.parametrize("faulty", [False, True])
def test_the_process_exits_with_the_verdict(run: Run, tmp_path: Path, faulty: bool) -> None:
    if faulty:
        run.session(count=9, last_seq=9, recent_seqs=[9])
    with Writer(tmp_path / "h.jsonl") as history:
        for line in [*run.other, *run.transactions, *run.finals, *run.notified]:
            history.write(line)
    (tmp_path / "t.json").write_text(
        json.dumps({"home": HOME, "target": TARGET, "phases": [{"name": "before", "fromS": 0, "toS": 9}]})
    )
    command = [sys.executable, "-m", "outrider.demo.checker", "--history", "h.jsonl", "--timeline", "t.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=30)
    findings = json.loads(done.stdout)
    assert done.returncode == int(faulty)
    assert findings["verdict"] == ("FAIL" if faulty else "PASS")
    assert findings["requestsLost"] == int(faulty)


def test_the_process_says_what_it_cannot_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "outrider.demo.checker", "--history", "none.jsonl", "--timeline", "none.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=30)
    assert done.returncode == 2
    assert b"none.json" in done.stderr
