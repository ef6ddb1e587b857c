"""Which store a keeper may serve from, by what its node has seen of it before."""

import pytest

from outrider.core.refusal import Refused
from outrider.host.config import KeeperConfig
from outrider.host.own_store import admission, why_not
from outrider.store.port import StoreMark

SEEN = StoreMark("s1", 5, 100)
FORMER = StoreMark("s0", 9, 900)


@pytest.mark.parametrize("home", [True, False])
@pytest.mark.parametrize(
    ("known", "found"),
    [
        ((), None),
        ((), SEEN),
        ((SEEN,), SEEN),
        ((SEEN,), StoreMark("s1", 6, 101)),
        ((FORMER, SEEN), StoreMark("s1", 5, 107)),
    ],
)
def test_the_first_store_and_the_one_that_was_seen_are_served_from(
    home: bool, known: tuple[StoreMark, ...], found: StoreMark | None
) -> None:
    assert why_not(known, found, home=home) is None


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "There is no store; the last one here was s1."),
        (StoreMark("s2", 1, 0), "The store is s2; the last one here was s1."),
        (StoreMark("s0", 10, 1000), "The store is s0; the last one here was s1."),
        (StoreMark("s1", 4, 200), "an older copy: it was opened 4 times, and 5 were seen"),
        (StoreMark("s1", 5, 99), "an older copy: it ends at change 99, and 100 were seen"),
    ],
)
def test_home_serves_from_no_other(found: StoreMark | None, says: str) -> None:
    why = why_not((FORMER, SEEN), found, home=True)
    assert why is not None
    assert says in why


@pytest.mark.parametrize("found", [None, StoreMark("s2", 1, 0), StoreMark("s0", 9, 900)])
def test_a_target_may_begin_anew_because_it_owns_nothing_then(found: StoreMark | None) -> None:
    assert why_not((FORMER, SEEN), found, home=False) is None


@pytest.mark.parametrize("found", [StoreMark("s1", 4, 200), StoreMark("s1", 5, 99), StoreMark("s0", 8, 1000)])
def test_a_target_serves_from_no_older_copy_of_any_store_that_it_had(found: StoreMark) -> None:
    assert "an older copy" in (why_not((FORMER, SEEN), found, home=False) or "")


@pytest.mark.parametrize(("home", "remedy"), [("999-70", "service begin-anew svc"), ("999-71", "of 999-71 declares")])
def test_the_refusal_says_what_was_known_what_was_found_and_what_helps(home: str, remedy: str) -> None:
    config = KeeperConfig(
        service="svc", network_id="999-70", home_id=home, data_dir="d", package_dir="", border_root="", nrf_root="",
        nrf_keys={}, internal_key="", nf_instance_ids={}, keeper_instance_id="", known_stores=(SEEN,),
    )  # fmt: skip
    admit = admission(config)
    admit(SEEN)
    with pytest.raises(Refused) as raised:
        admit(StoreMark("s1", 4, 90))
    refusal = raised.value.refusal
    assert (refusal.code, refusal.status) == ("STORE_LOST", 503)
    assert refusal.facts == {
        "known": "s1", "incarnation": "5", "changes": "100",
        "found": "s1", "foundIncarnation": "4", "foundChanges": "90",
    }  # fmt: skip
    assert remedy in refusal.remedy
