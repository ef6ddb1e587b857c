"""The ledger sees two owners, nobody, forks and foreign content at the commit that makes them."""

import pytest

from outrider.core.ids import partition_key, ue_key
from outrider.core.record import NO_HEAD, Change, Head, Kind, Record, digest_of
from outrider.protocol.messages import Accepted, Grant, LaneBatch, Refused
from outrider.protocol.ownership import Ownership, Row
from outrider.sim.whole.ledger import Ledger
from outrider.store.port import Context, Done, NotTheOwner, SetRow, StoreIdentity, Take, Work

UE, STAR = ue_key(bytes(16)), partition_key(0)
OWNED, GRANTED, FOREIGN = (Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN)
CHANGES = [Change(Kind.DATA, "n", "x", b"1")]


class Told:
    def __init__(self):
        self.rules = []

    def violation(self, rule, sentence):
        self.rules.append(rule)


class Store:
    identity = StoreIdentity("s", 1, bytes(32))

    def __init__(self, head=NO_HEAD, records=()):
        self._head, self._records = head, list(records)

    def context(self, key):
        return Context(key, Row(OWNED, 1), True, self._head, self._records)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def ledger(told):
    ledger = Ledger(told)
    ledger.rows = {"a": {STAR: Row(OWNED, 1)}, "b": {STAR: Row(FOREIGN, 0, "a")}}
    ledger.begun = True
    return ledger


def done(ledger, network, operation, head=None, store=None):
    ledger.committed(network, store or Store(), [operation], [Done(head)])


def unit(ledger, network, n, epoch=1):
    done(ledger, network, Work(UE, epoch, CHANGES), Head(epoch, n, bytes(16)))


def test_a_grant_and_its_acceptance_are_right(ledger, told):
    record = Record(UE, Kind.DATA, "n", "x", b"1", 1)
    head = Head(1, 1, digest_of([record], bytes(32)))
    done(ledger, "a", Work(UE, 1, CHANGES), head)
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(GRANTED, 2, "b")))
    done(ledger, "b", Take(UE, Row(FOREIGN, 0, "a"), Row(OWNED, 2), head), store=Store(head, [record]))
    done(ledger, "a", SetRow(UE, Row(GRANTED, 2, "b"), Row(FOREIGN, 2, "b")))
    unit(ledger, "b", 2, epoch=2)
    assert told.rules == []
    assert ledger.owners(UE) == ["b"]


def test_two_owners(ledger, told):
    done(ledger, "b", Take(UE, Row(FOREIGN, 0, "a"), Row(OWNED, 2), NO_HEAD))
    assert told.rules == ["I1"]


def test_nobody(ledger, told):
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(FOREIGN, 2, "b")))
    assert told.rules == ["I1"]


def test_a_key_that_comes_without_content(ledger, told):
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(GRANTED, 2, "b")))
    done(ledger, "b", SetRow(UE, Row(FOREIGN, 0, "a"), Row(OWNED, 2)))
    assert told.rules == ["I4"]


def test_an_epoch_that_is_given_twice(ledger, told):
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(GRANTED, 2, "b")))
    done(ledger, "a", SetRow(UE, Row(GRANTED, 2, "b"), Row(GRANTED, 2, "c")))
    assert told.rules == ["I2"]


@pytest.mark.parametrize(
    "message",
    [Grant("m", UE, 2, "s", NO_HEAD, "same"), Accepted(UE, 2, 2, "a"), Refused(UE, 2, "ABORTED")],
    ids=lambda m: type(m).__name__,
)
def test_a_message_whose_row_is_not_durable(ledger, told, message):
    ledger.sent("a", LaneBatch("s", 1, None, 0, 1, 1, [message]))
    assert told.rules == ["commit, then send"]


def test_a_unit_of_a_network_that_does_not_own(ledger, told):
    unit(ledger, "b", 1, epoch=0)
    assert told.rules == ["I5"]


def test_a_unit_that_does_not_follow_the_newest(ledger, told):
    unit(ledger, "a", 1)
    unit(ledger, "a", 3)
    assert told.rules == ["I3"]


def test_content_that_is_not_the_newest(ledger, told):
    unit(ledger, "a", 1)
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(GRANTED, 2, "b")))
    done(ledger, "b", Take(UE, Row(FOREIGN, 0, "a"), Row(OWNED, 2), NO_HEAD))
    assert told.rules == ["I4"]


def test_records_that_are_not_those_of_the_head(ledger, told):
    unit(ledger, "a", 1)
    done(ledger, "a", SetRow(UE, Row(OWNED, 1), Row(GRANTED, 2, "b")))
    wrong = Store(Head(1, 1, bytes(16)), [Record(UE, Kind.DATA, "n", "x", b"2", 1)])
    done(ledger, "b", Take(UE, Row(FOREIGN, 0, "a"), Row(OWNED, 2), Head(1, 1, bytes(16))), store=wrong)
    assert told.rules == ["I4"]


def test_what_was_refused_by_the_store_is_nothing(ledger, told):
    ledger.committed("b", Store(), [Work(UE, 5, CHANGES)], [NotTheOwner(Row(FOREIGN, 0, "a"))])
    assert told.rules == []


def test_a_store_that_comes_back_without_what_was_durable(ledger, told):
    class Empty:
        def own_rows(self, start, stop):
            return {}

    ledger.opened("a", Empty())
    assert told.rules == ["durability"]
