"""The thread that updates the views: one that fails once is not given up, and does not fill the log."""

import threading

from ipybatch.jupyter.publisher import Publisher


class View:
    """It cannot be updated the first times."""

    def __init__(self, failures):
        self.failures, self.rounds, self.is_updated = failures, 0, threading.Event()

    def publish(self):
        self.rounds += 1
        if self.rounds <= self.failures:
            raise RuntimeError("dictionary changed size during iteration")
        self.is_updated.set()
        return False

    def beat(self):
        pass


def test_a_view_that_could_not_be_updated_is_updated_in_the_next_round(caplog):
    """Such as of a session that began at that moment; else its page would say that the kernel is gone."""
    publisher, view = Publisher(), View(failures=2)
    publisher.add(view)
    for _ in range(100):
        publisher.hurry()
        if view.is_updated.wait(0.1):
            break
    assert view.is_updated.is_set()
    assert [record.message for record in caplog.records] == ["a view cannot be updated"]
