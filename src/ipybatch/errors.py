"""Every error of ours, in one tree, branched by what the reader does next.

BatchError
|-- ItemError                 an attempt went wrong; raise these from your work function
|   |-- Transient             try again later (`retry_after_s` is the service's own word)
|   |   |-- RateLimited       slow down: the whole resource cools down
|   |   `-- Killed            its process ended without an answer, or its worker is lost (`ipybatch.backends`)
|   |-- Permanent             fix the item: it is not tried again
|   |   |-- OutOfMemory       give it more memory, or make it smaller (`ipybatch.backends`)
|   |   `-- NotThere          the service has no such thing: it is asked again in some days (`ipybatch.library`)
|   |-- Overrun               give it more time, or less to do (`ipybatch.backends`; also a TimeoutError)
|   |-- Refused               fix the key or the account: the session stops
|   |-- Held                  come back later for this item: the others go on
|   `-- Withheld              raise the budget, or come back later: what runs finishes, nothing more starts
|-- InputError                fix the call (also a ValueError)
|-- EngineBusy                ask again: the engine did not answer within a second
|-- JournalError              fix the file or the disk
|   |-- JournalLocked         another live session owns this name
|   |-- JournalReadOnly       the file or its folder cannot be written
|   |-- JournalFull           the disk is full
|   |-- JournalCorrupt        the file is damaged, or not ours
|   `-- Fenced                another process took this session over
|-- InsufficientCredits       top the account up, or ask for less (`ipybatch.gemini`)
`-- MissingExtra              install what is named (also an ImportError)
"""

from __future__ import annotations


class BatchError(Exception):
    """Base of every error this package raises."""


class ItemError(BatchError):
    """Base of what a work function raises to say how an attempt failed.

    Attributes:
        kind: One word for the kind of failure, recorded with the outcome; subclasses may name their own.
        advice: What the user can do about it; "" where nothing is known.
        status: HTTP status of the answer that it tells of; None for none.
        result: What was received all the same, such as an answer that was paid for and cut off; recorded with the item
            like a result. None for nothing.
    """

    kind = "failed"
    advice = ""
    status: int | None = None
    result: object = None


class Transient(ItemError):
    """Say that the same item may succeed later; it counts for the circuit breaker.

    Attributes:
        retry_after_s: Seconds the service asked us to wait; cools the whole resource down. None: our own back-off.
        counts: Whether the breaker counts it: not where the service as a whole is well. Then there is no back-off.
    """

    kind = "transient"

    def __init__(
        self, message: str = "transient failure", *, retry_after_s: float | None = None, counts: bool = True
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.counts = counts


class RateLimited(Transient):
    """Say that the service answered "too fast": no failure, and it costs the item no attempt.

    Attributes:
        back_off_s: Seconds that this item alone waits, where nothing was asked of all. None: our own back-off.
    """

    kind = "rate_limited"

    def __init__(
        self, message: str = "rate limited", *, retry_after_s: float | None = None, back_off_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.back_off_s = back_off_s


class Permanent(ItemError):
    """Say that this item can never succeed as it is; neutral to the breaker."""

    kind = "permanent"


class Refused(ItemError):
    """Say that the service refuses us altogether (wrong key, banned): the session stops at once."""

    kind = "refused"


class Withheld(ItemError):
    """Say that this item was not sent, nor may any other be: the session ends once what runs has finished.

    The item counts as skipped, and runs when the session goes on.
    """

    kind = "withheld"


class Held(ItemError):
    """Say that this item is not sent for now, and why; the others go on.

    The item counts as skipped, and runs when the session goes on.
    """

    kind = "held"


class InputError(BatchError, ValueError):
    """A call, a field or an item is not what it must be; nothing was started."""


class EngineBusy(BatchError):
    """The engine did not answer a question within a second: work keeps its loop from turning. Ask again."""


class JournalError(BatchError):
    """Base of what can be wrong with the journal; the file is left as it was."""


class JournalLocked(JournalError):
    """Another live session owns this name."""


class JournalReadOnly(JournalError):
    """The journal cannot be written."""


class JournalFull(JournalError):
    """There is no room left for the journal."""


class JournalCorrupt(JournalError):
    """The journal is damaged, or is some other file."""


class Fenced(JournalError):
    """Another process took this session over; this one writes nothing more."""


class MissingExtra(BatchError, ImportError):
    """An optional part is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(f'Run: pip install "ipybatch[{extra}]"')
        self.extra = extra
