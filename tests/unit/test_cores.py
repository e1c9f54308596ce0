"""Jobs side by side: in order, at once, in the caller's modes, and nothing left of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from unmask.cores import side_by_side


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_jobs_run_at_once_and_results_keep_their_order() -> None:
    together = threading.Barrier(3, timeout=20)

    def job(number: int) -> tuple[int, int, bool]:
        together.wait()  # breaks unless all three are here
        return number, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    assert list(side_by_side([partial(job, number) for number in range(3)])) == [(n, 1, False) for n in range(3)]
    assert torch.get_num_threads() == 4


def test_threads_that_begin_later_have_all_of_torchs_threads_again() -> None:
    seen: list[int] = []
    list(side_by_side([torch.get_num_threads] * 4))
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [4]


def test_few_jobs_share_the_threads_and_one_alone_has_them_all() -> None:
    def job() -> tuple[int, bool]:
        return torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    assert list(side_by_side([job, job])) == [(2, False)] * 2
    assert list(side_by_side([job])) == [(4, True)]
    assert list(side_by_side([])) == []


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_jobs_run_in_the_callers_modes(gradients: bool, inference: bool) -> None:
    def job() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        assert list(side_by_side([job, job])) == [(gradients, inference)] * 2


def test_an_error_is_raised_when_those_that_run_have_ended_and_the_others_are_dropped() -> None:
    failed, ended = threading.Event(), threading.Event()
    begun: list[int] = []

    def fail() -> None:
        failed.set()
        raise ValueError("no")

    def slow() -> None:
        failed.wait(20)
        threading.Event().wait(0.2)
        ended.set()

    def late(number: int) -> None:
        begun.append(number)
        threading.Event().wait(0.05)

    jobs: list[Callable[[], None]] = [fail, slow, slow, slow, *[partial(late, number) for number in range(50)]]
    with pytest.raises(ValueError, match="no"):
        list(side_by_side(jobs))
    assert ended.is_set()
    assert len(begun) < 25
    assert torch.get_num_threads() == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("core")]
