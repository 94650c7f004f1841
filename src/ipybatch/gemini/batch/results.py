"""Output of an ended job: which of its items was answered with what.

Rule: an answer belongs to its prompt by the key that was sent with it, and never by its place.  What comes back is in
another order, lacks keys, is not there yet or ends early; so

    its key, once                         it is that item's
    its key twice, the same both times    it is that item's
    no key, the job has one prompt        it is that item's
    no key, or one that was not sent      it is kept with an item that has no answer, as an error: `Unmatched`; an error
                                          is one of an item that has neither
    nothing                               `Unanswered`: it may come yet, and is not sent again because of it

The output is read twice, at first for its keys only, and block by block in a thread: no more than one block is in
memory.
"""

from __future__ import annotations

import codecs
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock, in_thread
from ipybatch.engine.data.lenient_json import read_json
from ipybatch.engine.data.masking import mask
from ipybatch.errors import ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.spool import wire_key
from ipybatch.gemini.service.api import Api, Operation

Body = dict[str, Any]
Result = tuple[str, "Body | ItemError"]

BLOCK_BYTES = 500_000  # of the output that are read at a time; a larger line alone
BLOCK_LINES = 50  # which hold the loop for 30 ms: each answer is read, recorded and counted
NO_KEY, TORN = -1, -2  # in place of an item's place
_UNMATCHED = (
    "an answer of its job came without its key, and may be another prompt's: it is kept in this row, under unmatched,"
    " and nothing is sent again by itself"
)
_UNMATCHED_ERROR = (
    "an error of its job came without its key, and may be another prompt's, whose answer then stands under unmatched;"
    " nothing is sent again by itself"
)
# google.rpc.Code; Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11-22)
_CODES = frozenset(range(17))
_QUOTA = 8
_TRANSIENT = frozenset({1, 2, 4, 10, 13, 14})


class Unanswered(Transient):
    """The job's output holds nothing for the item, so far."""


class Unreadable(Permanent):
    """What came for the item is neither an answer nor an error: it may be billed."""


class Unmatched(Permanent):
    """An answer of a job cannot be matched: it is billed, and may be this item's or another's.

    Attributes:
        body: The answer.
        job: The job.
        key: Key in the job of the item with which it is kept.
    """

    def __init__(self, body: Body, job: Job, key: str) -> None:
        super().__init__(_UNMATCHED)
        self.body, self.job, self.key = body, job, key


class Output:
    """The output of an ended job; made by `fetch`.

    Attributes:
        state: The job's state.
        rows: Number of rows, answers and errors; the same one twice is one.
        answers: Number of answers that the job made, as the service tells, else as in the output; None where neither
            is sure.

    Args:
        job: The job, with its items' keys in the order sent.
        operation: The job as the service reports it.
        source: A result file, or entries that were answered inline; None where there is no output.
        clock: A virtual clock stands still while a thread reads.
    """

    def __init__(
        self,
        job: Job,
        operation: Operation,
        source: Path | Sequence[Any] | None,
        clock: Clock,
    ) -> None:
        self.state = operation.state
        self._job, self._keys, self._source, self._clock = job, job.keys, source, clock
        self.answers: int | None
        self._answers = 0  # of its lines
        self._places = places(self._echoes(), job.keys)
        seen = {place for place in self._places if place >= 0}
        self._lacking = [place for place in range(job.requests) if place not in seen]
        self.rows = len(seen) + self._places.count(NO_KEY)
        told, torn = job.told_answers(operation.counts), self._places.count(TORN)
        ended = 0 if told is None else told + operation.counts.get("failed", 0)
        self._due = job.requests if self.state == "succeeded" else min(ended or self.rows + torn, job.requests)
        if ended:
            self.answers = told
        elif self.rows >= job.requests:
            self.answers = min(self._answers, job.requests)
        else:
            is_sure = self.state != "succeeded" and not torn
            self.answers = (self._answers or told) if is_sure else None

    @property
    def is_whole(self) -> bool:
        """Whether it holds as many rows as it must: of a job that succeeded one an item, else as many as are told.

        Where nothing is told, as many as it has lines: what is no whole JSON may be an answer at the next look.
        """
        return self.rows >= self._due

    @property
    def lacking(self) -> list[str]:
        """Keys of the items for which it holds nothing."""
        return [self._keys[place] for place in self._lacking]

    async def blocks(self, *, is_last: bool) -> AsyncIterator[list[Result]]:
        """Yield each item once, with its reply or its error, in blocks; those that lack an answer come last.

        Args:
            is_last: Whether this is the last look: then an answer that cannot be matched goes to an item that has
                none.
        """
        lacking = list(reversed(self._lacking))
        entries = self._entries()
        taken: set[int] = set()
        errors: list[ItemError] = []
        while block := await in_thread(self._clock, _next_block, entries):
            found: list[Result] = []
            for place, entry in block:
                if place >= 0 and place not in taken:
                    taken.add(place)
                    found.append((self._keys[place], _body(entry)))
                elif place == NO_KEY and is_last and lacking:
                    if isinstance(body := _body(entry), ItemError):
                        errors.append(body)
                        continue
                    key = self._keys[lacking.pop()]
                    found.append((key, Unmatched(body, self._job, key)))
            yield found
        if errors and lacking:  # after the answers: these are paid
            several = [(self._keys[lacking.pop()], error) for error in errors[: len(lacking)]]
            yield [(key, Permanent(f"{_UNMATCHED_ERROR}: {error}")) for key, error in several]
        if lacking:
            why = f"results incomplete: {self.rows:,} answers to {len(self._keys):,} prompts"
            yield [(self._keys[place], Unanswered(why)) for place in reversed(lacking)]

    def _echoes(self) -> Iterator[tuple[str | None, bytes] | None]:
        """Yield the key in each entry and a hash of it; None for what is no whole JSON."""
        for line in self._lines():
            said = line if isinstance(line, bytes) else msgspec.json.encode(line, order="deterministic")
            try:
                read = read_json(said, _Line, lenient=True)
            except ValueError:
                yield None
            else:
                self._answers += bool(bytes(read.response))
                yield (read.echo, hashlib.blake2b(said, digest_size=8).digest()) if read.is_of_item else None

    def _entries(self) -> Iterator[tuple[int, Any, int]]:
        for place, line in zip(self._places, self._lines(), strict=True):
            if place == TORN:
                continue
            if isinstance(line, bytes):
                yield place, read_json(line, lenient=True), len(line)
            else:
                yield place, line, BLOCK_BYTES // BLOCK_LINES

    def _lines(self) -> Iterable[Any]:
        if self._source is None:
            return ()
        return _raw_lines(self._source) if isinstance(self._source, Path) else self._source


