"""A memory limit bites, or the fault has not fired."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outrider.demo import hunger
from outrider.demo.fault import NotFired

KEEPER = """
import subprocess, sys, time
child = [sys.executable, "-c", sys.argv[1], "store.bulk_process"]
while True:
    subprocess.run(child)
    time.sleep(0.2)
"""
"""A stand-in for a keeper: it starts a process that does bulk work, again and again."""

NEEDS_MEMORY = "import time, sys; time.sleep(0.3); bytearray(1 << 28); time.sleep(9)"
NEEDS_NONE = "import time; time.sleep(1.0)"


@pytest.fixture
async def keeper(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[int, Path]]:
    log = tmp_path / "keeper.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", KEEPER, request.param], stderr=out)
    yield process.pid, log
    for pid in (process.pid, *hunger.children(process.pid)):
        subprocess.run(["kill", "-9", str(pid)], check=False)
    process.wait()


@pytest.mark.parametrize("keeper", [NEEDS_MEMORY], indirect=True)
async def test_a_process_that_needs_more_ends_and_its_last_words_are_the_proof(keeper: tuple[int, Path]) -> None:
    proof = await hunger.no_bulk(*keeper)
    assert "ended with no more than" in proof or "went on" in proof
    assert any(words in proof for words in hunger.PROOFS)


@pytest.mark.parametrize("keeper", [NEEDS_NONE], indirect=True)
async def test_a_limit_that_is_never_reached_has_not_fired(
    keeper: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, log = keeper
    while not (found := hunger.children(pid)):
        await asyncio.sleep(0.01)
    while b"import time" not in Path(f"/proc/{found[0]}/cmdline").read_bytes():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)  # it has started, and needs nothing more
    monkeypatch.setattr(hunger, "SPOKEN_S", 0.2)
    with pytest.raises(NotFired, match="said nothing of memory"):
        await hunger.no_bulk(pid, log)


async def test_words_of_before_are_no_proof(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("MemoryError\n")
    said = hunger._Said(log)
    assert said.proof() == ""
    with log.open("a") as more:
        more.write("Traceback\nMemoryError: x\n")
    assert said.proof() == "MemoryError: x"
