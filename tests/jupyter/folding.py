"""Folding: what `widgets/src/store.ts` makes of updates, in Python."""

import msgspec

MOVES, LINES = 100, 500


class Page:
    """The state that updates add up to in a browser; each comes over the wire as JSON."""

    def __init__(self):
        self.seq = 0
        self.head = None
        self.wholes = 0
        self.clear()

    def clear(self):
        self.groups, self.items, self.failures, self.pace, self.moves, self.log, self.columns = (
            {},
            [],
            [],
            [],
            [],
            [],
            [],
        )

    def fold(self, update):
        update = msgspec.json.decode(msgspec.json.encode(update))
        if update["whole"]:
            self.clear()
            self.wholes += 1
        else:
            assert update["seq"] == self.seq + 1, "a gap"
        self.seq, self.head = update["seq"], update["head"]
        self.columns = update["columns"] or self.columns
        self.groups |= {group["number"]: group for group in update["groups"]}
        self.items, self.failures = update["items"], update["failures"]  # always all of them
        if update["pace"]:
            assert update["pace_at"] <= len(self.pace), "marks are missing"
            self.pace[update["pace_at"] :] = update["pace"]
        self.moves = [*self.moves, *update["moves"]][-MOVES:]
        self.log = [*self.log, *update["log"]][-LINES:]
