"""Prompts: what a user writes, as what is sent for each item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ipybatch.errors import InputError


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent with every prompt.

    Attributes:
        system: The system instruction.
        config: The generation config, in the words of google-genai's `GenerateContentConfig`.
        schema: What answers must fit.
        modalities: What answers may hold: "TEXT", "IMAGE".
        lane: "online", "flex" or "batch".
    """

    system: str | None = None
    config: dict[str, Any] = {}
    schema: Any = None
    modalities: tuple[str, ...] = ()
    lane: str = "online"

    def settings(self) -> dict[str, Any]:
        """Return what is sent as JSON holds it; a change of it makes every item run again."""
        return {"system": self.system, "config": self.config, "modalities": list(self.modalities)}


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request's part of what is sent.

    Attributes:
        id: The item's key.
        parts: Text and images, in order.
        system: Its own system instruction; None for that of all.
        config: Its own generation config, over that of all.
        operation: What it is for, in the usage table.
        project: Whom it is for, in the usage table.
    """

    id: str | int
    parts: tuple[Any, ...]
    system: str | None = None
    config: dict[str, Any] = {}
    operation: str = "text"
    project: str = ""

    @property
    def text(self) -> str:
        """All its text."""
        return "\n".join([part for part in self.parts if isinstance(part, str)])

    @property
    def images(self) -> tuple[Any, ...]:
        """Its images."""
        return tuple(part for part in self.parts if not isinstance(part, str | dict))

    def wire(self, settings: Sending) -> dict[str, Any]:
        """Return the request as the service's JSON."""
        return {"contents": [{"role": "user", "parts": [{"text": part} for part in self.parts]}]}

    def arguments(self, settings: Sending) -> dict[str, Any]:
        """Return ``contents`` and ``config`` for the client's generate_content."""
        config = {"automatic_continuation": False, **settings.config, **self.config}
        return {"contents": self.wire(settings)["contents"], "config": config}


def to_prompts(
    prompts: Iterable[Any],
    *,
    template: str | None = None,
    key: str | Callable[[Any], Any] | None = None,
    operation: str = "text",
    project: str = "",
) -> list[Prompt]:
    """Return what is sent for each item.

    Raises:
        InputError: An item is no prompt; names its number, field and value.
    """
    made = []
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            msg = f"prompts[{number}] must be a text that is not empty, got {prompt!r}"
            raise InputError(msg)
        made.append(Prompt(id=prompt, parts=(prompt,), operation=operation, project=project))
    return made
