"""Groups what waits to be committed into one durable transaction: one fsync for many units of work.

One thread writes. While it waits for the disk, the event loop goes on and collects the next batch, so a batch is as
large as the disk is slow. What was submitted first is committed first, and answered first.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from outrider.core import limits
from outrider.store.port import ContextStore, Operation, Outcome, StoreFault

T = TypeVar("T")


class _Item(NamedTuple):
    future: asyncio.Future[Any]
    operation: Operation | None
    work: Callable[[], Any] | None


class GroupCommitter:
    """The one writer of a store; made and used on a running event loop.

    A `StoreFault` ends it: everybody who waits gets the fault, `on_fault` is called once, on the loop, and nothing is
    committed any more. Cancelling a future takes nothing back: the operation may become durable all the same.
    """

    def __init__(self, store: ContextStore, *, on_fault: Callable[[StoreFault], None]) -> None:
        self._store = store
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._turn: list[_Item] = []
        self._waiting = 0
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        self._fault: StoreFault | None = None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Begin to write what is handed over. The simulation has no thread, and does so at instants that it chooses."""
        self._thread = threading.Thread(target=self._write, name="committer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> asyncio.Future[Outcome]:
        """Commit an operation with the next batch; its outcome, when the future has it, is durable."""
        return self._enqueue(operation, None)

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function of the store on the writing thread, between two commits; what it raises is its caller's."""
        return self._enqueue(None, work)

    @property
    def waiting(self) -> int:
        """How much has been submitted and is not durable yet."""
        return self._waiting

    async def close(self) -> None:
        """Commit what has been submitted, and end the thread."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, operation: Operation | None, work: Callable[[], Any] | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(RuntimeError("the committer has been closed"))
            return future
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append(_Item(future, operation, work))
        self._waiting += 1
        return future

    def _hand_over(self) -> None:
        """Give the thread what this turn of the loop has submitted; to wake it for each would cost more than a unit."""
        if self._turn:
            turn, self._turn = self._turn, []
            self._queue.put(turn)

    # ------------------------------------------------------------------------------- the writing thread

    def _write(self) -> None:
        items: deque[_Item] = deque()
        ends = False
        while items or not ends:
            while not ends and (not items or not self._queue.empty()):
                turn = self._queue.get()
                if turn is None:
                    ends = True
                else:
                    items.extend(turn)
            self._write_next(items)

    def _write_next(self, items: deque[_Item]) -> None:
        """Commit as many of them as go together, or do the work that stands before them."""
        batch: list[_Item] = []
        while items and items[0].work is None and len(batch) < limits.COMMIT_BATCH:
            batch.append(items.popleft())
        if batch:
            self._commit(batch)
        elif items and (work := items[0].work) is not None:
            self._run(items.popleft().future, work)

    def _commit(self, batch: list[_Item]) -> None:
        futures = [item.future for item in batch]
        if self._fault is not None:
            self._tell(self._fail, futures, self._fault)
            return
        try:
            outcomes = self._store.commit([item.operation for item in batch if item.operation is not None])
        except Exception as error:
            self._tell(self._fail, futures, self._faulted(error))
        else:
            self._tell(self._resolve, futures, outcomes)

    def _run(self, future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
        if self._fault is not None:
            self._tell(self._fail, [future], self._fault)
            return
        try:
            result = work()
        except StoreFault as error:
            self._tell(self._fail, [future], self._faulted(error))
        except Exception as error:
            self._tell(self._fail, [future], error)
        else:
            self._tell(self._resolve, [future], [result])

    def _faulted(self, error: Exception) -> StoreFault:
        if isinstance(error, StoreFault):
            self._fault = error
        else:  # a bug; the transaction was rolled back, but what the caller believes of the store may be wrong
            self._fault = StoreFault(f"a commit failed unexpectedly: {error!r}")
            self._fault.__cause__ = error
        self._tell(self._on_fault, self._fault)
        return self._fault

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)

    # ------------------------------------------------------------------------------------- on the loop

    def _resolve(self, futures: Sequence[asyncio.Future[Any]], results: Sequence[Any]) -> None:
        self._waiting -= len(futures)
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)

    def _fail(self, futures: Sequence[asyncio.Future[Any]], error: Exception) -> None:
        self._waiting -= len(futures)
        for future in futures:
            if not future.done():
                future.set_exception(error)
