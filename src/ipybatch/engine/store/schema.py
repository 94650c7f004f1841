"""Schema of the journal, and how an older one becomes the present one.

Rule: a step, once released, is never edited; a change is a new step at the
end.  ``PRAGMA user_version`` counts the steps a file has seen.  A session of
an older version may be running while a newer one opens its journal, and writes
rows of `item`, `payload`, `attempt`, `window` and `plan` by position: these
tables get no further columns.

    run       one run of a session: its lease, its state, its counts; a number is never given twice. Without a name:
              forgotten, and not quite deleted yet. `run.outdated`: the seqs of a generator's items that came again with
              another input and are not recorded anew; `run.settings`: the hash of
              what its latest start sent with every item; `run.begun_s`: when that start began; `run.notes`:
              what it has told its user, a JSON list of texts; `run.notify`: who is told what of its latest start, as
              JSON
    plan      the items of a run, in order, up to 1,000 a row; `run.listing` says which seq they have, NULL: 0, 1,
              2, ...; items that the work brought say it themselves; parts -1, -2, ... are changes of priority, the
              oldest first; `run.is_ordered` says whether some go before others
    item      one row per item that has an outcome; id = run << 40 | seq
    traceback of items that failed, where in the user's code
    payload   results, apart, so that walking the items stays fast
    attempt   attempts that failed and were followed by another
    window    of earlier versions, as is `resource`: what is rationed is in the limit store
    command   what other processes ask a run's owner to do: its verb, and its arguments as JSON. One that is not taken
              (`taken_s` NULL) belongs to the start that holds the lease: none after it acts on it. `reply` says why
              nothing came of it; "" for done
    usage     every billed call: its tokens and what they cost, NULL where the service did not tell. It is here before
              it is sent, as `status` "sent" with the most that it may cost, `bound_usd`. `job`, `item`: of a request
              of a batch job, its display name and the key in it; `at_once`: calls in flight at its start
    job       remote batch jobs, from the intent to submit one to its results. `account`: a hash of the key that sent
              it; `look`: why the last look at it failed; `answers`: how many it made, as far as is known; `rows`: how
              many rows its output had at the last look; `is_released`: whether what it did not answer may be sent again
    again     billed answers of no use after which their item was sent again, until it has its outcome; `item`: a hash
              of its key and all that is sent
    credit    movements of credit accounts; amounts are decimal text
    submission what was submitted to run in a kernel of its own. `request`: the request's body; `requests`: how many
              items; `digest`: of the body, for an `idempotency` key that comes again; `owner`, `beat_s`, `epoch`:
              whoever starts or runs it, as with a run; `run`: its session's; `verb`: "retry_failed" when failed items
              run again; `queued_s`: when it came into the queue, at first or once more; `credits`: what all of it
              costs, as decimal text, NULL for nothing; `reservation`: what holds them in the account, open or not
    schedule  what is submitted again and again: `request`: a submission's body; `timing`: when, as JSON; `account` and
              `max_requests`: of the server that took it; `anchor_s`: what spans are counted from; `next_s`: when it is
              due, NULL for never more; `moved_s`: when that was worked out; `version` counts the writes; `question_s`,
              `question_from_s`, `missed`: the last and the first time that were missed, and how many, while it waits
              for an answer; `last_s`, `submission`: the latest time that was submitted, and what it became; `note`:
              what became of the latest time instead
    output    files that sessions wrote for their users, as they were then: only one that is still the same is a
              session's to rename or to remove
    outbox    what is told by channels: `id` for receivers, `detail` for what tells several of a kind apart, `epoch` 0
              for what is told once a run; `owner`, `beat_s`: whoever is sending it, and since when
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ipybatch.errors import JournalCorrupt, JournalError

SEQ_BITS = 40
SEQ = (1 << SEQ_BITS) - 1
RUN_TABLES = (("item", "id"), ("payload", "id"), ("traceback", "id"), ("attempt", "item"))  # and the column of `ids`

STEPS = (
    """
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        resource TEXT NOT NULL,
        group_word TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        created_s REAL NOT NULL,
        started_s REAL,
        ended_s REAL,
        seconds REAL NOT NULL DEFAULT 0,
        plan_hash BLOB,
        listing BLOB,
        code_hash BLOB,
        total INTEGER,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        timeout INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        usd REAL,
        concurrency INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        owner TEXT,
        beat_s REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX run_by_name ON run (name, id);
    CREATE TABLE plan (run INTEGER NOT NULL, part INTEGER NOT NULL, tasks BLOB NOT NULL, PRIMARY KEY (run, part));
    CREATE TABLE item (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        digest TEXT NOT NULL,
        status TEXT NOT NULL,
        final INTEGER NOT NULL,
        grp INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        seconds REAL NOT NULL,
        ended_s REAL NOT NULL,
        error TEXT NOT NULL,
        has_result INTEGER NOT NULL
    );
    CREATE TABLE payload (id INTEGER PRIMARY KEY, result BLOB NOT NULL);
    CREATE TABLE attempt (
        item INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        ended_s REAL NOT NULL,
        seconds REAL NOT NULL,
        error TEXT NOT NULL
    );
    CREATE INDEX attempt_by_item ON attempt (item);
    CREATE TABLE window (resource TEXT NOT NULL, responded_s REAL NOT NULL, unit TEXT NOT NULL, cost REAL NOT NULL);
    CREATE INDEX window_by_resource ON window (resource, responded_s);
    CREATE TABLE resource (name TEXT PRIMARY KEY, cool_until_s REAL NOT NULL);
    """,
    """
    CREATE TABLE usage (
        id INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        session TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        project TEXT NOT NULL,
        status TEXT NOT NULL,
        tokens_in INTEGER NOT NULL DEFAULT 0,
        tokens_out INTEGER NOT NULL DEFAULT 0,
        tokens_thoughts INTEGER NOT NULL DEFAULT 0,
        tokens_cached INTEGER NOT NULL DEFAULT 0,
        usd REAL,
        credits TEXT,
        ms REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX usage_by_session ON usage (session, at_s);
    CREATE TABLE job (
        display_name TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        number INTEGER NOT NULL,
        model TEXT NOT NULL,
        remote TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL,
        file TEXT NOT NULL DEFAULT '',
        created_s REAL NOT NULL,
        updated_s REAL NOT NULL,
        ended_s REAL,
        requests INTEGER NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        keys BLOB NOT NULL,
        collected INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX job_by_session ON job (session, number);
    CREATE TABLE credit (
        id INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        account TEXT NOT NULL,
        kind TEXT NOT NULL,
        credits TEXT NOT NULL,
        reservation INTEGER,
        operation TEXT NOT NULL DEFAULT '',
        reference TEXT NOT NULL DEFAULT '',
        note TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX credit_by_account ON credit (account, id);
    """,
    """
    ALTER TABLE run ADD COLUMN is_ordered INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE item ADD COLUMN kind TEXT NOT NULL DEFAULT '';
    ALTER TABLE run ADD COLUMN workload TEXT NOT NULL DEFAULT '';
    ALTER TABLE run ADD COLUMN about TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE traceback (id INTEGER PRIMARY KEY, frames TEXT NOT NULL);
    """,
    """
    CREATE TABLE numbered (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        resource TEXT NOT NULL,
        group_word TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        created_s REAL NOT NULL,
        started_s REAL,
        ended_s REAL,
        seconds REAL NOT NULL DEFAULT 0,
        plan_hash BLOB,
        listing BLOB,
        code_hash BLOB,
        total INTEGER,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        timeout INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        usd REAL,
        concurrency INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        owner TEXT,
        beat_s REAL NOT NULL DEFAULT 0,
        is_ordered INTEGER NOT NULL DEFAULT 0,
        workload TEXT NOT NULL DEFAULT '',
        about TEXT NOT NULL DEFAULT '',
        outdated BLOB
    );
    INSERT INTO numbered SELECT *, NULL FROM run;
    DROP TABLE run;
    ALTER TABLE numbered RENAME TO run;
    CREATE INDEX run_by_name ON run (name, id);
    DELETE FROM sqlite_sequence WHERE name = 'run';
    INSERT INTO sqlite_sequence SELECT 'run', max(
        coalesce((SELECT max(id) FROM run), 0),
        coalesce((SELECT max(run) FROM plan), 0),
        coalesce((SELECT max(id) FROM item), 0) >> 40,
        coalesce((SELECT max(id) FROM payload), 0) >> 40,
        coalesce((SELECT max(item) FROM attempt), 0) >> 40
    )
    """,
    """
    ALTER TABLE run ADD COLUMN settings TEXT;
    """,
    """
    ALTER TABLE run ADD COLUMN begun_s REAL;
    CREATE TABLE command (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        verb TEXT NOT NULL,
        arguments TEXT NOT NULL DEFAULT '{}',
        asked_s REAL NOT NULL,
        asked_by TEXT NOT NULL,
        taken_s REAL,
        reply TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX command_by_run ON command (run, id);
    """,
    """
    ALTER TABLE run ADD COLUMN notes TEXT;
    """,
    """
    CREATE TABLE told (
        id INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        session TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        project TEXT NOT NULL,
        status TEXT NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER,
        tokens_thoughts INTEGER,
        tokens_cached INTEGER,
        usd REAL,
        credits TEXT,
        ms REAL NOT NULL DEFAULT 0,
        job TEXT NOT NULL DEFAULT '',
        item TEXT,
        bound_usd REAL,
        at_once INTEGER
    );
    INSERT INTO told SELECT *, '', NULL, NULL, NULL FROM usage;
    DROP TABLE usage;
    ALTER TABLE told RENAME TO usage;
    CREATE INDEX usage_by_session ON usage (session, at_s);
    CREATE UNIQUE INDEX usage_by_item ON usage (job, item) WHERE item IS NOT NULL;
    ALTER TABLE job ADD COLUMN account TEXT NOT NULL DEFAULT '';
    ALTER TABLE job ADD COLUMN bound_usd REAL;
    ALTER TABLE job ADD COLUMN look TEXT NOT NULL DEFAULT '';
    ALTER TABLE job ADD COLUMN answers INTEGER;
    ALTER TABLE job ADD COLUMN rows INTEGER;
    ALTER TABLE job ADD COLUMN is_released INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE again (
        id INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        session TEXT NOT NULL,
        item TEXT NOT NULL,
        verdict TEXT NOT NULL,
        result BLOB NOT NULL
    );
    CREATE INDEX again_by_session ON again (session, item);
    """,
    """
    ALTER TABLE job ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
    """,
    """
    ALTER TABLE run ADD COLUMN kernel TEXT NOT NULL DEFAULT '';
    ALTER TABLE run ADD COLUMN notebook TEXT NOT NULL DEFAULT '';
    ALTER TABLE run ADD COLUMN live BLOB;
    CREATE INDEX run_by_state ON run (state, id);
    CREATE TABLE submission (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        template TEXT NOT NULL,
        request BLOB NOT NULL,
        requests INTEGER NOT NULL,
        digest TEXT NOT NULL,
        idempotency TEXT UNIQUE,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        priority INTEGER NOT NULL DEFAULT 1,
        created_s REAL NOT NULL,
        start_at_s REAL,
        ended_s REAL,
        starts INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        owner TEXT,
        beat_s REAL NOT NULL DEFAULT 0,
        kernel TEXT NOT NULL DEFAULT '',
        run INTEGER,
        verb TEXT NOT NULL DEFAULT '',
        queued_s REAL NOT NULL,
        account TEXT NOT NULL DEFAULT '',
        credits TEXT,
        reservation INTEGER
    );
    CREATE INDEX submission_by_state ON submission (state, priority, number);
    CREATE INDEX submission_by_name ON submission (name, number);
    """,
    """
    CREATE TABLE output (
        session TEXT NOT NULL,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        written_s REAL NOT NULL,
        PRIMARY KEY (session, path)
    );
    """,
    """
    ALTER TABLE run ADD COLUMN notify TEXT;
    CREATE INDEX run_by_notify ON run (state) WHERE notify IS NOT NULL;
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        run INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        channel TEXT NOT NULL,
        notice BLOB NOT NULL,
        state TEXT NOT NULL,
        created_s REAL NOT NULL,
        due_s REAL NOT NULL,
        ended_s REAL,
        attempts INTEGER NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        owner TEXT,
        beat_s REAL NOT NULL DEFAULT 0,
        UNIQUE (run, epoch, kind, detail, channel)
    );
    CREATE INDEX outbox_by_due ON outbox (due_s) WHERE state = 'waiting';
    """,
    """
    CREATE TABLE schedule (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        request BLOB NOT NULL,
        timing BLOB NOT NULL,
        account TEXT NOT NULL,
        max_requests INTEGER NOT NULL,
        created_s REAL NOT NULL,
        anchor_s REAL NOT NULL,
        start_s REAL,
        until_s REAL,
        next_s REAL,
        moved_s REAL NOT NULL,
        is_paused INTEGER NOT NULL DEFAULT 0,
        question_s REAL,
        question_from_s REAL,
        missed INTEGER NOT NULL DEFAULT 0,
        last_s REAL,
        submission TEXT NOT NULL DEFAULT '',
        note TEXT NOT NULL DEFAULT '',
        version INTEGER NOT NULL DEFAULT 1
    );
    """,
    "ALTER TABLE run ADD COLUMN start_at_s REAL",
)


def ids(run: int) -> tuple[int, int]:
    """Return the first id of a run's items, and the first one after them."""
    return run << SEQ_BITS, (run + 1) << SEQ_BITS


def has(database: sqlite3.Connection, table: str, column: str) -> bool:
    """Say whether a journal, which may be older and is only read, has that column."""
    return any(name == column for _, name, *_ in database.execute(f"PRAGMA table_info({table})"))


def migrate(database: sqlite3.Connection) -> None:
    """Bring an open journal to the present schema, in one transaction."""
    if version(database) >= len(STEPS):
        return
    database.execute("BEGIN IMMEDIATE")
    for step in STEPS[version(database) :]:  # another process may have been quicker
        for statement in step.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {len(STEPS)}")
    database.execute("COMMIT")


def check_file(at: Path, path: Path) -> None:
    """Refuse what is no file, before SQLite opens it: that waits for ever for whoever writes to a pipe.

    Args:
        at: Where it really is.
        path: What it is asked for by.

    Raises:
        JournalError: It is a folder, a pipe, a socket or a device.
    """
    if at.exists() and not at.is_file():
        what = "a folder: name a file in it" if at.is_dir() else "no file: choose another"
        msg = f"journal {str(path)!r} is {what}, with journal= or IPYBATCH_JOURNAL"
        raise JournalError(msg)


def check_ours(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours, or that this version does not understand, before anything is written to it.

    Raises:
        JournalError: It is such a file.
    """
    # In this order: another process may be making them, in one transaction.
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    seen = version(database)
    if tables and (seen == 0 or not {"run", "item", "payload"} <= tables):
        msg = f"journal {path} is not a journal of ours: move it away, or choose another journal="
        raise JournalCorrupt(msg)
    if seen > len(STEPS):
        msg = f"journal {path} was written by a later ipybatch: upgrade, or choose another journal="
        raise JournalError(msg)


def version(database: sqlite3.Connection) -> int:
    """Return how many steps the journal has seen."""
    (seen,) = database.execute("PRAGMA user_version").fetchone()
    return int(seen)
