"""Workers that die, hang, flood and lie: each unit ends with its fault, and the next worker serves."""

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from outrider.core import limits
from outrider.core.refusal import Refused

ECHO = "async def handle(scope, body):\n    return body\nnf = asgi(handle)\n"


async def serves_again(keeper: Any, restarts: int = 1) -> None:
    await asyncio.wait_for(keeper.worker.ready(), 30)
    assert keeper.worker.status().restarts == restarts
    assert (await keeper.propose(body=b"again")).body == b"again"


# ------------------------------------------------------------------------------------------------------ it dies


async def test_killed_in_the_middle_all_units_end_at_once_and_the_next_worker_serves(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                if body == b"wait":
                    print("waiting")
                    await asyncio.sleep(3600)
                return body
            nf = asgi(handle)
            """
        }
    )
    pid = keeper.worker.status().pid
    waiting = [asyncio.create_task(keeper.fault(body=b"wait", limit_ms=600_000)) for _ in range(3)]
    while sum(text == "waiting" for _, text in keeper.logs) < 3:
        keeper.logged.clear()
        await keeper.logged.wait()
    os.kill(pid, signal.SIGKILL)
    faults = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert {fault.cause for fault in faults} == {"WORKER_DIED"}
    await serves_again(keeper)
    assert keeper.worker.status().pid != pid
    assert "killed by signal 9" in await keeper.log_with("The worker is gone")


async def test_while_it_is_started_again_units_end_with_worker_died(start: Any) -> None:
    keeper = await start(
        {"a": "async def handle(s, b):\n    return os._exit(1) if b == b'die' else b\nnf = asgi(handle)"}
    )
    assert (await keeper.fault(body=b"die")).cause == "WORKER_DIED"
    assert keeper.worker.status().alive is False
    assert (await keeper.fault()).cause == "WORKER_DIED"
    await serves_again(keeper)


async def test_the_process_is_reaped(start: Any) -> None:
    keeper = await start({"a": ECHO})
    pid = keeper.worker.status().pid
    await keeper.worker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert keeper.worker.status().alive is False


@pytest.mark.parametrize("death", ["os._exit(7)", "os.abort()", "import ctypes; ctypes.string_at(0)"])
async def test_a_handler_that_ends_its_process_faults_its_unit(start: Any, death: str) -> None:
    keeper = await start(
        {
            "a": f"""
            async def handle(scope, body):
                if body == b"die":
                    {death}
                return body
            nf = asgi(handle)
            """
        }
    )
    assert (await keeper.fault(body=b"die")).cause == "WORKER_DIED"
    await serves_again(keeper)


async def test_a_worker_without_memory_for_a_unit_says_so_and_is_started_again(start: Any) -> None:
    keeper = await start({"a": ECHO})
    pid = keeper.worker.status().pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
    fault = await keeper.fault(body=b"." * 4_000_000)
    assert fault.cause == "WORKER_DIED", fault
    assert "MemoryError" in await keeper.log_with("The worker is gone")
    await serves_again(keeper)


async def test_an_exception_faults_its_unit_with_one_line_and_logs_a_short_traceback(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            def deep(n):
                return deep(n - 1) if n else 1 / 0

            async def handle(scope, body):
                if body == b"exit":
                    sys.exit("bye")
                if body == b"silent":
                    return
                deep(200)
            async def nf(scope, receive, send):
                if scope["type"] == "http":
                    await handle(scope, (await receive())["body"])
            """
        }
    )
    fault = await keeper.fault()
    assert fault.cause == "HANDLER_FAILED"
    assert fault.sentence == "The handler failed: ZeroDivisionError: division by zero"
    logged = await keeper.log_with("Traceback")
    assert "in deep" in logged
    assert len(logged) < 5_000
    assert (await keeper.fault(body=b"exit")).sentence.endswith("SystemExit: bye")
    assert "without a complete response" in (await keeper.fault(body=b"silent")).sentence
    assert keeper.worker.status().restarts == 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timer", "a has no on_timer handler 'x'"),
        ("message", "a has no on_message handler 'x'"),
        ("later", "does not know units of kind 'later'"),
    ],
)
async def test_a_unit_that_nothing_handles_faults(start: Any, kind: str, error: str) -> None:
    keeper = await start({"a": ECHO})
    assert error in (await keeper.fault(kind=kind, name="x")).sentence


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import absent_library\nnf = None", "No module named 'absent_library'"),
        ("nf = 7", "int is not an ASGI app"),
        ("", "has no attribute 'nf'"),
        ("print('early'); os._exit(9)", "ended with status 9"),
        (
            """
            async def nf(scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.failed", "message": "no table"})
            """,
            "the app failed to start: no table",
        ),
    ],
)
async def test_a_package_that_does_not_load_is_refused_with_the_reason(
    unstarted: Any, source: str, reason: str
) -> None:
    keeper = unstarted({"a": source})
    with pytest.raises(Refused) as refused:
        await keeper.worker.start()
    assert refused.value.refusal.code == "WORKER_NOT_READY"
    assert reason in refused.value.refusal.sentence
    assert keeper.worker.status().alive is False


