"""Turns: what the tests of views share: work that fails now and then, and a publisher whose turns the tests give."""

import asyncio


async def work(item):
    """Return the item after a second; each fifth fails."""
    await asyncio.sleep(1.0)
    if item % 5 == 3:
        raise ConnectionError("HTTP 503")
    return item


class Turns:
    """A publisher that gives no turns by itself: the tests do."""

    def __init__(self):
        self.views = []

    def add(self, view):
        """Take a view in."""
        self.views.append(view)

    def hurry(self):
        """Do nothing."""

    def turn(self):
        """Update all views."""
        for view in self.views:
            view.publish()
