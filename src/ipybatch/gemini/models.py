"""Models: what a user may say of one, and in which order they are used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ipybatch.engine.data.policy import check
from ipybatch.errors import InputError

DEFAULT = "gemini-2.5-flash"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what is known of its quotas.

    Attributes:
        name: As Google has it, "gemini-2.5-flash".
        rpm: Requests a minute, >= 1; None: learnt from the service's answers.
        tpm: Input tokens a minute, >= 1; None: likewise.
        priority: Lower ones are used first; the next one when the day's quota of one is used up.

    Raises:
        InputError: The name is none, or a quota is below 1; the message names the field.
    """

    name: str
    rpm: float | None = None
    tpm: float | None = None
    priority: int = 1

    def __post_init__(self) -> None:
        name = self.name.removeprefix("models/") if isinstance(self.name, str) else self.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            msg = f"model must be a name such as {DEFAULT!r}, got {self.name!r}"
            raise InputError(msg)
        object.__setattr__(self, "name", name)
        for field, value in (("rpm", self.rpm), ("tpm", self.tpm)):
            if value is not None:
                check(field, value, low=1)
        check("priority", self.priority, low=-math.inf)


def choose(model: str | Model | None, models: Iterable[str | Model] | None) -> list[Model]:
    """Return the models to use, the first one first.

    Raises:
        InputError: Both are given, or none of ``models``, or one twice.
    """
    if model is not None and models is not None:
        msg = f"give model= or models=, not both: got {model!r} and {models!r}"
        raise InputError(msg)
    listed = [model if model is not None else DEFAULT] if models is None else list(models)
    if isinstance(models, str) or not listed:
        msg = f"models must be a list of names or Model(...), got {models!r}"
        raise InputError(msg)
    made = [one if isinstance(one, Model) else Model(one) for one in listed]
    names = [one.name for one in made]
    if len(set(names)) < len(names):
        msg = f"models must differ, got {', '.join(names)}"
        raise InputError(msg)
    return sorted(made, key=lambda one: one.priority)
