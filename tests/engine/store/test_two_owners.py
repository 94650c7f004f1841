"""Two kernels and one journal, whatever they do in whatever order: what is acknowledged is there, and nothing else."""

import itertools
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipybatch.engine.data.plan import Task
from ipybatch.engine.store import lease, removal
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import LEASE_S
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.schema import SEQ_BITS
from ipybatch.errors import Fenced, JournalLocked
from tests.engine.store.stores import NOW_S, close, rows, take

NAMES = ("wishlist", "library")


class Killed(BaseException):
    pass


class Kernel:
    """A process, as far as the journal can tell."""

    numbers = itertools.count()

    def __init__(self, path):
        self.journal = Journal(path)
        self.identity = f"kernel-{next(self.numbers)}"

    @contextmanager
    def acts(self):
        with mock.patch.multiple(lease, _PROCESS=self.identity, SILENCE_S=0.0, find_process=lambda owner: True):
            yield


class Handle:
    """A session of a kernel.

    Attributes:
        beat_s: When it last renewed its lease; the thread that renews leases finds this time, and changes nothing.
    """

    def __init__(self, kernel, name, now_s):
        self.kernel, self.name, self.beat_s = kernel, name, now_s
        self.store = take(kernel.journal, name, now_s=now_s, unix_s=lambda: self.beat_s)

    @property
    def run(self):
        return self.store.run


