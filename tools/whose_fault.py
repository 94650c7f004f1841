"""Generate `docs/whose-fault.md` from the table of faults that `tests/engine/rules/test_whose_fault.py` plays.

python -m tools.whose_fault            writes the file
python -m tools.whose_fault --check    exits 1 when the committed file differs
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.generated import write_or_check

TARGET = Path(__file__).parents[1] / "docs" / "whose-fault.md"
CLIENTS = ("requests", "urllib3", "httpx", "httpx2", "aiohttp", "urllib.request", "http.client")
READ, NONE = "read", "-"  # no error; nothing to try


@dataclass(frozen=True)
class Fault:
    """A row: what goes wrong, and whose fault it is.

    Attributes:
        how: How the tests play it: a path of their server, or the name of what is done instead.
        but: What a client does otherwise, and why.
        has_succeeded: Whether something has succeeded before.
    """

    what: str
    how: str
    scope: str
    but: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    has_succeeded: bool = False

    def cell(self, client: str) -> str:
        """Return whose fault it is with a client."""
        return self.but[client][0] if client in self.but else self.scope


_ONE_LINE = "it opens a line for each request"
_BOM = dict.fromkeys(("httpx", "httpx2", "urllib.request", "http.client"), (READ, "it reads past the mark"))
FAULTS = (
    Fault("nobody listens at the port", "refused", "service"),
    Fault("the name cannot be resolved", "dns", "service"),
    Fault("the line drops before the answer", "drop", "service"),
    Fault("the line is reset before the answer", "reset", "service"),
    Fault(
        "the line drops after an answer, at the next request",
        "kept-then-dropped",
        "service",
        {
            "aiohttp": (READ, "it asks again by itself: count on a request more"),
            "urllib.request": (NONE, _ONE_LINE),
        },
    ),
    Fault("the body is shorter than it says", "short", "service"),
    Fault("a chunk has no length", "broken-chunk", "service"),
    Fault("the line drops within a chunk", "cut-chunk", "service"),
    Fault("the body is no gzip though it says so", "gzip", "service"),
    Fault("the answer is no HTTP", "no-http", "service"),
    Fault("the header is late", "slow-header", "service"),
    Fault("the body is late", "slow-body", "service"),
    Fault("a web page with status 200", "page", "service"),
    Fault("nothing with status 200", "empty", "service", {"aiohttp": (READ, "it reads None")}),
    Fault("half a JSON with status 200", "half-json", "service"),
    Fault("JSON after a byte order mark", "bom", "service", _BOM),
    Fault("JSON with a lone surrogate", "surrogate", READ),
    Fault("408 Request Timeout", "408", "service"),
    Fault("425 Too Early", "425", "service"),
    Fault("500 Internal Server Error", "500", "service"),
    Fault("502 Bad Gateway", "502", "service"),
    Fault("503 Service Unavailable", "503", "service"),
    Fault("503 with a web page", "503-page", "service"),
    Fault("504 Gateway Timeout", "504", "service"),
    Fault("429 Too Many Requests", "429", "rate"),
    Fault("429 with Retry-After in seconds", "429-in-seconds", "rate"),
    Fault("429 with Retry-After as a date", "429-date", "rate"),
    Fault("429 with retry-after-ms", "429-ms", "rate"),
    Fault("429 with X-RateLimit-Remaining: 0 and -Reset", "429-reset", "rate"),
    Fault("429 with RateLimit", "429-draft", "rate"),
    Fault("429 with a web page", "429-page", "rate"),
    Fault("503 with Retry-After", "503-in-seconds", "rate"),
    Fault("403 with Retry-After", "403-in-seconds", "rate"),
    Fault("403 with X-RateLimit-Remaining: 0", "403-used-up", "rate"),
    Fault("401 Unauthorized", "401", "account"),
    Fault("403 Forbidden, before any success", "403", "account"),
    Fault("403 Forbidden, after a success", "403", "item", has_succeeded=True),
    Fault("404 Not Found", "404", "item"),
    Fault("410 Gone", "410", "item"),
    Fault("a redirect that is not followed", "moved", "item"),
    Fault("a redirect to itself", "loop", "item"),
    Fault("407 Proxy Authentication Required", "407", "us"),
    Fault("a certificate that nobody signed", "certificate", "us"),
    Fault("a certificate that nobody signed, after a success", "certificate", "item", has_succeeded=True),
    Fault("no TLS where https:// is asked for", "no-tls", "service"),
    Fault(
        "no https:// before the address",
        "no-scheme",
        "us",
        {"urllib3": (READ, "it takes http:// for granted"), "http.client": (NONE, "it is given host and path")},
    ),
    Fault(
        "more requests than the pool has lines",
        "full",
        "us",
        {
            "requests": (NONE, "it opens a line more, or waits without end"),
            "urllib.request": (NONE, _ONE_LINE),
        },
    ),
    Fault(
        "the client has been closed",
        "closed",
        "us",
        dict.fromkeys(("requests", "urllib.request", "http.client"), (NONE, "it opens anew")),
    ),
    Fault(
        "the client was opened in another event loop",
        "other-loop",
        "us",
        dict.fromkeys(("requests", "urllib3", "urllib.request", "http.client"), (NONE, "it knows no loop")),
    ),
)

HEAD = """\
# Whose fault is it?

Generated by `tools/whose_fault.py`; `tests/engine/rules/test_whose_fault.py` plays every cell over real sockets.

