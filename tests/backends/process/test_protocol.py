"""What the kernel, the supervisor and a child say to each other arrives whole, in whatever pieces."""

import io
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.backends import Killed, OutOfMemory, Overrun
from ipybatch.backends.process import protocol
from ipybatch.backends.process.protocol import Ended, error_of
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules.classify import Kind, classify

limits = st.none() | st.floats(0, 1e6)
messages = st.one_of(
    st.builds(protocol.Kill, st.integers(0, 2**40)),
    st.builds(
        protocol.Start, st.integers(0, 2**40), st.binary(), st.none() | st.floats(0, 1e6), st.none() | st.floats(0, 1e6)
    ),
    st.builds(Ended, st.integers(0, 2**40), st.integers(-64, 255), st.just("memory"), st.text()),
    st.builds(protocol.Failed, st.text()),
)
things = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner, inner)
)


@given(st.lists(messages), st.lists(st.integers(1, 9), min_size=1))
def test_messages_arrive_whole_and_in_order_whatever_the_pieces(sent, sizes):
    """A line may be cut anywhere, and its text may hold line ends."""
    data = b"".join(map(protocol.encode_message, sent))
    lines, got, at = protocol.MessageReader(), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        got += lines.feed(data[at : at + size])
        at += size
    assert got == sent


class Slow(io.RawIOBase):
    """A line that takes and gives a few bytes at a time, as sockets may."""

    def __init__(self, most):
        self.most, self.held = most, bytearray()

    def write(self, data):
        piece = bytes(data[: self.most])
        self.held += piece
        return len(piece)

    def readinto(self, room):
        piece = self.held[: min(self.most, len(room))]
        room[: len(piece)] = piece
        del self.held[: len(piece)]
        return len(piece)


@given(things, st.integers(1, 64))
def test_what_is_sent_is_what_is_received(thing, most):
    line = Slow(most)
    protocol.send(line, protocol.encode(thing))
    assert protocol.decode(protocol.receive(line)) == thing
    assert not line.held


def test_arrays_travel_beside_the_pickle_and_can_be_changed():
    """Otherwise each would be copied twice."""
    arrays = [np.arange(1000.0), np.zeros(0), np.arange(12).reshape(3, 4).T]
    parts = protocol.encode(arrays)
    assert sum(part.nbytes == 8000 for part in parts[1:]) == 1
    got = protocol.decode([bytearray(part) for part in parts[1:]])
    for one, other in zip(arrays, got, strict=True):
        np.testing.assert_array_equal(one, other)
    got[0][0] = 7


CELL = """
def outer():
    def inner():
        return 1 / 0
    return inner

class Model:
    def fit(self):
        return outer()()
"""


def test_code_of_a_notebook_keeps_its_file_and_lines():
    """Tracebacks name the cell: also where functions are within others, and in classes."""
    cell = {"__name__": "__main__"}
    exec(compile(CELL, "<cell 3>", "exec"), cell)
    model = protocol.decode([bytes(part) for part in protocol.encode(cell["Model"]())[1:]])
    with pytest.raises(ZeroDivisionError) as raised:
        model.fit()
    assert [(str(entry.path), entry.lineno + 1) for entry in raised.traceback[1:]] == [("<cell 3>", 9), ("<cell 3>", 4)]


@given(st.integers(0, 200))
def test_a_line_that_ends_too_soon_is_no_answer(kept):
    line = Slow(1000)
    protocol.send(line, protocol.encode(np.arange(100)))
    del line.held[kept:]
    with pytest.raises(EOFError):
        protocol.receive(line)


@given(st.text("ab", max_size=60), things, st.integers(1, 64))
def test_an_answer_is_found_behind_whatever_was_written_before(junk, thing, most):
    """Even behind what looks like the beginning of its token."""
    token, line = b"ababaababababbac", Slow(most)
    protocol.send(line, [junk.encode(), token[:-1]])
    protocol.send_answer(line, token, protocol.encode(thing))
    assert protocol.decode(protocol.receive_answer(line, token)) == thing


def test_an_answer_with_something_in_it_is_none():
    token, sent = b"0123456789abcdef", Slow(1000)
    protocol.send_answer(sent, token, protocol.encode(b"x" * 500))
    sent.held[300:300] = b"a log line"
    with pytest.raises(protocol.GarbledError):
        protocol.receive_answer(sent, token)


class Reading:
    def __reduce__(self):
        return len, ("abc",)


@pytest.mark.parametrize("value", [None, [1.5, "text", {"a": b"bytes"}], 2**70])
def test_plain_data_need_not_be_read_twice(value):
    assert protocol.is_plain(protocol.encode((value, None)))


@pytest.mark.parametrize("value", [Reading(), [len], np.arange(3.0)])
def test_what_calls_something_when_it_is_read_is_not_plain(value):
    assert not protocol.is_plain(protocol.encode((value, None)))


AGAIN = "The supervisor of the processes has ended again, with this alone in it"
GARBLED = "The answer cannot be read: the work, or a process that it started, wrote into its line"
LEFT = "of its processes cannot be ended, and were left"


@pytest.mark.parametrize(
    ("ended", "kind", "told", "verdict"),
    [
        (Ended(1, -9, "timeout"), Overrun, "Exceeded 300s", Kind.TIMEOUT),
        (Ended(1, -9, "memory"), OutOfMemory, "Out of memory", Kind.PERMANENT),
        (Ended(1, -int(signal.SIGBUS)), Killed, "Killed by SIGBUS", Kind.TRANSIENT),
        (Ended(1, -63), Killed, "Killed by signal 63", None),
        (Ended(1, 7), Killed, "Ended without an answer, exit code 7", None),
        (Ended(1, 1, "lost", "gone"), protocol.Lost, "The supervisor of the processes has ended: gone", Kind.TRANSIENT),
        (Ended(1, 1, "lost again", "gone"), Killed, f"{AGAIN}: gone", Kind.TRANSIENT),
        (Ended(1, 0, "garbled"), Killed, GARBLED, Kind.TRANSIENT),
        (Ended(1, 0, "timeout", left=1), Overrun, f"Exceeded 300s; 1 {LEFT}", Kind.TIMEOUT),
        (Ended(1, 0, "memory", left=2), OutOfMemory, f"Out of memory; 2 {LEFT}", Kind.PERMANENT),
    ],
)
def test_an_end_without_an_answer_is_told_in_one_line(ended, kind, told, verdict):
    """And none of them proves anything about a service."""
    error = error_of(ended, 300)
    assert type(error) is kind
    assert describe(error) == told
    found = classify(error, Retry(), 0.0)
    assert verdict in (None, found.kind)
    assert kind is Overrun or not found.counts