# ----------------------------------------------------------------------------------------------------- it hangs


async def test_a_slow_handler_is_cancelled_and_the_worker_lives(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                if body == b"slow":
                    try:
                        await asyncio.sleep(3600)
                    finally:
                        print("cancelled")
                return body
            nf = asgi(handle)
            """
        }
    )
    fault = await keeper.fault(body=b"slow", limit_ms=20)
    assert fault.cause == "UNIT_TIMEOUT"
    await keeper.log_with("cancelled")
    assert (await keeper.propose(body=b"x")).body == b"x"
    assert keeper.worker.status().restarts == 0


async def test_a_caller_that_gives_up_cancels_the_unit(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                print("begun")
                try:
                    await asyncio.sleep(3600)
                finally:
                    print("cancelled")
            nf = asgi(handle)
            """
        }
    )
    task = asyncio.create_task(keeper.run())
    await keeper.log_with("begun")
    task.cancel()
    await keeper.log_with("cancelled")
    assert keeper.worker.status().restarts == 0


async def test_a_handler_that_blocks_the_loop_gets_its_worker_killed(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_ANSWER_LIMIT_MS", 200)
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                while body == b"loop":
                    pass
                return body
            nf = asgi(handle)
            """
        }
    )
    assert (await keeper.propose(body=b"fine")).body == b"fine"
    # Others in flight at that time time out or die with it; none gets an answer that it should not have.
    first, second = await asyncio.gather(
        keeper.fault(body=b"loop", limit_ms=50), keeper.fault(body=b"x", limit_ms=60_000)
    )
    assert (first.cause, second.cause) == ("UNIT_TIMEOUT", "WORKER_DIED")
    assert "It hangs" in second.sentence
    await serves_again(keeper)


async def test_units_that_never_end_are_given_up_with_their_worker(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                while body == b"stuck":
                    try:
                        await asyncio.sleep(3600)
                    except asyncio.CancelledError:
                        pass
                return body
            nf = asgi(handle)
            """
        }
    )
    timeouts = 0
    while (await keeper.fault(body=b"stuck", limit_ms=10)).cause == "UNIT_TIMEOUT":
        timeouts += 1
    assert timeouts >= 32
    assert "cancelled units do not end" in await keeper.log_with("The worker is gone")
    await serves_again(keeper)


