"""Reading ahead: in order, bounded, as it comes, and no obstacle to ending."""

import threading
import time
from collections.abc import Iterator

import pytest

from brainseg_cli.io.reading import Reading


def test_in_order_whole_batches_or_what_has_come() -> None:
    def read(job: int) -> int:
        time.sleep(0.002 * (job % 3))
        return job * 10

    with Reading(range(7), read, workers=3, ahead=4) as reading:
        assert reading.take(3, wait=True) == [0, 10, 20]
        assert reading.take(3, wait=True) == [30, 40, 50]
        assert reading.take(3, wait=True) == [60]
        assert reading.take(3, wait=True) == [] == reading.take(3, wait=False)


def test_one_that_has_come_does_not_wait_for_the_next() -> None:
    more = threading.Event()

    def jobs() -> Iterator[int]:
        yield 1
        assert more.wait(10)
        yield 2

    with Reading(jobs(), lambda job: job, workers=1, ahead=4) as reading:
        assert reading.take(16, wait=False) == [1]
        more.set()
        assert reading.take(16, wait=False) == [2]
        assert reading.take(16, wait=False) == []


def test_no_more_are_read_than_said() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with Reading(jobs(), lambda job: job, workers=2, ahead=4) as reading:
        assert reading.take(2, wait=True) == [0, 1]
        time.sleep(0.05)
        assert 2 < len(taken) <= 2 + 4 + 1  # and one in hand


def test_what_goes_wrong_is_raised_in_its_turn() -> None:
    def jobs() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with Reading(jobs(), lambda job: job, workers=1, ahead=4) as reading:
        assert reading.take(5, wait=True) == [1]
        for _ in range(2):
            with pytest.raises(ValueError, match="no more"):
                reading.take(5, wait=True)
    with (
        Reading([0], lambda job: 1 // job, workers=1, ahead=4) as reading,
        pytest.raises(ZeroDivisionError),
    ):
        reading.take(1, wait=True)


def test_it_ends_while_its_jobs_do_not() -> None:
    stuck = threading.Event()

    def jobs() -> Iterator[int]:
        yield from range(50)
        stuck.wait()

    started = time.monotonic()
    with Reading(jobs(), lambda job: job, workers=1, ahead=2) as reading:
        assert reading.take(1, wait=False) == [0]
    assert time.monotonic() - started < 5
    stuck.set()
