"""Interrupts that are held back until they suit."""

import signal
import threading

import pytest

from ipybatch.engine.data.interrupts import hold_interrupts


@pytest.fixture(autouse=True)
def handed_on():
    """The numbers of the signals that were handed on."""
    numbers = []
    before = signal.signal(signal.SIGINT, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_the_first_one_comes_after_the_block(handed_on):
    with hold_interrupts() as held:
        interrupt()
        assert (held, handed_on) == ([signal.SIGINT], [])
    assert handed_on == [signal.SIGINT]


def test_a_second_one_comes_at_once_and_the_first_one_no_more(handed_on):
    with hold_interrupts():
        interrupt()
        interrupt()
        assert handed_on == [signal.SIGINT]
    assert handed_on == [signal.SIGINT]


def test_a_block_that_ends_soon_holds_all_back_and_hands_one_on(handed_on):
    with hold_interrupts(all_of_them=True):
        for _ in range(3):
            interrupt()
        assert not handed_on
    assert handed_on == [signal.SIGINT]


def test_a_block_within_another_hands_it_to_that(handed_on):
    with hold_interrupts():
        with hold_interrupts():
            interrupt()
        assert not handed_on
    assert handed_on == [signal.SIGINT]


def test_what_the_block_raises_comes_with_it(handed_on):
    def fail():
        with hold_interrupts():
            interrupt()
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    assert handed_on == [signal.SIGINT]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_whoever_ignores_them_or_ends_by_them_still_does(handler):
    signal.signal(signal.SIGINT, handler)
    with hold_interrupts():
        assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_leave_it_to_the_main_one(handed_on):
    def work():
        with hold_interrupts():
            kept.append(signal.getsignal(signal.SIGINT))

    kept, before = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert kept == [before]
