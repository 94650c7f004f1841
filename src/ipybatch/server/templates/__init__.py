"""Templates: what can be submitted, by name.

    check    in the server, before anything is spent: all that is wrong is said now, by field
    quote    what it would take; nothing is reserved
    session  in the kernel: the session that does it
    used     the credits of what it did

- `template`: what all of them share: parameters, addresses, errors that name a field.
- `generation`: the five kinds of Gemini; `library_refresh`; `demand`: forecasts of an uploaded table.

Nothing here imports Jupyter's server: a kernel and cron call it too.  The packages that a template needs are loaded
with its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipybatch.server.templates.demand import Forecast
from ipybatch.server.templates.generation import Generate
from ipybatch.server.templates.library_refresh import Refresh
from ipybatch.server.templates.template import Checked, Template, WrongField

__all__ = ["TEMPLATES", "Checked", "Template", "WrongField", "find_template"]

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        **{kind: Generate(kind) for kind in ("character", "food", "product", "text-to-image", "text")},
        "refresh": Refresh(),
        "forecast": Forecast(),
    }
)


def find_template(name: str) -> Template:
    """Return the template of that name.

    Raises:
        WrongField: There is none.
    """
    try:
        return TEMPLATES[name]
    except KeyError:
        allowed = list(TEMPLATES)
        msg = f"template must be one of {', '.join(allowed)}, got {name[:60]!r}"
        raise WrongField("template", msg, value=name, allowed=allowed) from None
