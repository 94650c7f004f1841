"""Templates of Gemini: characters, food, products, images from texts, and texts.

    {"prompt": "A red fox", "imageBase64": "iVBORw0..."}    a request; a text alone will do

With the parameter ``template`` a request is an object with what the template names.

A request without an id has its number, from 1, as its key.  Images of answers go to a folder of the submission's own
beside the journal; results name the files.

The key is that of the environment, ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY``.  A simulator of this machine needs none.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import string
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.errors import InputError
from ipybatch.server.notify_request import to_notify
from ipybatch.server.templates.template import (
    CHECKED,
    PLACEHOLDER,
    Checked,
    Policies,
    check_count,
    check_installed,
    check_simulated,
    check_unused,
    given,
    is_loopback,
    naming,
    read_address,
    read_params,
)
from ipybatch.server.wire import Credits, Quote, SubmissionRequest
from ipybatch.templates.shipped import SHIPPED
from ipybatch.templates.template import WrongField

if TYPE_CHECKING:
    from ipybatch.gemini import GeminiSession
    from ipybatch.server.options import Options
    from ipybatch.session.session import BatchSession

ADDRESSES = ("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")
KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
WAIT_S = 49 * 3600.0  # of batch jobs: the service ends them after 48 hours
SIMULATOR_POLL_S = 1.0  # of jobs on this machine, which take seconds
_FIELDS = ("id", "prompt", "imageBase64")
_CONFIG = ("temperature", "top_p", "top_k", "seed", "max_output_tokens", "stop_sequences", "thinking_config")
_OURS = ("base_url", "template", *_CONFIG)
_OTHER_NAMES = {"models": "model"}
_SHORT_FORMAT = re.compile(r"[^{}\d]*\d{0,3}[^{}\d]*\d{0,2}[^{}\d]*")
_INSTEAD = {
    "images_to": "images go to a folder of the submission's own; results name them",
    "account": "c.IpyBatch.account names the credit account",
    "name": "give it beside params",
    "client": "give base_url",
}


class Params(Policies, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the Gemini templates; as the arguments of `ipybatch.gemini.generate`.

    Attributes:
        lane: "batch" by default: half the credits, within a day.
        template: A text with names in braces, which the fields of each request fill.
        config: The generation config; its most used fields are parameters too.
        wait_s: Longest wait for batch jobs, seconds; by default until the service gives them up.
        base_url: An address of this machine, or the one that the server's environment names.
    """

    model: str | None = None
    models: list[str] | None = None
    lane: Literal["online", "flex", "batch", "auto"] = "batch"
    template: str | None = None
    system: str | None = None
    schema: dict[str, Any] | None = None
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    thinking_config: dict[str, Any] | None = None
    modalities: list[Literal["TEXT", "IMAGE"]] | None = None
    keep: Literal["reply"] | None = None
    samples: int = 1
    again: str | list[str] | dict[str, int] | None = None
    fallback: str | None = None
    project: str = ""
    output_tokens: float | None = None
    budget_usd: float | None = None
    prices: dict[str, dict[str, float]] | None = None
    concurrency: int | None = None
    sequential: bool = False
    flex_tries: int = 3
    flex_fallback: Literal["online", "batch"] | None = "online"
    max_requests_per_job: int | None = None
    max_active_jobs: int | None = None
    poll_s: float | None = None
    wait_s: float | None = None
    deadline_s: float | None = None
    timeout_s: float | None = None
    on_failure: Literal["continue", "stop", "rollback"] = "continue"
    base_url: str | None = None