Before anything is done about an error, one question is answered: whose is it? The answer comes from the error's
structure, from the answer of the service that it tells of, and from what went before. HTTP clients need no set-up for
that, and none is imported.

| whose | for instance | what follows |
|---|---|---|
| `item` | 404, bad input, your own `Permanent` | this item fails, alone |
| `service` | a refused or dropped line, a timeout, 5xx, a web page or half a JSON with status 200 | it is tried \
again; the circuit breaker counts it |
| `rate` | 429; 403 and 503 with Retry-After or with nothing remaining | the request waits, or the whole resource \
does; no attempt of an item is used up |
| `account` | 401, 402; 403 before anything has succeeded | the session ends; its items run at the next call |
| `us` | no `https://`, a certificate, a pool that is too small, a closed client | said at once with what to do; never \
taken for an outage |

## Client by client

"""

RULES = """
## The rules

1. **Your own word counts most.** `Transient`, `RateLimited`, `Permanent`, `Refused`, `Held` and `Withheld` say what
   they say, also in an `ExceptionGroup` and as the cause of another error.
2. **A group** (`asyncio.TaskGroup`, `asyncio.timeout` within one) is judged by its members, and told by the one that
   decides, the first of: an account's refusal; our set-up; your own `Permanent`; a 429; the service; what may go well
   next time; the item. A member that was only cancelled with the others never decides.
3. **What an error wraps or was raised from** decides where it says nothing itself: `raise NoPrice(id) from error` is
   what `error` is. So is an error that is raised while another is handled, unless it is a slip such as NameError;
   `from None` parts the two.
4. **An answer that the work had in its hands** decides where nothing else does. Work that looks at the status itself
   (`if response.status != 200: raise RuntimeError(...)`), or that takes an error's JSON for a result and ends in a
   KeyError, fails by that status. The last answer in the local names of the innermost function counts.
5. **JSON that cannot be read** is the service's where the client read it (`response.json()`, `json.load(response)`) or
   where an answer in the work's hands holds that text. Of any other text, such as a field of your item, only what
   overloaded services send is the service's: a web page, a text that breaks off, or nothing. Else it is the item's.
6. **403** is the account's until something has succeeded; from then on it is that item's. So is an address or a
   certificate that is refused.
7. **A failed line** may be ours: a certificate that is refused, no file or port left, a full pool. Those are found
   where a client hides them.
8. `Retry(on=...)` comes last: what it names is tried again, though it would be the item's or the account's.

Files that are missing, disks that are full and everything else that is not a line to a service is the item's.

## What an item pays, and what ends a session

| what happens | what an item pays | what follows |
|---|---|---|
| it fails while others succeed | an attempt | after `Retry(attempts=)` it is given up, alone |
| items fail together: `Breaker(failures=)` of them, none of which failed while others succeeded | nothing | an \
outage: one probe at a time, in growing breaks; after `give_up_after` openings the session ends, what is left is \
skipped |
| one opens the breaker alone with its last attempt, and others are still to be tried | nothing | it waits once for \
what they tell |
| a 429 | nothing | told a time, all wait; a stray one waits alone; five of the last twenty, and all wait. After \
that the others go first: it may be that item's |
| an hour of that, three times or more, without one success or another answer; pauses aside | nothing | the session \
ends |
| the work's `probe()` meets the service dead | nothing | an outage, however few items failed |
| twenty items fail alike for good, and none has succeeded | nothing | one that comes later is tried; if it fails \
alike, the session ends, and they run again at the next call. A 404, a 410 and your own `Permanent` never count; \
after a success only a 403 does |
| no `https://`, or a certificate that is refused, for three items, and none has succeeded | nothing | the same; one \
alone among others fails alone |

The first to go after a failure is another item, and a probe takes one that comes later, so that a crowd of bad items
at one place of the list ends nothing. A work object with `async def probe(self)` has a better one: it asks the service
for something that once succeeded, and says False where there is nothing to ask for. `refresh()` does so. What fails
in the probe itself, such as a 404 or a mistake in it, is told, and an item is asked in its place.

## What is read of limits

Retry-After in seconds or as a date, `retry-after-ms`, `X-RateLimit-Limit`, `-Remaining` and `-Reset` (also
`X-Rate-Limit-`, `RateLimit-`, and by window such as `-Minute`), the IETF's `RateLimit` and `RateLimit-Policy`,
`App-Rate-Limit` and `Method-Rate-Limit` with their counts, and the RetryInfo of Google. A date is measured against the
answer's own Date, and one without a zone is UTC.
"""


_KEPT = "Half a surrogate pair can be read but not be kept: a result that holds one fails its item, told where it is."


def generate() -> str:
    """Return the whole page."""
    notes: list[str] = []
    lines = [f"| | {' | '.join(CLIENTS)} |", "|---|" + "---|" * len(CLIENTS)]
    for fault in FAULTS:
        cells = [_cell(fault, client, notes) for client in CLIENTS]
        lines.append(f"| {fault.what} | {' | '.join(cells)} |")
    lines += ["", '"read": the client makes a result of it. "-": there is nothing to try.', _KEPT, ""]
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return HEAD + "\n".join(lines) + "\n" + RULES


def _cell(fault: Fault, client: str, notes: list[str]) -> str:
    if client not in fault.but:
        return fault.scope
    scope, why = fault.but[client]
    if why not in notes:
        notes.append(why)
    return f"{scope} ({notes.index(why) + 1})"


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` say whether it is current."""
    return write_or_check(
        TARGET, generate(), arguments, stale="docs/whose-fault.md is not its table. Run: python -m tools.whose_fault"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
