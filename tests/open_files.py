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
            del journals._open_journals[path]
            journal.close()
    forget_limits(but)


def forget_limits(but=()):
    """Know what a new process knows of limits: nothing, or only of some stores."""
    for key, resource in list(resources._resources.items()):
        if resource.limiter.store not in but:
            del resources._resources[key]
    for home, store in list(resources._stores.items()):
        if store not in but:
            del resources._stores[home]
            store.close()
