"""Where the parts of a scoring job run: in processes of this machine, or on a Ray cluster."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from threading import Thread

from trainer.batch_scoring.job import Job, Scored, score_part
from trainer.batch_scoring.source import Part
from trainer.errors import RunError


def score_here(job: Job, parts: Sequence[Part]) -> Iterator[Scored]:
    """Yields the outcome of each part as it ends. There is one process per core, with one thread."""
    processes = min(os.cpu_count() or 1, len(parts))
    if processes == 1:
        yield from (score_part(job, part) for part in parts)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        started = [pool.submit(score_part, job, part) for part in parts]
        try:
            for ended in as_completed(started):
                yield ended.result()
        except BrokenProcessPool as error:
            raise RunError("A process was killed. Run the same command again to score the other parts.") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():  # at an interrupt, they would finish their parts first
                process.terminate()


def _end_with_parent() -> None:
    """Ends this process when its parent dies: it would wait for the next part for ever."""
    parent = multiprocessing.parent_process()
    assert parent  # noqa: S101 - this process was spawned

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def score_on_ray(job: Job, parts: Sequence[Part]) -> Iterator[Scored]:
    """Like score_here, on the cluster that RAY_ADDRESS names, or else on a new one of this machine.

    Ray Data repeats the parts of a machine that is lost.
    """
    import ray.data  # noqa: PLC0415 - the extra [ray]

    ray.init(ignore_reinit_error=True, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def score(row: dict[str, Part]) -> dict[str, int]:
        scored = score_part(job, row["item"])
        return {"images": scored.images, "unreadable": scored.unreadable}

    for row in ray.data.from_items(list(parts), override_num_blocks=len(parts)).map(score).iter_rows():
        yield Scored(row["images"], row["unreadable"])
