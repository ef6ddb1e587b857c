"""What a host tells its LMSF: at once when something is new that it decides on, else after the wait; and cheaply."""

import asyncio
from typing import Any

from outrider.core import limits
from outrider.core.ids import partition_key
from outrider.host import control
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.http import Request, Response
from outrider.store.port import SetRow

A, B = "999-70", "999-71"


class Lmsf:
    """Asks a host's control API."""

    def __init__(self, net: Any, network: str) -> None:
        self._router = control.routes(net.hosts[network])

    async def send(self, method: str, path: str, query: str = "") -> Response:
        return await self._router(Request(method, f"/outrider-host/v1{path}", query))

    async def get(self, path: str, query: str = "") -> Any:
        answer = await self.send("GET", path, query)
        assert answer.status == 200, answer.body
        return answer.json()

    def waits(self, path: str, after: str) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.get(path, f"after={after}&wait-ms=1000"))


async def unanswered(question: "asyncio.Task[Any]") -> None:
    """The question waits: it is not answered by anything that is ready to run."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not question.done()


async def test_a_durable_copy_answers_at_once(net):
    net.cut = {(A, B)}
    await net.create("imsi-1")
    await net.begin("m", A, B, relocate=False)
    lmsf = Lmsf(net, A)
    before = await lmsf.get("/migrations/m")
    assert before["state"] == "copying"
    question = lmsf.waits("/migrations/m", before["version"])
    await unanswered(question)
    net.cut.clear()
    while (answer := await question)["state"] == "copying":
        question = lmsf.waits("/migrations/m", answer["version"])
    assert answer["state"] == "following"
    assert answer["version"] != before["version"]


async def test_the_end_of_a_sweep_answers_at_once(net, monkeypatch):
    monkeypatch.setattr(limits, "KEEPER_WAIT_MS", 60_000)
    keys = [await net.create(f"imsi-{i}") for i in range(5)]
    await net.begin("m", A, B, relocate=False)
    lmsf = Lmsf(net, A)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    following = await lmsf.get("/migrations/m")
    settled = asyncio.create_task(lmsf.get("/migrations/m", f"after={following['version']}&wait-ms=60000"))
    await unanswered(settled)
    await net.relocate("m", A, sweep="all")
    relocating = await settled
    assert relocating["state"] == "relocating"
    answer = await lmsf.get("/migrations/m", f"after={relocating['version']}&wait-ms=60000")
    assert answer["state"] == "settled"
    assert (answer["remainingUes"], answer["movedUes"], answer["doubtUes"]) == (0, len(keys), 0)


async def test_ues_that_arrive_early_change_nothing_in_what_is_said_of_the_copy(net):
    net.cut = {(A, B)}
    await net.create("imsi-1")
    await net.begin("m", A, B)
    answer = await Lmsf(net, A).get("/migrations/m")
    assert (answer["state"], answer["waitingFor"]) == ("copying", "the copy to become durable at the target")
    net.cut.clear()
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    answer = await Lmsf(net, A).get("/migrations/m")
    assert (answer["state"], answer["waitingFor"]) == ("relocating", "UEs to arrive at the target")


async def test_a_keeper_that_restarts_after_its_sweep_has_ended_does_not_copy_or_sweep_again(net):
    key = await net.create("imsi-1")
    await net.begin("m", A, B, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.FOREIGN, "its answer")
    host = await net.restart(A)
    assert (await Lmsf(net, A).get("/migrations/m"))["state"] == "settled"
    assert not host.followers.copies()
    net.stayed()
    host.identities.registered("imsi-1")  # the UE turns back, and stays
    await net.until(lambda: host.store.row(key).state is Ownership.OWNED, "the way back")
    await net.restart(A)
    await net.relocate("m", A, sweep="all")
    await asyncio.sleep(0.2)
    assert await net.add(A, "imsi-1") == 2
    assert net.hosts[A].store.row(key).state is Ownership.OWNED


async def test_a_sweep_of_all_takes_the_place_of_one_of_arrivals_at_once(net):
    keys = [await net.create(f"imsi-{i}") for i in range(5)]
    await net.begin("m", A, B)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    await net.relocate("m", A, sweep="all")
    await net.until(lambda: net.hosts[A].migrations.get("m").settled, "the sweep")
    assert {net.hosts[B].store.row(key).state for key in keys} == {Ownership.OWNED}


async def test_an_abort_answers_at_once_and_again_when_no_doubt_is_left(net, monkeypatch):
    monkeypatch.setattr(limits, "KEEPER_WAIT_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    lmsf = Lmsf(net, A)
    await net.until(lambda: net.hosts[A].followers.durable("m"), "the copy")
    net.cut = {(A, B)}  # WANT comes through, GRANT does not
    arriving = net.post(B, "imsi-1", limit_s=30)
    await net.until(lambda: net.hosts[A].store.row(key).state is Ownership.GRANTED, "the grant")
    before = await lmsf.get("/migrations/m")
    question = asyncio.create_task(lmsf.get("/migrations/m", f"after={before['version']}&wait-ms=60000"))
    await unanswered(question)
    assert (await lmsf.send("POST", "/migrations/m/abort")).status == 204
    aborting = await question
    assert (aborting["state"], aborting["inDoubtCount"], len(aborting["inDoubt"])) == ("aborting", 1, 1)
    question = asyncio.create_task(lmsf.get("/migrations/m", f"after={aborting['version']}&wait-ms=60000"))
    await unanswered(question)
    net.cut.clear()
    assert (await question)["state"] == "aborted"
    arriving.cancel()


async def test_without_news_the_answer_comes_after_the_wait(net, monkeypatch):
    monkeypatch.setattr(limits, "KEEPER_WAIT_MS", 30)
    await net.begin("m", A, B, relocate=False)
    lmsf = Lmsf(net, B)
    before = await lmsf.get("/migrations/m")
    assert await lmsf.waits("/migrations/m", before["version"]) == before


async def test_a_restarted_host_answers_at_once(net, monkeypatch):
    monkeypatch.setattr(limits, "KEEPER_WAIT_MS", 60_000)
    await net.begin("m", A, B, relocate=False)
    before = await Lmsf(net, B).get("/migrations/m")
    await net.restart(B)
    assert (await Lmsf(net, B).waits("/migrations/m", before["version"]))["version"] != before["version"]


async def test_owning_everything_and_nothing_are_news(net, monkeypatch):
    monkeypatch.setattr(limits, "KEEPER_WAIT_MS", 60_000)
    key = await net.create("imsi-1")
    await net.begin("m", A, B)
    home, target = Lmsf(net, A), Lmsf(net, B)
    whole, empty = await home.get("/status"), await target.get("/status")
    assert (whole["rows"]["foreign"], empty["rows"]["owned"]) == (0, 0)
    questions = [
        asyncio.create_task(lmsf.get("/status", f"after={was['version']}&wait-ms=60000"))
        for lmsf, was in ((home, whole), (target, empty))
    ]
    for question in questions:
        await unanswered(question)
    await net.add(B, "imsi-1")
    answers = await asyncio.gather(*questions)
    assert answers[0]["rows"]["granted"] + answers[0]["rows"]["foreign"] == 1
    assert answers[1]["rows"]["owned"] == 1
    assert net.hosts[B].store.row(key).state is Ownership.OWNED


async def test_rows_are_counted_once_for_many_questions_and_not_while_nobody_asks(net, monkeypatch):
    host, counted = net.hosts[A], []
    count = type(host.store).row_counts
    monkeypatch.setattr(type(host.store), "row_counts", lambda self: (counted.append(1), count(self))[1])
    await net.create("imsi-1")
    await net.begin("m", A, B)
    assert not counted
    lmsf = Lmsf(net, A)
    for _ in range(10):
        await lmsf.get("/migrations/m")
        await lmsf.get("/status")
    assert len(counted) == 1
    await net.add(B, "imsi-1")
    assert len(counted) == 1


async def test_ues_follow_their_partition_in_the_numbers(net):
    keys = sorted([await net.create(f"imsi-{i}") for i in range(4)])
    host = net.hosts[A]
    lmsf = Lmsf(net, A)
    await net.begin("m", A, B, relocate=False)
    star = partition_key(keys[0][1])
    was = host.store.row(star)
    await host.committer.submit(SetRow(star, was, Row(Ownership.FOREIGN, was.epoch + 1, B)))
    host.progress.rows_changed()
    there = sum(k[1] == keys[0][1] for k in keys if host.store.row(k).state is Ownership.FOREIGN)
    shown = await lmsf.get("/migrations/m")
    assert (shown["movedUes"], shown["remainingUes"]) == (there, len(keys) - there)


async def test_a_wait_that_is_no_number_is_refused(net):
    answer = await Lmsf(net, A).send("GET", "/status", "after=x&wait-ms=soon")
    assert (answer.status, answer.json()["cause"]) == (400, "OPTIONAL_QUERY_PARAM_INCORRECT")
