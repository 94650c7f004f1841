"""Open files: the journals and limits that this process has open, and how a test lets them go.

A kernel keeps its few to its end.  All tests together would keep thousands of
descriptors, where a system may allow 1,024.
"""

from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import resources


def open_files():
    """Return all that are open."""
    return [*journals._open_journals.values(), *resources._stores.values()]


def close_files(but=()):
    """Close all but some that were open before."""
    for path, journal in list(journals._open_journals.items()):
        if journal not in but:
            close_journal(path)
    forget_limits(but)


def close_journal(path):
    """Close one, if it is open."""
    opened = journals._open_journals.pop(path, None)
    if opened is not None:
        opened.close()


def forget_limits(but=()):
    """Know what a new process knows of limits: nothing, or only of some stores."""
    for key, resource in list(resources._resources.items()):
        if resource.limiter.store not in but:
            del resources._resources[key]
    for home, store in list(resources._stores.items()):
        if store not in but:
            del resources._stores[home]
            store.close()
