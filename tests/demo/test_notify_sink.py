"""The notification sink notes what reached it, and is away when told."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outrider.demo.histories import Notified, Writer, read
from outrider.demo.notify_sink import Sink
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response

EVENT = {"subscriptionId": "s1", "groupId": "g1", "member": "ue:1", "number": 1, "event": "JOINED"}


@pytest.fixture
async def client() -> AsyncIterator[SbiClient]:
    async with SbiClient(timeout_s=2.0) as client:
        yield client


async def notify(client: SbiClient, uri: str, value: Any = EVENT, id_: str | None = "g1/7") -> Response:
    sent = [headers.with_idempotency_key(id_)] if id_ else []
    return await client.request("POST", uri, json=value, headers=sent)


async def test_a_notification_is_in_the_history_before_it_is_accepted(client: SbiClient, tmp_path: Path) -> None:
    with Writer(tmp_path / "s.jsonl") as history:
        sink = Sink(history)
        await sink.up()
        assert (await notify(client, sink.uri)).status == 204
        (line,) = [n for n in read([tmp_path / "s.jsonl"]) if isinstance(n, Notified)]
        await sink.close()
    assert (line.id, line.subscription, line.group, line.member, line.number, line.status) == (
        "g1/7", "s1", "g1", "ue:1", 1, 204,
    )  # fmt: skip


async def test_a_sink_that_is_away_refuses_or_does_not_listen_and_comes_back_at_the_same_place(
    client: SbiClient, tmp_path: Path
) -> None:
    with Writer(tmp_path / "s.jsonl") as history:
        sink = Sink(history)
        await sink.up()
        uri = sink.uri
        sink.refuse()
        assert (await notify(client, uri)).status == 503
        await sink.close()
        with pytest.raises(Unreachable):
            await notify(client, uri)
        await sink.up()
        assert sink.uri == uri
        assert (await notify(client, uri)).status == 204
        await sink.close()
    assert [n.status for n in read([tmp_path / "s.jsonl"]) if isinstance(n, Notified)] == [503, 204]


@pytest.mark.parametrize(("value", "id_"), [({"number": "one"}, "x"), (EVENT, None)])
async def test_what_is_no_notification_is_refused_and_not_noted(
    client: SbiClient, tmp_path: Path, value: Any, id_: str | None
) -> None:
    with Writer(tmp_path / "s.jsonl") as history:
        sink = Sink(history)
        await sink.up()
        assert (await notify(client, sink.uri, value, id_)).status == 400
        assert (await notify(client, sink.uri + "/elsewhere")).status == 404
        await sink.close()
    assert not any(isinstance(n, Notified) for n in read([tmp_path / "s.jsonl"]))


async def test_the_process_obeys_its_orders(client: SbiClient, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.demo.notify_sink", "--history", str(tmp_path / "s.jsonl"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    async def said() -> dict[str, Any]:
        assert process.stdout is not None
        return dict(json.loads(await asyncio.wait_for(process.stdout.readline(), 10)))

    async def order(do: str) -> dict[str, Any]:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": do}).encode() + b"\n")
        return await said()

    uri = (await said())["uri"]
    assert (await order("refuse"))["state"] == "refusing"
    assert (await notify(client, uri)).status == 503
    assert (await order("up"))["state"] == "up"
    assert (await notify(client, uri)).status == 204
    assert await order("stats") == {"done": "stats", "state": "up", "accepted": 1, "refused": 1}
    assert "error" in await order("dance")
    process.stdin.write(b'{"do":"stop"}\n')
    assert await asyncio.wait_for(process.wait(), 10) == 0