class TwoOwners(RuleBasedStateMachine):
    """The model: the runs there are with what was acknowledged of each, and who holds which."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "journal.db"
        self.kernels = [Kernel(self.path), Kernel(self.path)]
        self.now_s = NOW_S
        self.names, self.recorded, self.owner, self.ended_s = {}, {}, {}, {}
        self.handles = []
        self.values = itertools.count()
        self.last_run = 0

    def teardown(self):
        for kernel in self.kernels:
            self.kill(kernel)
        shutil.rmtree(self.folder)

    def kill(self, kernel):
        """End its sessions without a word."""
        for handle in [handle for handle in self.handles if handle.kernel is kernel]:
            handle.store.drop()
            self.handles.remove(handle)
        kernel.journal.close()

    def is_live(self, run, kernel):
        """Say whether a kernel must find a run held by somebody alive."""
        handle = self.owner.get(run)
        if handle is None:
            return False
        if handle.kernel is kernel:
            return handle in self.handles
        return self.now_s - handle.beat_s < LEASE_S

    def runs_of(self, name):
        return [run for run, its in self.names.items() if its == name]

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES))
    def open(self, which, name):
        kernel = self.kernels[which]
        is_live = any(self.is_live(run, kernel) for run in self.runs_of(name))
        with kernel.acts():
            try:
                handle = Handle(kernel, name, self.now_s)
            except JournalLocked:
                assert is_live
                return
        assert not is_live, "two owners of one name"
        assert handle.run in self.runs_of(name) or handle.run > self.last_run, "a run number was given twice"
        self.last_run = max(self.last_run, handle.run)
        self.names[handle.run] = name
        self.recorded.setdefault(handle.run, {})
        self.owner[handle.run] = handle
        self.handles.append(handle)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), how=st.sampled_from(["open", "forget", "forget and be killed", "prune"]))
    def take_over(self, data, how):
        """Let a kernel sleep for as long as its lease lasts, and the other one act meanwhile; it wakes after that."""
        asleep = data.draw(st.sampled_from(self.handles), "asleep")
        self.now_s += LEASE_S
        which = 1 - self.kernels.index(asleep.kernel)
        if how == "open":
            self.open(which, asleep.name)
        elif how == "prune":
            self.prune(which, is_killed=False)
        else:
            self.forget(which, asleep.name, is_killed=how != "forget")
        if asleep in self.handles:
            self.write(asleep, [0])

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), seqs=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
    def commit(self, data, seqs):
        self.write(data.draw(st.sampled_from(self.handles), "handle"), seqs)

    def write(self, handle, seqs):
        values = {seq: str(next(self.values)) for seq in seqs}
        entries = [
            Entry(
                Task(seq, str(seq), seq), str(seq), 1, "completed", True, None, value.encode(), self.now_s, 0.1, "", {}
            )
            for seq, value in values.items()
        ]
        (error,) = self.tell(handle, lambda done: handle.store.submit(entries, self.now_s, done))
        if error is None:
            assert self.owner.get(handle.run) is handle, "who lost the run has written into it"
            self.recorded[handle.run] |= values
            handle.beat_s = self.now_s
        else:
            assert type(error) is Fenced
            assert self.owner.get(handle.run) is not handle

    def tell(self, handle, write):
        told = []
        with handle.kernel.acts():
            write(told.append)
            handle.kernel.journal.write(lambda _: None)
        return told

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def beat(self, data):
        handle = data.draw(st.sampled_from(self.handles), "handle")
        before_s, handle.beat_s = handle.beat_s, self.now_s
        lost = self.tell(handle, lambda done: (setattr(handle.store.lease, "on_lost", done), handle.store.lease.beat()))
        assert bool(lost) is (self.owner.get(handle.run) is not handle)
        if lost:
            handle.beat_s = before_s

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), how=st.sampled_from(["close", "rollback", "abandon"]))
    def end(self, data, how):
        handle = data.draw(st.sampled_from(self.handles), "handle")
        mine = self.owner.get(handle.run) is handle
        self.handles.remove(handle)
        with handle.kernel.acts():
            if how == "abandon":
                handle.store.abandon()
                handle.kernel.journal.write(lambda _: None)
            else:
                (error,) = close(handle.store, now_s=self.now_s, is_anew=how == "rollback")
                assert (error is None) is mine
        if mine:
            self.owner[handle.run] = None
            if how == "rollback":
                self.recorded[handle.run] = {}

    @rule(which=st.integers(0, 1))
    def kill_and_restart(self, which):
        self.kill(self.kernels[which])
        self.kernels[which] = Kernel(self.path)

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S]))
    def advance(self, seconds):
        self.now_s += seconds

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES), is_killed=st.booleans())
    def forget(self, which, name, is_killed):
        kernel = self.kernels[which]
        is_live = any(self.is_live(run, kernel) for run in self.runs_of(name))
        with kernel.acts(), self.deleting(is_killed):
            try:
                removal.forget(kernel.journal, name, self.now_s)
            except JournalLocked:
                assert is_live
                return
            except Killed:
                pass
        assert not is_live, "a live run was forgotten"
        for run in self.runs_of(name):
            self.gone(run)

    @rule(which=st.integers(0, 1), is_killed=st.booleans())
    def prune(self, which, is_killed):
        kernel = self.kernels[which]
        old = [run for run in self.names if not self.is_live(run, kernel)]
        with kernel.acts(), self.deleting(is_killed), suppress(Killed):
            assert removal.prune(kernel.journal, self.now_s + 1.0, self.now_s) == len(old)
        for run in old:
            self.gone(run)

    def gone(self, run):
        del self.names[run], self.recorded[run]
        self.owner.pop(run, None)

    @contextmanager
    def deleting(self, is_killed):
        """Delete in the shortest steps, let others see what is there in between, or be killed."""

        def between(seconds):
            if is_killed:
                raise Killed
            self.check_rows(deleting=True)

        with mock.patch.object(removal, "CHUNK_S", 0.0), mock.patch.object(removal.time, "sleep", between):
            yield

    @invariant()
    def the_journal_is_the_sum_of_what_was_acknowledged(self):
        self.check_rows()

    def check_rows(self, *, deleting=False):
        found = rows(
            self.kernels[0].journal,
            "SELECT run.id, item.id & 0xFFFFFFFFFF, CAST(payload.result AS TEXT) FROM item JOIN payload USING (id)"
            f" JOIN run ON run.id = item.id >> {SEQ_BITS} WHERE run.name <> ''",
        )
        named = [(run, seq, value) for run, of_run in self.recorded.items() for seq, value in of_run.items()]
        if deleting:  # what is being forgotten is in the model still
            assert set(found) <= set(named)
        else:
            assert sorted(found) == sorted(named)
            assert [
                run for (run,) in rows(self.kernels[0].journal, "SELECT id FROM run WHERE name <> '' ORDER BY id")
            ] == (sorted(self.names))


TestTwoOwners = TwoOwners.TestCase
TestTwoOwners.settings = settings(stateful_step_count=30)
