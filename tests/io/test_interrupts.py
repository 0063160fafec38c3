"""Ctrl-C waits for what must not be torn, once; other threads and signals without a handler are left alone."""

import signal
import threading

import pytest

from lfjax.io.interrupts import uninterrupted


def test_a_signal_waits_until_the_block_ends():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("whole")
    assert done == ["whole"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_one_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert not done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_back_after_an_error_and_no_signal_is_made_up():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(ValueError, match="a"), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            assert not heard
            raise ValueError("a")
        assert heard == [signal.SIGTERM]
        with uninterrupted():
            pass
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_change_no_handler():
    found = []

    def work():
        with uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
