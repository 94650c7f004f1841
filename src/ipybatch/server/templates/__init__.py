"""Templates: what can be submitted, by name.

    check    in the server, before anything is spent: all that is wrong is said now, by field
    quote    what it would take; nothing is reserved
    session  in the kernel: the session that does it
    used     the credits of what it did

- `template`: what all of them share: parameters, addresses, errors that name a field.
- `own`: templates of the user's, each based on one of these.
- `generation`: the five kinds of Gemini; `library_refresh`; `demand`: forecasts of an uploaded table.

Nothing here imports Jupyter's server: a kernel and cron call it too.  The packages that a template needs are loaded
with its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipybatch.server.templates import own
from ipybatch.server.templates.demand import Forecast
from ipybatch.server.templates.generation import Generate
from ipybatch.server.templates.library_refresh import Refresh
from ipybatch.server.templates.template import Checked, Template
from ipybatch.server.wire import SubmissionRequest
from ipybatch.templates.shipped import SHIPPED
from ipybatch.templates.template import Template as OwnTemplate
from ipybatch.templates.template import WrongField

__all__ = ["TEMPLATES", "Checked", "Template", "WrongField", "check_own", "find_template", "resolve"]

_OF_WORKLOAD: Mapping[str, type[Template]] = MappingProxyType({"refresh": Refresh, "forecast": Forecast})
TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {name: _OF_WORKLOAD[name]() if name in _OF_WORKLOAD else Generate(name) for name in SHIPPED}
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


def resolve(request: SubmissionRequest) -> SubmissionRequest:
    """Return a request in which a template of the user's is what it says; what the request itself says wins.

    Params are merged by key.  A stored request stays as it came: it is resolved when it is submitted.

    Raises:
        WrongField: There is no such template, it cannot be submitted, or its file is not what it must be.
    """
    return own.resolve(request, TEMPLATES)


def check_own(template: OwnTemplate, before: OwnTemplate | None) -> None:
    """Refuse a template that a request writes and that is not what it must be: as a submission of it would.

    Args:
        before: The template that it takes the place of; None for none.

    Raises:
        WrongField: A field is not what it must be, or names code that the one before does not.
        BatchError: It cannot be checked: a package is missing.
    """
    own.check_own(template, before, TEMPLATES)