class Generate:
    """One kind of generation with Gemini.

    Args:
        operation: "character", "food", "product", "text-to-image" or "text".
    """

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._ships = SHIPPED[operation].params

    def check(self, request: SubmissionRequest, options: Options) -> Checked:
        """Check prompts, images, parameters and the key; nothing is sent.

        Raises:
            WrongField: Something is not what it must be.
            InputError: The same, where no single field is at fault.
            BatchError: A package or the journal is missing.
        """
        from ipybatch.gemini.money.credits import find_credits

        prompts, read = self._read(request, options)
        units = len(prompts) * read.samples
        lane = "online" if read.lane == "auto" else read.lane  # the dearest that it may come to
        return Checked(
            requests=len(prompts),
            operation=self._operation,
            units=units,
            credits=find_credits(self._operation, units, lane),
        )

    def quote(self, request: SubmissionRequest, options: Options) -> Quote:
        """Return cost and duration by each lane, and the credits of the one that was asked for.

        Raises:
            BatchError: As `check`.
        """
        from ipybatch.gemini.money.credits import CreditAccount
        from ipybatch.gemini.money.quote import compare, notes_of

        checked = self.check(request, options)
        prompts, read = self._read(request, options)
        tokens = 400 if read.output_tokens is None else read.output_tokens
        with naming(request.params, _OTHER_NAMES):
            offered = compare(
                prompts,
                model=read.models[0] if read.models else self._model(read),
                output_tokens=round(tokens),
                system=read.system,
                schema=read.schema,
                operation=self._operation,
                n=len(prompts) * read.samples,
                prices=read.prices,
            )
        lane = offered.recommended if read.lane == "auto" else read.lane
        offer = offered.offers[lane]
        rows = [  # as `Quote.to_frame` has them, without pandas: the server needs it for nothing else
            {
                "lane": name,
                "usd": float(each.usd),
                "assumed": each.assumed,
                "credits": None if each.credits is None else float(each.credits),
                "low_s": each.low_s,
                "high_s": each.high_s,
                "recommended": name == offered.recommended,
            }
            for name, each in offered.offers.items()
        ]
        paid = None
        if checked.credits is not None:
            account = CreditAccount(options.account)
            paid = Credits(
                account=options.account,
                cost=float(checked.credits),
                used=None,
                balance=float(account.balance),
                available=float(account.available),
            )
        return Quote(
            template=request.template,
            request_count=checked.requests,
            seconds=(offer.low_s, offer.high_s),
            usd=float(offer.usd),
            credits=paid,
            quote=rows,
            notes=[f"{offered.recommended} is recommended: {offered.why}", *notes_of(offered)],
        )

    def session(
        self, request: SubmissionRequest, *, name: str, journal: Path, options: Options | None = None
    ) -> GeminiSession:
        """Return the session; those of one key share its windows.

        Raises:
            BatchError: It cannot be made any more.
        """
        from ipybatch.gemini import generate
        from ipybatch.gemini.images import ImageStore

        read = read_params(request.params, Params, _INSTEAD)
        base_url = read_address(read.base_url, ADDRESSES)
        folder: Path | None = None
        if self._draws(read):
            folder = ImageStore.beside(journal, name)
            for made in (folder.parent, folder):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
        paced = {"poll_s": SIMULATOR_POLL_S} if base_url is not None and is_loopback(base_url) else {}
        with naming(request.params, _OTHER_NAMES):
            return generate(
                read_requests(request.requests or [], read.template),
                name=name,
                journal=journal,
                images_to=folder,
                api_key=find_key(base_url),
                base_url=base_url,
                notify=to_notify(request),
                **{**paced, **self._arguments(request, read)},
            )

    def used(self, session: BatchSession, *, since_s: float = 0.0) -> Decimal:
        """Return the credits of the answers on record.

        Raises:
            JournalError: The journal cannot be read.
        """
        from ipybatch.gemini.money.usage import credits_since

        return credits_since(session.journal, session.name, since_s)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Check parameters, with a prompt that is never sent.

        Raises:
            WrongField: One is not what it must be.
            InputError: The same, where no single field is at fault.
            MissingExtra: google-genai is not installed.
        """
        request = SubmissionRequest(template=self._operation, params=dict(params))
        read = read_params(request.params, Params, _INSTEAD)
        read_address(read.base_url, ADDRESSES)
        _filler(read.template)
        self._make(request, [{"id": 1, "prompt": "A prompt"}], read)

    def _read(self, request: SubmissionRequest, options: Options) -> tuple[list[dict[str, Any]], Params]:
        """Return prompts and parameters of which a session can be made."""
        check_unused(request, "upload")
        listed = check_count(request, options)
        read = read_params(request.params, Params, _INSTEAD)
        prompts = read_requests(listed, read.template)
        find_key(read_address(read.base_url, ADDRESSES))
        self._make(request, prompts, read)
        return prompts, read

    def _make(self, request: SubmissionRequest, prompts: list[dict[str, Any]], read: Params) -> None:
        """Make a session that is never started."""
        check_installed("google.genai", "gemini")
        from ipybatch.gemini import generate

        with naming(request.params, _OTHER_NAMES):
            generate(
                prompts,
                name=request.name or CHECKED,
                images_to=False,
                client=_NotUsed(),
                **self._arguments(request, read),
            )

    def _arguments(self, request: SubmissionRequest, read: Params) -> dict[str, Any]:
        """Return the arguments of `generate`, all but those that say where."""
        arguments = given(read, request.params, *_OURS)
        config = {name: value for name in _CONFIG if (value := getattr(read, name)) is not None}
        if both := sorted(config.keys() & read.config.keys()):
            msg = f"params.{both[0]} must be given once, beside params.config or in it"
            raise WrongField(f"params.{both[0]}", msg)
        arguments |= {"config": {**read.config, **config}, "lane": read.lane, "operation": self._operation}
        if read.models is None:
            arguments["model"] = self._model(read)
        if "modalities" in self._ships and "modalities" not in request.params:
            arguments["modalities"] = self._ships["modalities"]
        arguments = {name: value for name, value in arguments.items() if value is not None or name == "breaker"}
        return {**({"wait_s": WAIT_S} if read.lane in ("batch", "auto") else {}), **arguments}

    def _model(self, read: Params) -> str:
        return read.model or self._ships["model"]

    def _draws(self, read: Params) -> bool:
        """Say whether images are asked for, or may be."""
        named = [*(read.models or [self._model(read)]), read.fallback or ""]
        asked = [*(read.modalities or ()), *read.config.get("response_modalities", ())]
        return self._operation != "text" or "IMAGE" in asked or any("-image" in name for name in named)


class _NotUsed:
    """In place of a client, for a session that is never started: the real one takes a second to load."""

    aio = None


def find_key(base_url: str | None) -> str:
    """Return the key of the environment, or one that a simulator of this machine accepts.

    Raises:
        WrongField: There is none.
    """
    key = next((found for variable in KEYS if (found := os.environ.get(variable, "").strip())), "")
    if not key:
        check_simulated(base_url, KEYS[0], page="https://aistudio.google.com/apikey")
    return key or PLACEHOLDER


def read_requests(requests: list[Any], template: str | None = None) -> list[dict[str, Any]]:
    """Return requests as prompts, with a key each.

    Args:
        template: A text that the fields of each request fill; None for requests that are prompts.

    Raises:
        WrongField: One is not what it must be; names its number and field, and does not repeat what is in it.
    """
    fill = _filler(template)
    placed = [(f"requests[{place}]", item) for place, item in enumerate(requests)]
    prompts = [_prompt(fill(item, where), where, number) for number, (where, item) in enumerate(placed, 1)]
    seen: set[str | int] = set()
    for number, prompt in enumerate(prompts):
        if prompt["id"] in seen:
            field = f"requests[{number}].id"
            raise WrongField(field, f"{field} must differ from those before it", value=prompt["id"])
        seen.add(prompt["id"])
    return prompts


def _filler(template: str | None) -> Callable[[Any, str], Any]:
    """Return what makes a prompt of a request.

    Raises:
        WrongField: The template is none, or would make a text of any size.
    """
    if template is None:
        return lambda item, where: item
    from ipybatch.gemini.template import Template

    try:
        made = Template.of(template)
    except InputError as error:
        raise WrongField("params.template", f"params.{error}", value=template) from None
    if any(spec and not _SHORT_FORMAT.fullmatch(spec) for _, _, spec, _ in string.Formatter().parse(template)):
        msg = "params.template must have short formats, such as {price:.2f}, and none that depends on a field"
        raise WrongField("params.template", msg, value=template)

    def fill(item: Any, where: str) -> Any:
        fields = dict.fromkeys(made.columns[:1], item) if isinstance(item, str) else item
        if not isinstance(fields, Mapping):
            msg = f"{where} must be an object with {', '.join(made.columns)}, got {_kind(item)}"
            raise WrongField(where, msg, allowed=list(made.columns))
        try:
            text = made.fill(fields, where)
        except InputError as error:
            raise WrongField(where, str(error)) from None
        return {"prompt": text, **{name: fields[name] for name in ("id", "imageBase64") if name in fields}}

    return fill


def _prompt(item: Any, where: str, number: int) -> dict[str, Any]:
    fields: Mapping[str, Any] = {"prompt": item} if isinstance(item, str) else item
    if not isinstance(fields, Mapping):
        msg = f"{where} must be a text, or an object with a prompt, got {_kind(item)}"
        raise WrongField(where, msg, allowed=list(_FIELDS))
    for name in fields:
        if name not in _FIELDS:
            msg = f"{where} must not have the field {name[:60]!r}"
            raise WrongField(f"{where}.{name[:60]}", msg, allowed=list(_FIELDS))
    text, image = fields.get("prompt"), fields.get("imageBase64")
    if not isinstance(text, str) or not text.strip():
        field = f"{where}.prompt"
        raise WrongField(field, f"{field} must be a text that is not empty, got {_kind(text)}")
    key = fields.get("id", number)
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "" or len(str(key)) > 200:
        field = f"{where}.id"
        raise WrongField(field, f"{field} must be a whole number or a text of 1 to 200 characters, got {_kind(key)}")
    prompt: dict[str, Any] = {"id": key, "prompt": text}
    if image is not None:
        prompt["image"] = _image(image, f"{where}.imageBase64")
    return prompt


def _image(text: Any, field: str) -> Any:
    """Return an image; never from a file or an address, which a request could name."""
    from ipybatch.gemini.images import MAX_BYTES, Image

    if not isinstance(text, str) or not text:
        raise WrongField(field, f"{field} must be an image in base64, got {_kind(text)}")
    if len(text) > MAX_BYTES * 4 // 3 + 4096:
        msg = f"{field} must be at most {MAX_BYTES:,} bytes, got about {len(text) * 3 // 4:,}"
        raise WrongField(field, msg, value=len(text) * 3 // 4, allowed={"maximum": MAX_BYTES})
    try:
        body = text.partition(",")[2] if text.startswith("data:") else text
        content = base64.b64decode(re.sub(r"\s+", "", body), validate=True)
    except (binascii.Error, ValueError):
        raise WrongField(field, f"{field} must be base64, got a text that is not") from None
    try:
        return Image.of(content, field)
    except InputError as error:
        kinds = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/heic", "image/heif"]
        raise WrongField(field, str(error), allowed=kinds) from None


def _kind(value: Any) -> str:
    words = {type(None): "none", str: "an empty text" if value == "" else "a text", bool: "a boolean"}
    words |= {int: "a number", float: "a number", list: "a list", dict: "an object"}
    return words.get(type(value), "something else")
