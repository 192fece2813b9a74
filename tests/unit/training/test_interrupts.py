"""Signals while the loop runs: what is held is finished, a second one does not wait, and all is given back."""

import signal
import threading
from collections.abc import Iterator

import pytest

from brainseg_cli.training.interrupts import SIGNALS, Interrupts


@pytest.fixture(autouse=True)
def raising() -> Iterator[None]:
    """As the program has it: both raise KeyboardInterrupt."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_waits_for_the_end_of_what_is_held(number: signal.Signals) -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(number)
            done.append("the step")
        assert interrupts.came and not interrupts.insisted
    assert done == ["the step"]
    assert {signal.getsignal(each) for each in SIGNALS} == {signal.default_int_handler}


def test_between_what_is_held_it_raises_at_once() -> None:
    with Interrupts() as interrupts:
        with interrupts.held():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupts.came and not interrupts.insisted


def test_a_second_one_does_not_wait() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")
        assert interrupts.insisted
    with interrupts as again, again.held():  # another run of the loop begins anew
        assert not again.came


def test_who_does_not_lead_stays_until_a_second_one() -> None:
    with Interrupts(leads=False) as interrupts:
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_or_anothers_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with Interrupts() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM] and not interrupts.came
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_a_thread_nothing_is_taken_over() -> None:
    seen = []

    def enter() -> None:
        with Interrupts() as interrupts, interrupts.held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
