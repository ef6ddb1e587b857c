"""A mechanism is taken out of the processes that it is in, and of those of such a run only."""

import os
import subprocess
import sys

import pytest

from outrider.bench.ablation import WITHOUT, environment
from outrider.core import compress, limits
from outrider.host.copying import Copy
from outrider.host.shadow import Shadow

LOOK = """
from outrider.core import compress, limits
from outrider.host.copying import Copy
from outrider.host.shadow import Shadow
print(compress._LEVEL, limits.FLIPS, limits.FLIPS_HELD, Copy._follow.__name__, Shadow._run.__module__)
"""


def seen(without: str | None, process: str) -> list[str]:
    env = {**os.environ, **environment(without)}
    done = subprocess.run([sys.executable, "-c", LOOK, process], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


USUAL = [str(compress._LEVEL), str(limits.FLIPS), str(limits.FLIPS_HELD), Copy._follow.__name__, Shadow._run.__module__]
KEEPER, BULK = "outrider.host.keeper", "outrider.store.bulk_process"


@pytest.mark.parametrize(("without", "place"), [("compression", 0), ("holds", 1), ("log", 3), ("shadow", 4)])
def test_what_is_left_out_of_a_keeper_is_the_one_thing(without: str, place: int):
    found = seen(without, KEEPER)
    changed = {i for i, (now, usual) in enumerate(zip(found, USUAL, strict=True)) if now != usual}
    assert place in changed
    assert changed <= {place, 2 if without == "holds" else place}


def test_a_freeze_holds_all_partitions_together():
    assert seen("holds", KEEPER)[1:3] == ["256", "256"]


def test_compression_is_left_out_where_chunks_are_made_too():
    assert seen("compression", BULK)[0] != USUAL[0]
    assert seen("holds", BULK) == USUAL


def test_without_anything_left_out_nothing_is_changed():
    assert environment(None) == {}
    assert seen(None, KEEPER) == USUAL
    assert set(WITHOUT) == {"holds", "compression", "log", "shadow"}


def test_what_is_not_compressed_can_be_read_by_everybody():
    found = seen("compression", KEEPER)
    frame = compress.zstandard.compress(bytes(10_000) + b"end", int(found[0]))
    assert compress.decompress(frame) == bytes(10_000) + b"end"
