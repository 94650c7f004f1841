"""Templates: the routes of those that are shipped, and of the user's own.

GET /templates               both
    /templates/NAME          one: what its file says, as JSON; PUT writes it, DELETE deletes it

A template is checked when it is written as a submission of it would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.store.config_folder import writing
from ipybatch.server.handler import (
    IF_NONE_MATCH,
    RESOURCE,
    Handler,
    Operation,
    Parameter,
    encode,
    etag_of,
)
from ipybatch.server.refusal import Refusal
from ipybatch.server.submission_order import check_common
from ipybatch.server.templates import check_own
from ipybatch.server.templates.own import check_can_be_submitted
from ipybatch.server.wire import SubmissionRequest, TemplateItem, TemplateList
from ipybatch.templates import shipped, toml_file
from ipybatch.templates.template import NoSuchTemplate, Template, WrongField, check_name

_IF_MATCH = Parameter("If-Match", "The ETag of the template as it was read; needed where there is one.", where="header")
_ONLY_NEW = Parameter("If-None-Match", "*: only where there is none of this name.", where="header")
_LIST = "GET /ipybatch/api/v1/templates lists those there are"


class TemplatesHandler(Handler):
    """GET /templates."""

    operations: ClassVar = {
        "GET": Operation(
            summary="All templates: those that are shipped, and the user's own",
            answers={200: TemplateList},
            parameters=(IF_NONE_MATCH,),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List them."""
        self.answer(await self.blocking(listed), etag=True)


class TemplateHandler(Handler):
    """GET, PUT, DELETE /templates/NAME."""

    operations: ClassVar = {
        "GET": Operation(
            summary="One template, as PUT takes it",
            answers={200: Template},
            refuses=(404, 422),
            parameters=(IF_NONE_MATCH,),
        ),
        "PUT": Operation(
            summary="Write a template of the user's own",
            answers={200: Template, 201: Template},
            refuses=(409, 412, 415, 422, 428, 503),
            parameters=(_IF_MATCH, _ONLY_NEW),
            body=Template,
        ),
        "DELETE": Operation(
            summary="Delete a template of the user's own",
            answers={204: None},
            refuses=(404, 409, 412, 422, 428, 503),
            parameters=(_IF_MATCH,),
        ),
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, template: str) -> None:
        """Tell it."""
        self.answer(await self.blocking(find, template), etag=True)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def put(self, template: str) -> None:
        """Write it."""
        asked = await self.blocking(self.body, Template)
        is_new = await self.checking(write, template, asked, self.check_tag)
        tag = {"ETag": etag_of(encode(asked))}
        self.answer(asked, 201 if is_new else 200, headers={**tag, "Location": self.request.path} if is_new else tag)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, template: str) -> None:
        """Delete it."""
        await self.blocking(remove, template, self.check_tag)
        self.set_status(204)
        self.finish()

    def check_tag(self, tag: str) -> None:
        """Refuse to change a template that the client does not know as it is.

        Args:
            tag: Its ETag; "" where there is none of this name.

        Raises:
            Refusal: It was not read, is not any more as it was read, or is not to be there.
        """
        headers = self.request.headers
        if tag and headers.get("If-None-Match"):
            step = "choose another name, or send the ETag of that template as If-Match"
            raise Refusal(412, "there is such a template already", field="If-None-Match", value="*", next_step=step)
        if not tag and (wanted := headers.get("If-Match", "")):
            step = "leave If-Match out to make it"
            raise Refusal(412, "there is no such template", field="If-Match", value=wanted, next_step=step)
        if tag:
            self.check_match(tag, what="template")


def listed() -> TemplateList:
    """Return all templates."""
    items = [
        TemplateItem(
            name=name,
            kind="shipped",
            based_on=one.based_on,
            description=one.description,
            can=["submit"],
            changed=None,
        )
        for name, one in shipped.SHIPPED.items()
    ]
    return TemplateList(items=[*items, *_own()])


def _own() -> Iterator[TemplateItem]:
    for name in toml_file.names():
        with suppress(NoSuchTemplate):  # deleted meanwhile
            yield _item(name)


def _item(name: str) -> TemplateItem:
    changed = toml_file.as_text(toml_file.changed_s(name))
    try:
        one = toml_file.read(name)
    except NoSuchTemplate:
        raise
    except WrongField as error:
        return TemplateItem(
            name=name, kind="own", based_on="", description="", can=["edit"], changed=changed, error=str(error)
        )
    reason = ""
    try:
        check_can_be_submitted(name, one)
    except WrongField as error:
        reason = f"{error}: {error.next_step}".removeprefix(f"template {name!r} ")
    return TemplateItem(
        name=name,
        kind="own",
        based_on=one.based_on,
        description=one.description,
        can=["edit"] if reason else ["submit", "edit"],
        changed=changed,
        reason=reason,
    )


def find(name: str) -> Template:
    """Return a template.

    Raises:
        Refusal: There is none of this name.
        WrongField: Its file is not what it must be.
    """
    if name in shipped.SHIPPED:
        return shipped.SHIPPED[name]
    try:
        check_name(name)
        return toml_file.read(name)
    except WrongField as error:
        if error.field in ("name", "template"):
            raise _not_there() from None
        raise


def write(name: str, template: Template, check_tag: Callable[[str], None]) -> bool:
    """Write a template, and say whether it is new.

    Args:
        check_tag: Refuses to change what has this ETag; "" for nothing.

    Raises:
        Refusal: It is shipped, or not there any more as it was read, or there, or cannot be written.
        BatchError: It is not what it must be.
    """
    _check_own(name)
    check_name(name)
    with _writing():
        before, tag = _before(name)
        check_tag(tag)
        check_own(template, before)
        apart = {field: getattr(template, field) for field in ("start_at", "zone", "notify")}
        check_common(SubmissionRequest(template="text", **apart))
        toml_file.write(name, template)
    return not tag


def remove(name: str, check_tag: Callable[[str], None]) -> None:
    """Delete a template.

    Args:
        check_tag: As of `write`.

    Raises:
        Refusal: It is shipped, is not there or not as it was read, or cannot be deleted.
    """
    _check_own(name)
    try:
        check_name(name)
    except WrongField:  # no template has such a name
        raise _not_there() from None
    with _writing():
        _, tag = _before(name)
        if not tag:
            raise _not_there()
        check_tag(tag)
        toml_file.delete(name)


def _check_own(name: str) -> None:
    if shipped.is_shipped(name):
        msg = f"template {name!r} is shipped with ipybatch, and stays as it is"
        raise Refusal(409, msg, field="name", value=name, next_step="PUT it under another name")


def _not_there() -> Refusal:
    return Refusal(404, "there is no such template", next_step=_LIST)


def _before(name: str) -> tuple[Template | None, str]:
    """Return the template that is there, and its ETag, "" for none; a file that cannot be used has an ETag too."""
    try:
        found = toml_file.read(name)
    except NoSuchTemplate:
        return None, ""
    except WrongField as error:
        return None, etag_of(str(error).encode())
    return found, etag_of(encode(found))


@contextmanager
def _writing() -> Iterator[None]:
    """Let no other request, server or script write meanwhile.

    Raises:
        Refusal: The file or its folder cannot be written.
    """
    try:
        with writing():
            yield
    except OSError as error:
        step = "see whether the folder of the user's settings can be written"
        raise Refusal(503, f"the template cannot be written: {error.strerror}", next_step=step) from None
