"""The contexts of each shape are what they are said to be, and their services can count in them."""

import pytest
import zstandard

from outrider.bench.shapes import RECORD, SHAPES, Shape, supi
from outrider.core import limits
from outrider.sdk.harness import _Context
from outrider.sdk.testing import Harness


def packed_share(shape: Shape) -> float:
    values = b"".join(shape.value(n) for n in range(1, 41))
    return len(zstandard.compress(values, 1)) / len(values)


def test_sizes_and_what_compression_leaves_are_those_of_the_workloads():
    assert 1_000 < len(SHAPES["session"].value(1)) < 1_300
    assert 60_000 < len(SHAPES["large"].value(1)) < 68_000 < limits.RECORD_BYTES
    assert packed_share(SHAPES["session"]) < 0.3
    assert packed_share(SHAPES["large"]) < 0.4
    assert packed_share(SHAPES["noise"]) > 0.9  # what is small in it is JSON


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_ues_have_the_same_context_and_one_has_always_the_same(name: str):
    value = SHAPES[name].value
    assert value(1) == value(1) != value(2)
    assert b'"count":0,' in value(1)
    assert b'"lastSeq":0,' in value(1)  # what a write to a peer replaces


@pytest.mark.parametrize("name", SHAPES)
async def test_the_service_counts_in_a_context_that_was_put_into_the_store(name: str):
    shape = SHAPES[name]
    async with Harness.of_project(shape.service) as h:
        put(h, shape, 5)
        for seq in (1, 2):
            answer = await h.request(
                shape.session.name, "POST", f"{shape.root}/{supi(5)}/transactions", ue=supi(5), json={"seq": seq}
            )
            assert answer.status == 200
        said = answer.json()
        assert said["count"] == 2
        assert set(said.get("counts", [2])) == {2}
        tail = shape.value(5).partition(b"\n")[2]
        assert records(h, 5)[shape.session.name].partition(b"\n")[2] == tail


def put(h: Harness, shape: Shape, number: int) -> None:
    """Into the kit's memory, as a store is filled: no request of the services makes these records."""
    context = h._contexts.setdefault(h._key(supi(number), None), _Context(h.home, supi(number)))
    context.records |= {(nf, RECORD): body for nf, body in shape.records(number).items()}


def records(h: Harness, number: int) -> dict[str, bytes]:
    return {nf: body for (nf, _), body in h._context(supi(number), None).records.items()}