async def test_more_units_than_it_may_have_are_turned_away(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_IN_FLIGHT", 2)
    keeper = await start(
        {
            "a": """
            go = asyncio.Event()

            async def handle(scope, body):
                await go.wait() if body == b"wait" else go.set()
                return body
            nf = asgi(handle)
            """
        }
    )
    waiting = [asyncio.create_task(keeper.propose(body=b"wait")) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await keeper.fault(body=b"go")).cause == "WORKER_BUSY"
    waiting.pop().cancel()
    monkeypatch.setattr(limits, "WORKER_IN_FLIGHT", 3)
    await keeper.propose(body=b"go")
    assert (await waiting[0]).body == b"wait"


async def test_a_worker_that_does_not_read_makes_itself_busy_then_dead(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_BUFFER_BYTES", 1024)
    monkeypatch.setattr(limits, "WORKER_ANSWER_LIMIT_MS", 200)
    keeper = await start({"a": ECHO})
    os.kill(keeper.worker.status().pid, signal.SIGSTOP)
    large = asyncio.create_task(keeper.fault(body=bytes(1024 * 1024), limit_ms=50))
    # It is written at the end of this turn of the loop; then the worker is behind.
    await asyncio.sleep(0)
    assert (await keeper.fault()).cause == "WORKER_BUSY"
    assert (await large).cause == "UNIT_TIMEOUT"
    assert "It hangs" in await keeper.log_with("The worker is gone")
    await serves_again(keeper)


# ----------------------------------------------------------------------------------------------- it floods, lies


async def test_a_memory_hog_fails_alone(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            hoard = []

            async def handle(scope, body):
                while body == b"hog":
                    hoard.append(bytearray(8 * 1024 * 1024))
                hoard.clear()
                return body
            nf = asgi(handle)
            """
        },
        memory_mb=96,
    )
    fault = await keeper.fault(body=b"hog")
    assert fault.cause in ("HANDLER_FAILED", "WORKER_DIED")
    await asyncio.wait_for(keeper.worker.ready(), 30)
    assert (await keeper.propose(body=b"again")).body == b"again"


async def test_a_talkative_handler_loses_lines_not_its_worker(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                for n in range(100_000):
                    print("x" * 50)
                return body
            nf = asgi(handle)
            """
        }
    )
    assert (await keeper.propose(body=b"done", limit_ms=60_000)).body == b"done"
    assert keeper.worker.status().restarts == 0
    assert len(keeper.logs) < 20_000


async def test_output_past_the_sdk_is_bounded_by_its_file(start: Any, tmp_path: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                try:
                    while body == b"flood":
                        os.write(1, bytes(1024 * 1024))
                except OSError as error:
                    return type(error).__name__.encode()
                return body
            nf = asgi(handle)
            """
        }
    )
    assert (await keeper.propose(body=b"flood", limit_ms=60_000)).body == b"OSError"
    assert (tmp_path / "scratch" / "output.txt").stat().st_size <= limits.WORKER_FILE_BYTES
    assert (await keeper.propose(body=b"x")).body == b"x"


@pytest.mark.parametrize(
    ("crime", "reason"),
    [
        ("c.write((5 * 1024 * 1024).to_bytes(4, 'big'))", "announced a frame"),
        ("c.write(b'\\0\\0\\0\\x03abc')", "no message"),
        ("c.write(wire.frame(wire.Proposal(999)))", "answered unit 999"),
        ("c.write(wire.frame(wire.Read(999, 1, 'g')))", "read for unit 999"),
        ("c.write(wire.frame(wire.Hello(1, ['a'])))", "said hello twice"),
        ("c.write(wire.frame(wire.Log('info', 'x')) * 100_000)", "log lines in a second"),
        ("c.write(wire.frame(wire.Read(1, 1, 'g')) * 1000)", "read more than 256"),
        ("c.close()", "closed its connection"),
    ],
)
async def test_a_worker_that_breaks_the_protocol_is_killed(start: Any, crime: str, reason: str) -> None:
    keeper = await start(
        {
            "a": f"""
            from outrider.sdk import wire

            async def handle(scope, body):
                if body == b"crime":
                    c = connection()
                    {crime}
                    await asyncio.sleep(3600)
                return body
            nf = asgi(handle)
            """
        }
    )
    fault = await keeper.fault(body=b"crime", limit_ms=60_000)
    assert fault.cause == "WORKER_DIED"
    assert reason in fault.sentence
    await serves_again(keeper)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("unit.put('big', 'x' * 300_000)", "Record 'big' of a has 300002 bytes"),
        ("unit.put('\\n', 1)", "is no name for a record"),
        ("unit.notify('http://', 1)", "not an http or https URI"),
        ("headers.append((b'x', b'a\\r\\nset-cookie: b'))", "may not be sent"),
        ("[unit.put(str(n), n) for n in range(2000)]", "writes 2000 records"),
    ],
)
async def test_a_proposal_against_the_rules_is_refused_and_the_worker_lives(start: Any, lie: str, reason: str) -> None:
    keeper = await start(
        {
            "a": f"""
            async def app(scope, receive, send):
                if scope["type"] != "http":
                    return
                unit, headers = sdk.unit(), []
                {lie}
                await send({{"type": "http.response.start", "status": 200, "headers": headers}})
                await send({{"type": "http.response.body"}})
            nf = sdk.NfService(app)
            """
        }
    )
    fault = await keeper.fault()
    assert fault.cause == "PROPOSAL_REFUSED"
    assert reason in fault.sentence
    assert keeper.worker.status().restarts == 0


async def test_a_worker_that_proposes_for_others_is_refused(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            from outrider.sdk import wire

            async def handle(scope, body):
                connection().write(wire.frame(wire.Proposal(1, records=[("other", "x", b"1")])))
                await asyncio.sleep(3600)
            nf = asgi(handle)
            """
        }
    )
    fault = await keeper.fault()
    assert fault.cause == "PROPOSAL_REFUSED"
    assert "'other', which is not in the package" in fault.sentence


async def test_a_unit_too_large_for_a_frame_is_not_sent(start: Any) -> None:
    keeper = await start({"a": ECHO})
    fault = await keeper.fault(body=bytes(5 * 1024 * 1024))
    assert fault.cause == "HANDLER_FAILED"


async def test_a_replica_too_large_for_a_frame_fails_the_unit_that_asked(start: Any) -> None:
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                await sdk.unit().shared(body.decode())
                return b""
            nf = sdk.NfService(asgi(handle))
            """
        }
    )
    keeper.shared["large"] = [("a", str(n), bytes(1024 * 1024)) for n in range(3)]
    assert "too large" in (await keeper.fault(body=b"large")).sentence
    assert (await keeper.propose(body=b"small")).status == 200


async def test_temporary_files_that_would_fill_the_disk_end_the_worker(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_SCRATCH_BYTES", 100_000)
    monkeypatch.setattr(limits, "WORKER_SCRATCH_CHECK_MS", 20)
    keeper = await start(
        {
            "a": """
            async def handle(scope, body):
                if body == b"fill":
                    with open(os.path.join(os.environ["HOME"], "big"), "wb") as file:
                        file.write(bytes(200_000))
                    await asyncio.sleep(3600)
                return body
            nf = asgi(handle)
            """
        }
    )
    fault = await keeper.fault(body=b"fill", limit_ms=60_000)
    assert fault.cause == "WORKER_DIED"
    assert "temporary files of 200000 bytes" in fault.sentence
    await serves_again(keeper)
