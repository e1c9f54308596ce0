"""Several jobs at once on a processor's cores, instead of each product cut over all of them.

A product that threads share ends when the slowest of them does, and what lies between two products runs on one core
while the others wait. Jobs that share nothing wait once, at their end: on two cores SmolLM2 encodes a tenth faster so,
and trains two fifths faster (experiments/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")


def side_by_side(jobs: Sequence[Callable[[], _T]]) -> Iterator[_T]:
    """Run jobs in threads that share torch's number of threads, and yield their results in order.

    As many run at once as torch has threads; modes of gradients and inference are the caller's. One job alone runs in
    the caller's thread. If a job raises, those that run end before its error is raised, and those that wait are
    dropped.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, len(jobs))
    if at_once < 2:
        yield from (job() for job in jobs)
        return
    share = threads // at_once
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(job: Callable[[], _T]) -> _T:
        torch.set_num_threads(share)  # OpenMP's number is that of the calling thread
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return job()

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="core")
    try:
        yield from pool.map(run, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
