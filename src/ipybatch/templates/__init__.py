"""Templates: how work is done, under a name, in a file that people read and edit.

    session.save_template("night")                  what can be said of it as data, and the names of the rest
    BatchSession.from_template("night", items=...)  a session that does it again, with other items

template   what a template is, and what no template holds
shipped    those that come with ipybatch
toml_file  those of the user, one file each
policies   limits, retry and breaker as tables
values     arguments of Python as data, and functions by their names
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipybatch.templates import shipped, toml_file
from ipybatch.templates.template import NoSuchTemplate, Template, WrongField

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NoSuchTemplate", "Template", "WrongField", "delete", "load", "path", "save", "templates"]


def templates() -> pd.DataFrame:
    """Return one row per template: name, based_on, description, changed (UTC; NaT for one that ships with ipybatch).

    Those that ship come first.  A file that cannot be read is there, and its description says why.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = [(name, one.based_on, one.description, None) for name, one in shipped.SHIPPED.items()]
    for name, one in toml_file.read_all():
        with suppress(NoSuchTemplate):  # deleted meanwhile
            rows.append((name, one.based_on, one.description, toml_file.changed_s(name)))
    frame = pd.DataFrame(rows, columns=["name", "based_on", "description", "changed"])
    return frame.assign(changed=pd.to_datetime(frame["changed"].astype("float64"), unit="s", utc=True))


def load(name: str) -> Template:
    """Return a template, one of yours or one that ships with ipybatch.

    Raises:
        NoSuchTemplate: There is none of this name.
        WrongField: Its file is not what it must be; names the line or the key, its value and what it may be.
    """
    return shipped.SHIPPED[name] if name in shipped.SHIPPED else toml_file.read(name)


def save(name: str, template: Template) -> Path:
    """Write a template, in the place of the one of this name, and return its file: only you can read it.

    Raises:
        WrongField: The name is no safe name of a file, or that of one that ships; or the template holds what it must
            not, such as a key.
        OSError: It cannot be written.
    """
    return toml_file.write(name, template)


def delete(name: str) -> None:
    """Delete a template of yours.

    Raises:
        NoSuchTemplate: There is none of this name.
        WrongField: It ships with ipybatch.
        OSError: It cannot be deleted.
    """
    toml_file.delete(name)


def path(name: str) -> Path:
    """Return the file of a template of yours, which may not be there yet.

    Raises:
        WrongField: The name is no safe name of a file, or that of one that ships with ipybatch.
    """
    return toml_file.path_of(name)
