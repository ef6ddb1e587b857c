"""Three networks with real processes: a service goes A → B → C and home, while its UEs go everywhere under load.

The journey is the soak's, and the demo's checker judges what the UEs saw. Some go A → B → C → A, some turn back at B,
some go from A to C and were never at B, some stay longer at B than the others, and some never leave A.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from outrider.demo import course
from outrider.demo.access import Access, NoProducer
from outrider.demo.journey import OnwardJourney
from outrider.demo.member import SESSION
from outrider.demo.stage import HOME, TARGET, THIRD, Operator, Stage, new_instance_id
from outrider.demo.track import read_track
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.tokens import TokenSource


class _Looked(OnwardJourney):
    """The journey, with a look at what operators see at its turning points."""

    async def leave_between(self) -> dict[str, Any]:
        """UEs are at C, and B retires: home finds them all the same."""
        stage, service = self.stage, self.service
        onward = await stage.a.migration(self.ids["onward"])
        assert (onward["source"], onward["target"], onward["home"]) == (TARGET, THIRD, HOME)
        listed = [m["migrationId"] for m in await stage.a.cli("migration", "list")]
        assert listed == [self.ids["onward"], self.ids["there"]]
        retired = await super().leave_between()
        assert retired["receipt"]
        assert await stage.b.cli("service", "list") == []
        assert (await stage.c.service(service))["keeper"]["rows"]["owned"], "UEs are owned at C when B is gone"
        supi = self._at_c_by_way_of_b()
        await _found_from_home(stage.a, supi)
        os.kill((await stage.a.service(service))["pid"], signal.SIGKILL)  # what it had only heard is forgotten
        await _found_from_home(stage.a, supi)
        return retired

    def _at_c_by_way_of_b(self) -> str:
        track = self.run.directory / "track.csv"
        moves = read_track(track, ues=len(self.ues), networks=[HOME, TARGET, THIRD], home=HOME)
        ways = {m.ue: [each.network for each in moves if each.ue == m.ue] for m in moves}
        number = next(ue for ue, way in ways.items() if way == [TARGET, THIRD, HOME])
        return self.ues[number - 1].supi

    async def come_home(self) -> dict[str, Any]:
        """Everybody is at home, and C retires."""
        ended = await super().come_home()
        assert ended["receipt"]
        assert await self.stage.c.cli("service", "list") == []
        rows = (await self.stage.a.service(self.service))["keeper"]["rows"]
        assert (rows["granted"], rows["foreign"]) == (0, 0), "home owns everything again"
        return ended


async def _found_from_home(a: Operator, supi: str) -> None:
    """A consumer at home asks for a UE that has gone to C by way of B, until it is answered."""
    async with SbiClient() as client, asyncio.timeout(30):
        name = new_instance_id()
        access = Access(client, course.at(a, "000001"), TokenSource(client, a.nrf_root, name, "AF"), name)
        await access.register()
        status: int | None = None
        while status != 200:
            with contextlib.suppress(Unreachable, NoProducer):
                status = (await access.send(SESSION, "GET", f"/nsmf-groupsession/v1/ue-sessions/{supi}")).status


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_service_goes_onward_and_home_and_nothing_is_lost_doubled_or_reordered(
    tmp_path: Path, service_dir: Path
) -> None:
    stage = Stage(tmp_path / "run", rtt_ms=4.0, third=True)
    stage.directory.mkdir()
    folder = tmp_path / "journey"
    folder.mkdir()
    try:
        await stage.build()
        service = await stage.deploy(service_dir)
        await stage.permit()
        journey = _Looked(stage, service, service_dir, folder, [], seed=1)
        await journey.play()
    finally:
        await stage.close()
    findings = journey.findings
    assert findings is not None
    assert findings.requests_ok > 500
    assert findings.reasons == []
    assert journey.outcome.reasons == []
    assert (findings.requests_lost, findings.requests_duplicated, findings.requests_reordered) == (0, 0, 0)
    assert (findings.owner_conflicts, findings.requests_phantom) == (0, 0)
    assert (findings.notifications_lost, findings.timers_missed, findings.timers_doubled) == (0, 0, 0)
    assert (findings.requests_failed, findings.requests_unknown) == (0, 0)