@asynccontextmanager
async def fetch(api: Api, job: Job, clock: Clock | None = None) -> AsyncIterator[Output]:
    """Download the output of an ended job, whatever its end.

    Raises:
        Transient: The output could not be fetched.
        Missing: The service has no such job, or no such file.
        Refused: The service rejects the key or the account.
    """
    clock = clock or SystemClock()
    operation = await api.get(job.remote)
    file = operation.output.get("responsesFile") or operation.output.get("fileName")
    if not isinstance(file, str) or not file:
        inlined = operation.output.get("inlinedResponses")
        if isinstance(inlined, dict):
            inlined = inlined.get("inlinedResponses")
        yield await in_thread(clock, Output, job, operation, inlined if isinstance(inlined, list) else None, clock)
        return
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
        path = Path(folder) / "results.jsonl"
        await api.download(file, path)
        yield await in_thread(clock, Output, job, operation, path, clock)


def places(echoes: Iterable[tuple[str | None, bytes] | None], keys: Sequence[str]) -> list[int]:
    """Return the place of the item that each entry answers; `NO_KEY` where that is uncertain, `TORN` for half a one.

    Args:
        echoes: The key in each entry, None without one, and a hash of it; None for what is no whole JSON.
        keys: The items' keys, in the order sent.
    """
    sent = {wire_key(place, key): place for place, key in enumerate(keys)}
    found: list[int] = []
    first: dict[int, bytes] = {}
    unsure: set[int] = set()
    for echo in echoes:
        if echo is None:
            found.append(TORN)
            continue
        key, digest = echo
        place = NO_KEY if key is None else sent.get(key, NO_KEY)
        if place >= 0 and first.setdefault(place, digest) != digest:
            unsure.add(place)
        found.append(place)
    if found == [NO_KEY] and len(keys) == 1:
        return [0]
    return [NO_KEY if place in unsure else place for place in found]


def rpc_error(status: Mapping[str, Any]) -> ItemError:
    """Translate the google.rpc.Status of one item into our error."""
    code = status.get("code")
    said = mask(f"{status.get('message') or 'no message'} (code {code})")
    if code == _QUOTA:
        return RateLimited(said)
    return Transient(said) if code in _TRANSIENT or not isinstance(code, int) else Permanent(said)


def _next_block(entries: Iterator[tuple[int, Any, int]]) -> list[tuple[int, Any]]:
    block, size = [], 0
    for place, entry, length in entries:
        block.append((place, entry))
        size += length
        if size >= BLOCK_BYTES or len(block) == BLOCK_LINES:
            break
    return block


def _body(entry: Any) -> Body | ItemError:
    """Return the reply or the error in an entry; what is neither may be billed, and is not sent again by itself."""
    if not isinstance(entry, dict):
        return Unreadable("its answer is no JSON object")
    status = entry.get("error", entry.get("status"))
    if isinstance(response := entry.get("response"), dict):
        if not isinstance(response.get("error"), dict) or "candidates" in response:
            return response
        status = response["error"]
    if isinstance(status, dict):
        return rpc_error(status)
    return Unreadable("its answer holds neither a response nor an error")


class _Line(msgspec.Struct):
    """The key of a line; its answer is skipped."""

    key: Any = None
    metadata: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None

    @property
    def echo(self) -> str | None:
        """The key that came back."""
        found = self.metadata.get("key") if self.key is None and isinstance(self.metadata, dict) else self.key
        return found if isinstance(found, str) and found else None

    @property
    def is_of_item(self) -> bool:
        """Whether it is of an item, and not an error in place of the whole output."""
        code = self.error.get("code") if isinstance(self.error, dict) else None
        return self.echo is not None or bool(bytes(self.response)) or code in _CODES


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, read in enumerate(file):
            line = read if number else read.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield line
