"""Line: tasks that are still to be drawn, in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

from ipybatch.engine.data.plan import BY_ORDER, Task


def in_order(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks by their order: three sorts by whole numbers take half the time of one by all three."""
    placed = list(tasks)
    for field in ("seq", "rank", "priority"):
        placed.sort(key=attrgetter(field))
    return placed


FEW = 64  # so many tasks are looked for and put in their places one by one; of more, all are looked at


class Line:
    """Tasks that are still to be drawn, in order; some can be put among them or taken out while they are.

    It takes the place of a list's iterator when that is first needed.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = list(tasks)
        self._at = 0

    def __iter__(self) -> Line:
        return self

    def __next__(self) -> Task:
        at = self._at
        if at >= len(self._tasks):
            raise StopIteration
        self._at = at + 1
        return self._tasks[at]

    def __len__(self) -> int:
        return len(self._tasks) - self._at

    @property
    def first(self) -> Task | None:
        """The next one; None when there is none."""
        return self._tasks[self._at] if self._at < len(self._tasks) else None

    def put_back(self, tasks: Collection[Task]) -> None:
        """Let tasks that were drawn be the next ones again."""
        if tasks:
            self._tasks[: self._at], self._at = tasks, 0

    def put(self, tasks: Sequence[Task]) -> None:
        """Let tasks, in order, stand where they belong: mostly at the end."""
        line = self._tasks
        if not tasks:
            return
        if not len(self) or line[-1].order <= tasks[0].order:
            line.extend(tasks)
        elif tasks[-1].order <= line[self._at].order:
            self.put_back(tasks)
        elif len(tasks) > FEW:
            self._tasks, self._at = in_order([*line[self._at :], *tasks]), 0
        else:
            for task in tasks:
                insort(line, task, lo=self._at, key=BY_ORDER)

    def take_out(self, tasks: Sequence[Task]) -> list[Task]:
        """Return those of the tasks that stand here, and let them stand here no more."""
        line, out, elsewhere = self._tasks, [], list(tasks)
        if len(tasks) <= FEW:
            elsewhere = []
            for task in tasks:
                at = bisect_left(line, task.order, lo=self._at, key=BY_ORDER)
                if at < len(line) and line[at] is task:
                    out.append(line.pop(at))
                else:
                    elsewhere.append(task)
        if elsewhere and len(self):  # or it stands out of order: as the user's list has it
            seqs = {task.seq for task in elsewhere}
            rest = line[self._at :]
            found = [task for task in rest if task.seq in seqs]
            if found:
                self._tasks, self._at = [task for task in rest if task.seq not in seqs], 0
                out += found
        return out
