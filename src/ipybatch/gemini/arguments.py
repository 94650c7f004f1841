"""Arguments of `generate`: the settings of each lane, and all that stands behind the first six.

    lane=Batch(poll_s=5)    --+
    lane="batch", poll_s=5  --+--read_lane--> LaneSettings --> session
                                                  +--recorded--> journal --> the same session goes on

Where a new argument goes:

a setting of one lane   a field of `Online`, `Flex`, `Batch` or `Auto`, handed on by `LaneSettings`
anything else           a line of `GenerateArguments` under its heading, a function here that checks it, a line of
                        `generate`'s docstring, and, if it is to hold when the session goes on with its prompts alone,
                        its name in `RECORDED`

`LaneArguments` are settings of lanes as keywords of `generate`: older than the classes, and shorter for a single one.
No more are added.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, get_args

import msgspec

from ipybatch.engine.data.plan import short
from ipybatch.engine.data.policy import check, check_count, keep
from ipybatch.engine.data.spec import Backend
from ipybatch.errors import InputError
from ipybatch.gemini.batch.pending import BatchPolicy
from ipybatch.gemini.batch.spool import MAX_REQUESTS
from ipybatch.gemini.lanes import Lane
from ipybatch.gemini.money.credits import CreditAccount
from ipybatch.gemini.money.prices import Prices
from ipybatch.gemini.money.tokens import MOST_INPUT_TOKENS, estimate_input
from ipybatch.gemini.prompts import IN_CONFIG, Prompt
from ipybatch.gemini.service.pacer import DEFAULT_MODEL, Model, choose_models
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.session.arguments import SessionArguments
from ipybatch.session.workload import recordable

FALLBACKS = ("online", "batch", None)
MOST_SAMPLES = 1000  # of a prompt
FIRST = ("model", "lane", "template", "system", "schema", "config")  # in the signature of `generate`


def _check_pace(lane: Online | Flex) -> None:
    if lane.concurrency is not None:
        keep(lane, concurrency=check_count("concurrency", lane.concurrency, low=1))
    if not isinstance(lane.sequential, bool):
        msg = f"sequential must be True or False, got {short(lane.sequential)}"
        raise InputError(msg)


def _check_flex(tries: Any, fallback: Any, prefix: str = "") -> int:
    """Return the number of tries."""
    count = check_count(f"{prefix}tries", tries, low=1)
    if fallback not in FALLBACKS and (prefix or not isinstance(fallback, Batch)):
        msg = f"{prefix}fallback must be one of {', '.join(map(repr, FALLBACKS))}, got {short(fallback)}"
        raise InputError(msg)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """Lane "online" with settings: at once, full price.

    Attributes:
        concurrency: Requests in flight, >= 1; None: from quota and latency, 3 to 10.
        sequential: Whether to send five at a time, the next five when all are answered.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    word: ClassVar[Lane] = "online"
    concurrency: int | None = None
    sequential: bool = False

    def __post_init__(self) -> None:
        _check_pace(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lane "batch" with settings: within a day, half price.

    Attributes:
        max_requests_per_job: Prompts in one batch job, >= 1.
        max_active_jobs: Batch jobs at the same time, >= 1.
        poll_s: Time to the first poll of a job, seconds; grows by half each time, up to 300.
        wait_s: Longest wait for jobs, seconds; then they are left running, and the same call picks them up.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    word: ClassVar[Lane] = "batch"
    max_requests_per_job: int = MAX_REQUESTS
    max_active_jobs: int = 10
    poll_s: float = 30.0
    wait_s: float = 7200.0

    def __post_init__(self) -> None:
        keep(self, max_requests_per_job=check_count("max_requests_per_job", self.max_requests_per_job, low=1))
        keep(self, max_active_jobs=check_count("max_active_jobs", self.max_active_jobs, low=1))
        keep(self, poll_s=check("poll_s", self.poll_s, low=0, above=True))
        keep(self, wait_s=check("wait_s", self.wait_s, low=0, above=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flex:
    """Lane "flex" with settings: at once if there is room, half price.

    Attributes:
        tries: Tries while flex has no room, >= 1.
        fallback: The lane after these tries: "online", "batch" or `Batch` with settings; None: the prompt fails, and
            runs again with the session.
        concurrency: Requests in flight, those of the fallback included, >= 1; None: from quota and latency, 3 to 10.
        sequential: Whether to send five at a time, the next five when all are answered.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    word: ClassVar[Lane] = "flex"
    tries: int = 3
    fallback: Literal["online", "batch"] | Batch | None = "online"
    concurrency: int | None = None
    sequential: bool = False

    def __post_init__(self) -> None:
        keep(self, tries=_check_flex(self.tries, self.fallback))
        _check_pace(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """Lane "auto" with settings: by batch, then flex, then online, each left early enough to meet the deadline.

    Attributes:
        deadline_s: Time from the start to the deadline, seconds, > 0; None: there is no deadline.
        batch: Settings of its batch jobs.
        flex: Settings of flex, and of online after it.

    Raises:
        InputError: A value is invalid; the message names the field.
    """

    word: ClassVar[Lane] = "auto"
    deadline_s: float | None = None
    batch: Batch = Batch()
    flex: Flex = Flex()

    def __post_init__(self) -> None:
        if self.deadline_s is not None:
            keep(self, deadline_s=check("deadline_s", self.deadline_s, low=0, above=True))
        for field, value, kind in (("batch", self.batch, Batch), ("flex", self.flex, Flex)):
            if not isinstance(value, kind):
                msg = f"{field} must be {kind.__name__}(...), got {short(value)}"
                raise InputError(msg)
        if self.flex.sequential:
            msg = 'flex must not be sequential here: that is for lane "online" or "flex"'
            raise InputError(msg)
        if self.flex.fallback not in ("online", None):
            msg = f"flex must have fallback 'online' or None here, got {self.flex.fallback!r}: the batch comes first"
            raise InputError(msg)


class LaneArguments(TypedDict, total=False):
    """Settings of lanes as keywords of `generate`, for a lane that is a word."""

    concurrency: int | None
    sequential: bool
    flex_tries: int
    flex_fallback: Literal["online", "batch"] | None
    max_requests_per_job: int
    max_active_jobs: int
    poll_s: float
    wait_s: float
    deadline_s: float | None


class GenerateArguments(LaneArguments, SessionArguments, total=False):
    """Arguments of `generate` behind the first six; its docstring says what they mean."""

    # models, prompts and answers
    models: Iterable[str | Model] | None
    modalities: Iterable[str]
    key: str | Callable[[Any], Any] | None
    images_to: str | Path | Literal[False] | None
    keep: Literal["reply"] | None
    samples: int
    again: str | Iterable[str] | Mapping[str, int] | None
    fallback: str | Model | None
    # labels
    operation: str
    project: str
    # money
    output_tokens: float
    budget_usd: float | None
    account: CreditAccount | None
    prices: Prices | None
    # the service
    api_key: str | None
    base_url: str | None
    client: Any
    backend: Backend | None
    # the session
    name: str | None
    replace: bool


# What is recorded beside the lane, so that the session can go on with its prompts alone; never a key.  `generate` adds
# the names of models and folder.
RECORDED = (
    "system",
    "config",
    "schema",
    "template",
    "modalities",
    "key",
    "keep",
    "samples",
    "again",
    "fallback",
    "operation",
    "project",
    "output_tokens",
    "budget_usd",
    "prices",
    "account",
    "client",
    "base_url",
)


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The lane of a session, and the settings of all lanes that its prompts may take.

    Attributes:
        lane: The lane.
        flex: Settings of flex; its concurrency and ``sequential`` are those of online too.
        batch: Settings of batch jobs.
        deadline_s: Time from the start to the deadline, seconds; None: there is no deadline.
    """

    lane: Lane
    flex: Flex
    batch: Batch
    deadline_s: float | None = None

    @property
    def fallback(self) -> Literal["online", "batch"] | None:
        """The lane after flex."""
        return "batch" if isinstance(self.flex.fallback, Batch) else self.flex.fallback

    @property
    def policy(self) -> BatchPolicy:
        """The limits of batch jobs."""
        batch = self.batch
        return BatchPolicy(
            max_requests=batch.max_requests_per_job,
            max_active=batch.max_active_jobs,
            poll_s=batch.poll_s,
            wait_s=batch.wait_s,
        )

    def keywords(self) -> dict[str, Any]:
        """Return them as keywords of `generate`, whichever way they were given."""
        flex, batch = self.flex, self.batch
        return {
            "lane": self.lane,
            "concurrency": flex.concurrency,
            "sequential": flex.sequential,
            "flex_tries": flex.tries,
            "flex_fallback": self.fallback,
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            "deadline_s": self.deadline_s,
        }


def read_lane(lane: Any, given: Mapping[str, Any]) -> LaneSettings:
    """Return the lane that a user chose, with its settings.

    Args:
        lane: A word, or one of the lanes' classes.
        given: Arguments of `generate`.

    Raises:
        InputError: A setting is invalid, not for this lane, or given twice.
    """
    if isinstance(lane, Online | Flex | Batch | Auto):
        _check_once(lane, given)
        settings = _read_object(lane)
    elif isinstance(lane, str) and lane in get_args(Lane):
        settings = _read_word(lane, given)
    else:
        words = ", ".join(map(repr, get_args(Lane)))
        others = "" if isinstance(lane, str) else ", Online(...), Flex(...), Batch(...), Auto(...)"
        msg = f"lane must be one of {words}{others}, got {short(lane)}"
        raise InputError(msg)
    if settings.lane == "batch" and given.get("timeout_s") is not None:
        msg = "timeout_s is for one request: a batch job has wait_s, after which it is left running"
        raise InputError(msg)
    return settings


def check_names(arguments: Mapping[str, Any]) -> None:
    """Refuse keywords that `generate` does not know, as Python does for those of a signature.

    Raises:
        TypeError: Names the keyword, and the one that was probably meant.
    """
    known = [*FIRST, *GenerateArguments.__annotations__]
    for name in arguments:
        if name not in GenerateArguments.__annotations__:
            meant = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {meant[0]!r}?" if meant else ""
            hint = f": pass config={{{name!r}: ...}}" if name in IN_CONFIG else hint
            msg = f"generate() got an unexpected keyword argument {name!r}{hint}"
            raise TypeError(msg)


def for_session(arguments: Mapping[str, Any]) -> SessionArguments:
    """Return the arguments that every session takes."""
    names = SessionArguments.__annotations__
    found: SessionArguments = {name: value for name, value in arguments.items() if name in names}  # type: ignore[assignment]  # by name
    return found


def check_sizes(prompts: list[Prompt], request_config: RequestConfig) -> None:
    """Refuse prompts that are longer than a model takes.

    Raises:
        InputError: Names the first one.
    """
    for number, prompt in enumerate(prompts):
        if (tokens := estimate_input(prompt, request_config)) > MOST_INPUT_TOKENS:
            msg = f"prompt {number} must have <= {MOST_INPUT_TOKENS:,} tokens, got about {tokens:,}: cut it"
            raise InputError(msg)


def read_fallback(fallback: Any, models: list[Model]) -> str | None:
    """Return the name of the model for what was blocked; None for none.

    Raises:
        InputError: It is no model, or one of those that are asked first.
    """
    if fallback is None:
        return None
    try:
        (one,) = choose_models(fallback, None)
    except InputError as error:
        raise InputError(str(error).replace("model must", "fallback must", 1)) from None
    if one.name in (model.name for model in models):
        msg = f"fallback must be another model than those that are asked first, got {one.name!r}"
        raise InputError(msg)
    return one.name


def check_images(images_to: Any, prompts: list[Prompt], models: list[str], request_config: RequestConfig) -> None:
    """Refuse prompts that ask for images which have no place to go: they would be paid for and lost.

    Raises:
        InputError: Says who asks for an image, and what to pass.
    """
    if images_to is not None:
        return
    draws = next((name for name in models if "-image" in name), None)  # unless it is told otherwise
    common = request_config.generation({})
    for number, prompt in enumerate(prompts):
        asked = (request_config.generation(prompt.config) if prompt.config else common).get("responseModalities")
        if "IMAGE" in asked if asked else draws:
            why = f"prompt {number} asks for an image" if asked else f"{draws} answers with images"
            msg = (
                f'images_to must say where images go, as {why}: pass a folder, such as images_to="pictures",'
                " or images_to=False to throw them away"
            )
            raise InputError(msg)


def read_keep(keep: Any) -> bool:
    """Say whether whole replies are kept.

    Raises:
        InputError: ``keep`` is another word.
    """
    if keep not in (None, "reply"):
        msg = f"keep must be 'reply' or None, got {short(keep)}"
        raise InputError(msg)
    return keep is not None


def read_samples(samples: Any) -> int:
    """Return the number of answers of each prompt.

    Raises:
        InputError: ``samples`` is out of range.
    """
    return check_count("samples", samples, low=1, high=MOST_SAMPLES)


def recorded(given: Mapping[str, Any], settings: LaneSettings) -> dict[str, Any]:
    """Return what the journal holds beside a session's name, as keywords of `generate`.

    Args:
        given: Arguments of `generate`.
        settings: Its lane.
    """
    kept = settings.keywords() | {name: given[name] for name in RECORDED if name in given}
    return recordable(kept, tuple(kept))


def going_on(about: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a session that goes on: what is recorded, and what is given anew in its place."""
    replaced = set()
    if "model" in arguments:
        replaced.add("models")
    lane = arguments.get("lane", "auto")
    if lane != "auto":
        replaced.update(["deadline_s"] if isinstance(lane, str) else LaneArguments.__annotations__)
    return {**{field: value for field, value in about.items() if field not in replaced}, **arguments}


def described(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `generate` in which the lane is a word with its settings, and models are names."""
    settings = read_lane(given.get("lane", "online"), given)
    usual = read_lane(settings.lane, {}).keywords()
    changed = {name: value for name, value in settings.keywords().items() if value != usual[name]}
    found = {name: value for name, value in given.items() if name not in LaneArguments.__annotations__}
    found |= {"operation": "text", **found, **changed, "lane": settings.lane}
    if found.get("models") is not None:
        found["models"] = [_as_name(one) for one in found["models"]]
    else:
        found["model"] = _as_name(found.get("model") or DEFAULT_MODEL)
    return found


def _as_name(model: Any) -> Any:
    return model.name if isinstance(model, Model) and model == Model(model.name) else model


def from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters of a template as arguments of `generate`: fields of the config may stand beside it.

    Raises:
        InputError: One stands in both places.
    """
    inside = {name: params[name] for name in IN_CONFIG if params.get(name) is not None}
    found = {name: value for name, value in params.items() if name not in IN_CONFIG}
    config = found.get("config") or {}
    if both := sorted(inside.keys() & config.keys()):
        msg = f"{both[0]} must be given once, beside config or in it"
        raise InputError(msg)
    return {**found, "config": {**config, **inside}} if inside else found


def _read_object(lane: Online | Flex | Batch | Auto) -> LaneSettings:
    if isinstance(lane, Auto):
        return LaneSettings(lane="auto", flex=lane.flex, batch=lane.batch, deadline_s=lane.deadline_s)
    if isinstance(lane, Batch):
        return LaneSettings(lane="batch", flex=Flex(), batch=lane)
    if isinstance(lane, Online):
        flex = Flex(concurrency=lane.concurrency, sequential=lane.sequential)
        return LaneSettings(lane="online", flex=flex, batch=Batch())
    return LaneSettings(lane="flex", flex=lane, batch=lane.fallback if isinstance(lane.fallback, Batch) else Batch())


def _read_word(lane: Any, given: Mapping[str, Any]) -> LaneSettings:
    deadline_s, sequential = given.get("deadline_s"), bool(given.get("sequential"))
    if deadline_s is not None:
        deadline_s = check("deadline_s", deadline_s, low=0, above=True)
        if lane != "auto":
            msg = f'deadline_s needs lane="auto", got lane={lane!r}'
            raise InputError(msg)
    if sequential and lane not in ("online", "flex"):
        msg = f'sequential=True is for lane "online" or "flex", got {lane!r}'
        raise InputError(msg)
    tries, fallback = given.get("flex_tries", 3), given.get("flex_fallback", "online")
    count = _check_flex(tries, fallback, prefix="flex_")
    flex = Flex(tries=count, fallback=fallback, concurrency=given.get("concurrency"), sequential=sequential)
    jobs = {field.name: given[field.name] for field in fields(Batch) if field.name in given}
    return LaneSettings(lane=lane, flex=flex, batch=Batch(**jobs), deadline_s=deadline_s)


def _check_once(lane: Online | Flex | Batch | Auto, given: Mapping[str, Any]) -> None:
    for name in LaneArguments.__annotations__:
        if given.get(name) is not None:
            kind = type(lane).__name__
            msg = f'give {name}= beside lane="{lane.word}", or settings in lane={kind}(...), not both'
            raise InputError(msg)
