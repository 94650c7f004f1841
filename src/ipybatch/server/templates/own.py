"""Templates of the user's own, in submissions: what one says is as if the request had said it.

Rule: a template is a file that requests write too, so what it says is checked as a request is, and one that names code
is never submitted: a request must not choose what runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ipybatch.server.wire import SubmissionRequest
from ipybatch.templates import shipped, toml_file
from ipybatch.templates.policies import read_policies
from ipybatch.templates.template import OWN_CODE, NoSuchTemplate, Template, WrongField, check_template, merged
from ipybatch.templates.values import FUNCTIONS


def resolve(request: SubmissionRequest, kinds: Any) -> SubmissionRequest:
    """Return a request in which a template of the user's is what that template says; what the request says wins.

    Args:
        kinds: Names of templates that can be submitted as they are.

    Raises:
        WrongField: There is no such template, it names code or asks for more, or its file is not what it must be.
    """
    if request.template in kinds:
        return msgspec.structs.replace(request, priority=request.priority or "medium")
    try:
        template = toml_file.read(request.template)
    except WrongField as error:
        allowed, msg = None, str(error)
        if isinstance(error, NoSuchTemplate) or error.field == "name":
            allowed = [*kinds, *toml_file.names()]
            msg = f"template must be one of {', '.join(allowed)}, got {request.template[:60]!r}"
        raise WrongField("template", msg, value=request.template[:60], allowed=allowed) from None
    about = shipped.about(shipped.workload_of(template.based_on))
    check_can_be_submitted(request.template, template)
    own = {name: value for name, value in template.params.items() if name not in about.python_only}
    return msgspec.structs.replace(
        request,
        template=template.based_on,
        params=merged([own, request.params], about.replaces),
        start_at=template.start_at if request.start_at is None else request.start_at,
        zone=template.zone if request.start_at is None and request.zone is None else request.zone,
        priority=request.priority or template.priority or "medium",
        notify=template.notify if request.notify is None else request.notify,
    )


def check_can_be_submitted(name: str, template: Template) -> None:
    """Refuse to submit a template for Python alone.

    Raises:
        WrongField: Says what to do instead.
    """
    if template.based_on == OWN_CODE:
        msg = f"template {name!r} is for a function of your own, which a request must not choose"
        step = f"run it in Python: BatchSession.from_template({name!r}, items=...)"
        raise WrongField("template", msg, value=name, next_step=step)
    python_only = shipped.about(shipped.workload_of(template.based_on)).python_only
    if asked := [each for each in template.asks if each not in python_only]:
        msg = f"template {name!r} asks for {', '.join(asked)}, which no submission can give"
        step = f"run it in Python: BatchSession.from_template({name!r}, ...), or drop that from asks"
        raise WrongField("template", msg, value=name, next_step=step)


def check_own(template: Template, before: Template | None, kinds: Any) -> None:
    """Refuse a template that a request writes and that is not what it must be.

    Args:
        before: The template that it takes the place of; None for none.
        kinds: What can be submitted, by name.

    Raises:
        WrongField: A field is not what it must be, or names code that the one before does not.
        BatchError: It cannot be checked: a package is missing.
    """
    check_template(template)
    shipped.find_base(template.based_on)
    if template.based_on == OWN_CODE:
        _check_code(template, {} if before is None else before.params)
        return
    python_only = shipped.about(shipped.workload_of(template.based_on)).python_only
    kinds[template.based_on].check_params(
        {name: value for name, value in template.params.items() if name not in python_only}
    )


def _check_code(template: Template, before: dict[str, Any]) -> None:
    """Refuse a template for a function of the user's own that a request must not write, or that makes no session."""
    from ipybatch.session.session import BatchSession

    arguments = dict(template.params)
    for name in FUNCTIONS:
        if name in arguments and arguments[name] != before.get(name):
            msg = f"params.{name} must be left out: a request must not choose code"
            step = "save the template in Python, or write it into its file"
            raise WrongField(f"params.{name}", msg, value=arguments[name], next_step=step)
        if name in arguments or name in template.asks:
            arguments[name] = _nothing
    arguments.pop("work", None)
    try:
        BatchSession("ipybatch check", _work, [], **read_policies(arguments))
    except WrongField:
        raise
    except (ValueError, TypeError) as error:
        words = str(error).replace("'", " ").split()
        field = next((f"params.{word}" for word in words if word in template.params), "params")
        raise WrongField(field, f"{field}: {error}", value=template.params.get(field.removeprefix("params."))) from None


_nothing: Callable[..., Any] = str


async def _work(item: Any) -> None:
    """Stand in for a function of the user's."""
