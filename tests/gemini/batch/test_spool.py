"""Requests are cut into jobs that the service takes, and written to files, one request at a time."""

import asyncio
import json
import threading
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.clock import SystemClock
from ipybatch.errors import InputError, Permanent
from ipybatch.gemini.batch import spool
from ipybatch.gemini.batch.spool import BatchRequest, chunks, spooled, wire_key
from tests.gemini.stories import MODEL, requests_of

PNG = b"\x89PNG\r\n\x1a\n"
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip))
plain_texts = st.lists(st.text("abc äß語\N{GRINNING FACE}", min_size=1, max_size=30).filter(str.strip), max_size=40)


def written(chunk, model=MODEL):
    """Write a chunk; return what is told of it, and its lines."""

    async def story():
        async with spooled(model, chunk, SystemClock()) as told:
            return told, told.path.read_bytes().splitlines(keepends=True)

    told, lines = asyncio.run(story())
    assert not told.path.exists()
    return told, lines


@given(plain_texts, st.integers(1, 9), st.integers(400, 2000))
def test_nothing_is_lost_order_is_kept_and_every_chunk_is_under_every_limit(said, most, most_bytes):
    requests = requests_of(said)
    cut = list(chunks(requests, max_requests=most, max_bytes=most_bytes))
    assert [request for chunk in cut for request in chunk.requests] == requests
    for chunk in cut:
        assert 1 <= len(chunk.requests) <= most
        lines = [request.line(place) for place, request in enumerate(chunk.requests)]
        assert len(b"".join(lines)) <= chunk.size <= most_bytes


@given(texts)
def test_lines_say_what_was_asked(said):
    """Text of any script arrives as it was, under its key."""
    for chunk in chunks(requests_of(said)):
        told, lines = written(chunk)
        assert told.keys == chunk.keys
        read = [json.loads(line) for line in lines]
        assert [line["key"] for line in read] == [wire_key(place, key) for place, key in enumerate(chunk.keys)]
        assert [line["request"]["contents"][0]["parts"][0]["text"] for line in read] == said


def test_an_estimated_size_is_close():
    image = PNG + bytes(100_000)
    for request in requests_of(["Name it " * 100], [image], system="Be brief. " * 50, config={"temperature": 0.5}):
        assert 0 <= request.size - len(request.line(0)) < 300


def test_only_the_chunk_at_hand_is_drawn():
    drawn = []

    def draw():
        for request in requests_of("abcdef"):
            drawn.append(request.key)
            yield request

    next(chunks(draw(), max_requests=2))
    assert len(drawn) == 3


def test_one_image_is_in_memory_and_the_loop_does_not_encode(tmp_path, monkeypatch):
    """Forty images of 1 MB take as much as one."""
    pictures = [tmp_path / f"{number}.png" for number in range(40)]
    for number, picture in enumerate(pictures):
        picture.write_bytes(PNG + bytes([number]) * 1_000_000)
    requests = [request for picture in pictures for request in requests_of([picture.name], [picture])]
    (chunk,) = chunks(requests)
    threads = set()
    line = BatchRequest.line

    remove = spool._remove

    def told(self, place):
        threads.add(threading.current_thread())
        return line(self, place)

    def told_of_end(path):
        threads.add(threading.current_thread())
        remove(path)

    async def story():
        async with spooled(MODEL, chunk, SystemClock()) as of_chunk:
            return tracemalloc.get_traced_memory()[1], of_chunk.path.stat().st_size

    monkeypatch.setattr(BatchRequest, "line", told)
    monkeypatch.setattr(spool, "_remove", told_of_end)
    tracemalloc.start()
    try:
        peak, size = asyncio.run(story())
    finally:
        tracemalloc.stop()
    assert size > 40 * 1_333_000
    assert peak < 10_000_000
    assert threading.current_thread() not in threads


def test_an_item_whose_image_was_changed_is_left_out_alone(tmp_path):
    picture = tmp_path / "star.png"
    picture.write_bytes(PNG + b"1")
    first, second = requests_of(["one"], [picture]) + requests_of(["two"])
    picture.write_bytes(PNG + b"2")
    both = spool.Chunk(requests=(first, msgspec.structs.replace(second, key='"other"')), size=1)
    told, lines = written(both)
    assert told.keys == ('"other"',)
    assert isinstance(told.failed[first.key], Permanent)
    assert [json.loads(line)["key"] for line in lines] == [wire_key(0, '"other"')]
    assert told.digest == written(spool.Chunk(requests=both.requests[1:], size=1))[0].digest


def test_an_item_that_is_larger_than_was_estimated_is_left_out_alone(monkeypatch):
    monkeypatch.setattr(spool, "FILE_BYTES", 400)
    chunk = spool.Chunk(requests=tuple(requests_of(["a", "b" * 300, "c"])), size=1)
    told, lines = written(chunk)
    assert told.keys == ('"p0"', '"p2"')
    assert "more than fit into a job's file" in str(told.failed['"p1"'])
    assert len(lines) == 2


def test_the_digest_tells_requests_apart(tmp_path):
    picture = tmp_path / "star.png"
    picture.write_bytes(PNG + b"1")

    def digest(texts, images=(), model=MODEL, **config):
        (chunk,) = chunks(requests_of(texts, images, **config))
        return written(chunk, model)[0].digest

    made = [
        digest(["a"]),
        digest(["b"]),
        digest(["a", "b"]),
        digest(["a"], [picture]),
        digest(["a"], model="gemini-0"),
        digest(["a"], system="Be brief"),
        digest(["a"], config={"temperature": 1.0}),
    ]
    assert len(set(made)) == len(made)
    assert digest(["a"]) == made[0]


def test_a_stop_ends_the_writing_and_leaves_no_file(monkeypatch, tmp_path):
    """A cancelled session does not go on reading images."""
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    begun, go_on, lines = threading.Event(), threading.Event(), []
    line = BatchRequest.line

    def slow(self, place):
        lines.append(place)
        begun.set()
        go_on.wait(10)
        return line(self, place)

    monkeypatch.setattr(BatchRequest, "line", slow)
    (chunk,) = chunks(requests_of("abcdef"))

    async def story():
        async def write():
            async with spooled(MODEL, chunk, SystemClock()):
                raise AssertionError

        writing = asyncio.ensure_future(write())
        await asyncio.to_thread(begun.wait, 10)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        go_on.set()

    asyncio.run(story())  # waits for the thread
    assert lines == [0]
    assert list(tmp_path.iterdir()) == []


def test_wire_keys_of_other_items_differ():
    """A result file of another job is not taken for this one's."""
    assert wire_key(0, '"a"') != wire_key(0, '"b"')
    assert wire_key(0, '"a"') != wire_key(1, '"a"')


def test_a_request_that_is_too_large_alone_is_refused_by_name():
    with pytest.raises(InputError, match=r'the request of "p1" must be <= 500 bytes, got \d+: send smaller images'):
        list(chunks(requests_of(["a", "b" * 500]), max_bytes=500))


@pytest.mark.parametrize("field", ["max_requests", "max_bytes"])
def test_limits_are_checked(field):
    with pytest.raises(InputError, match=f"{field} must be"):
        list(chunks([], **{field: 0}))
