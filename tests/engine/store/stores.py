"""Runs that are taken for a test, and what is recorded of them."""

from ipybatch.engine.data.events import Counts
from ipybatch.engine.store import run_store

NOW_S = 1_700_000_000.0


def take(
    book,
    name="wishlist",
    *,
    now_s=NOW_S,
    resource="store",
    counts=None,
    unix_s=lambda: NOW_S,
    **arguments,
):
    """Take a session's run and begin it, as a session does."""
    with taking(book, name, now_s=now_s, resource=resource, unix_s=unix_s) as store:
        store.begin(counts or Counts(), now_s=now_s, **arguments)
    return store


def taking(book, name="wishlist", *, now_s=NOW_S, resource="store", **arguments):
    return run_store.taken(book, name, now_s=now_s, resource=resource, group_word="Batch", **arguments)


def close(store, state="completed", reason="", counts=None, *, now_s=NOW_S, seconds=1.0, **arguments):
    """End a run, and return what was said of it."""
    told = []
    store.close(
        state, reason, counts or Counts(), now_s=now_s, seconds=seconds, listing=None, done=told.append, **arguments
    )
    store.journal.write(lambda _: None)  # whatever was queued before has been told
    return told


def rows(book, select):
    with book.reader() as database:
        return database.execute(select).fetchall()
