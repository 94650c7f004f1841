"""Limit schema: the tables of ``limits.sqlite3``, and how they are asked.

resource  one row a resource or limit group: its last start, its cool-down, when and by whom it was last written;
          `changed` counts the changes of its owners
owner     who uses it, within which limits, and until when that holds
flight    what each owner has in flight, by unit; its attempts stand under the unit ''
claim     who asked in vain, since when, and when it asks again
spent     what was answered, as running totals by unit: what a window holds is the difference of two of them
grace     until when nothing starts, because the file was deleted while it was in use
"""

from __future__ import annotations

import sqlite3

import msgspec

VERSION = 1

SCHEMA = """
    CREATE TABLE resource (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        changed INTEGER NOT NULL DEFAULT 0,
        last_s REAL NOT NULL,
        unix_s REAL NOT NULL,
        started_s REAL NOT NULL,
        cool_until_s REAL NOT NULL,
        why TEXT NOT NULL DEFAULT '',
        spender TEXT NOT NULL DEFAULT '',
        answered INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        resource INTEGER NOT NULL,
        name TEXT NOT NULL,
        label TEXT NOT NULL,
        bounds TEXT NOT NULL,
        until_s REAL NOT NULL,
        UNIQUE (resource, name)
    );
    CREATE TABLE flight (
        resource INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        unit TEXT NOT NULL,
        cost REAL NOT NULL,
        PRIMARY KEY (resource, owner, unit)
    ) WITHOUT ROWID;
    CREATE TABLE claim (
        resource INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        since_s REAL NOT NULL,
        asks_s REAL NOT NULL,
        until_s REAL NOT NULL,
        of_slot INTEGER NOT NULL,
        PRIMARY KEY (resource, owner)
    ) WITHOUT ROWID;
    CREATE TABLE spent (
        resource INTEGER NOT NULL,
        unit TEXT NOT NULL,
        at_s REAL NOT NULL,
        total REAL NOT NULL,
        PRIMARY KEY (resource, unit, at_s, total)
    ) WITHOUT ROWID;
    CREATE TABLE grace (until_s REAL NOT NULL)
"""
LAST = "SELECT at_s, total FROM spent WHERE resource = ? AND unit = ? ORDER BY at_s DESC, total DESC LIMIT 1"
BEFORE = "SELECT total FROM spent WHERE resource = ? AND unit = ? AND at_s <= ? ORDER BY at_s DESC, total DESC LIMIT 1"
REACHED = (
    "SELECT at_s FROM spent WHERE resource = ? AND unit = ? AND at_s > ? AND total >= ? ORDER BY at_s, total LIMIT 1"
)
RESOURCE = (
    "SELECT id, changed, last_s, unix_s, started_s, cool_until_s, why, spender, answered FROM resource WHERE name = ?"
)
RUNNING = ""  # the unit of attempts
CLAIMS = (
    "SELECT claim.owner, since_s, asks_s, until_s, of_slot, coalesce(cost, 0) FROM claim LEFT JOIN flight"
    " ON flight.resource = claim.resource AND flight.owner = claim.owner AND unit = '' WHERE claim.resource = ?"
)


class Row(msgspec.Struct):
    """A resource as it stands, in a transaction."""

    id: int
    changed: int
    last_s: float
    unix_s: float
    started_s: float
    cool_until_s: float
    why: str
    spender: str
    answered: int  # since old answers were thinned out


def version(database: sqlite3.Connection) -> int:
    """Return which version of the tables a file has; 0 for none."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def make(database: sqlite3.Connection) -> None:
    """Make the tables, in a transaction, where there are none."""
    if version(database) == VERSION:
        return
    for statement in SCHEMA.split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
