"""Plays a scenario: one world, in a loop and a folder of its own, with all chance drawn from its seed."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from outrider.sim.whole.chance import at_failpoints, seeded
from outrider.sim.whole.loop import VirtualLoop
from outrider.sim.whole.nodes_world import NodesWorld
from outrider.sim.whole.scenario import Plan
from outrider.sim.whole.world import Result, World


def play(plan: Plan, *, story: bool = False) -> Result:
    """Run a scenario to its end, or to the first violation; the events only if the story is wanted."""
    directory = Path(tempfile.mkdtemp(prefix="outrider-sim-", dir=_memory()))
    loop = VirtualLoop(plan.seed)
    world: World | None = None
    watching = ExitStack()
    """Until all is cleared away: what was ready when the world ended still runs, and says so."""
    try:
        with seeded(plan.seed):

            async def run() -> World:
                nonlocal world
                world = (NodesWorld if plan.lmsfs else World)(plan, loop, directory)
                watching.enter_context(world.trace.listening())
                with at_failpoints(world.reached):
                    await world.run()
                return world

            ran = loop.run_until_complete(run())
            return ran.result(story=story)
    finally:
        if world is not None:
            world.close()
        loop.end()
        watching.close()
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    """Where files are in memory, if there is such a place: the world simulates its disks by itself."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
