"""The workers of a reward server: a bounded queue before them, a deadline for every request."""

from __future__ import annotations

import asyncio
import sys

from trimtab.errors import RewardError
from trimtab.rewards.serve_worker import ServedReward, Worker, WorkerDied


class Refused(Exception):
    """A request that gets no scores: the HTTP status, one sentence, and when to come again (seconds)."""

    def __init__(self, status: int, sentence: str, after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.after = status, sentence, after


class WorkerPool:
    """``num_workers`` processes; at most ``queue`` requests wait for one of them.

    A worker that does not answer in time is killed and replaced, so a reward that hangs costs the request
    that hung it and the time of a start.
    """

    def __init__(
        self,
        reward: ServedReward,
        *,
        num_workers: int = 1,
        queue: int = 64,
        deadline_s: float = 60.0,
        hide: tuple[str, ...] = (),
    ) -> None:
        self.reward, self.num_workers, self.limit = reward, num_workers, queue
        self.deadline_s, self.hide = deadline_s, hide
        self.waiting = 0
        self.running = 0
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._workers: list[Worker] = []
        self._starts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all workers.

        Raises:
            RewardError: the reward cannot be built.
        """
        self._workers = [Worker(self.reward, self.hide, self.num_workers) for _ in range(self.num_workers)]
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
        except BaseException:
            await self.stop()
            raise
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def stop(self) -> None:
        """Kill all workers."""
        for start in (starts := list(self._starts)):
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers), return_exceptions=True)

    @property
    def num_idle(self) -> int:
        """Workers that wait for a request."""
        return self._idle.qsize()

    async def score(self, kind: str, body: bytes) -> bytes:
        """Return the JSON of the answer.

        Raises:
            Refused: too many wait (429), it took too long (504), the process died or the reward failed (500).
        """
        if self.waiting >= self.limit:
            sentence = f"{self.waiting} requests are waiting, more than that are not accepted"
            raise Refused(429, f"{sentence}; come again.", after=1)
        late = Refused(504, f"The reward did not answer within {self.deadline_s:g} s and was stopped.")
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.deadline_s
        self.waiting += 1
        try:
            async with asyncio.timeout_at(ends):
                worker = await self._idle.get()
        except TimeoutError:
            sentence = f"No worker was free within {self.deadline_s:g} s"
            raise Refused(503, f"{sentence}; start more of them, or send less.", after=1) from None
        finally:
            self.waiting -= 1
        self.running += 1
        is_fine = False
        try:
            async with asyncio.timeout_at(ends):
                answer, text = await worker.ask(kind, body)
            is_fine = True
        except TimeoutError:
            raise late from None
        except WorkerDied as error:
            raise Refused(500, f"The reward's process ended ({error}); it is started again.") from None
        finally:
            self.running -= 1
            # Also when the request was cancelled: a worker whose answer nobody read cannot be used again.
            if is_fine:
                self._idle.put_nowait(worker)
            else:
                self._replace(worker)
        if answer != "done":
            raise Refused(500, "The reward failed on this request; the server's log says why.")
        return text

    def _replace(self, worker: Worker) -> None:
        start = asyncio.create_task(self._restart(worker))
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)

    async def _restart(self, worker: Worker) -> None:
        """Kill a worker and start it anew, until it starts."""
        pause = 1.0
        while True:
            await worker.kill()
            try:
                await worker.start()
            except (RewardError, OSError) as error:
                print(f"trimtab: a worker does not start: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
            else:
                self._idle.put_nowait(worker)
                return
