"""`generate` and the session that it returns.

prompts --check--> session --lanes--> answers, with the cost of each
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import msgspec

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import Keying, Plan, make_plan
from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.rules.estimate import Estimate
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.errors import InputError
from ipybatch.gemini.arguments import (
    Auto,
    Batch,
    Flex,
    GenerateArguments,
    Online,
    check_images,
    check_names,
    check_sizes,
    described,
    for_session,
    from_params,
    going_on,
    read_fallback,
    read_keep,
    read_lane,
    read_samples,
    recorded,
)
from ipybatch.gemini.batch.jobs import JobStore
from ipybatch.gemini.batch.pending import WAITING
from ipybatch.gemini.bill_facts import bill_facts
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.lanes import IN_A_HURRY, Lane, Lanes, PromptGroups, start_cost
from ipybatch.gemini.money import usage
from ipybatch.gemini.money.prices import LANES, check_prices
from ipybatch.gemini.money.quote import BATCH_S
from ipybatch.gemini.money.tokens import OUTPUT_TOKENS
from ipybatch.gemini.prompts import Prompt, read_prompts, with_samples
from ipybatch.gemini.service.api import account_of
from ipybatch.gemini.service.client import TIMEOUT_S, find_key
from ipybatch.gemini.service.pacer import MOST, SEQUENTIAL, GeminiPacer, Model, choose_models
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.spec import Connection, GeminiSpec
from ipybatch.gemini.statement import statement
from ipybatch.gemini.tries import read_again
from ipybatch.session.arguments import SessionArguments, check_name, check_session, encode_settings
from ipybatch.session.session import BatchSession
from ipybatch.session.workload import Workload, given_to
from ipybatch.templates.shipped import SHIPPED, workload_of

if TYPE_CHECKING:
    import pandas as pd


LONGEST_S = 1e6  # longest time limit that the client accepts


class GeminiSession(BatchSession):
    """A `BatchSession` of prompts, with its usage; made by `generate`."""

    @property
    def spec(self) -> GeminiSpec:
        """The settings of the session.

        Raises:
            InputError: The session was opened for reading.
        """
        generation = cast("Generation", self.workload)
        generation.check_complete(self.name)
        assert generation.spec is not None
        return generation.spec

    def usage(self, last_s: float | None = None, *, by: str | Iterable[str] = ()) -> pd.DataFrame:
        """Return this session's usage, one row per (operation, model, lane); see `ipybatch.gemini.usage`.

        Args:
            last_s: Length of the time up to now, seconds; None: all time.
            by: "project": a row for each of them, and a column at the end that names it.

        Raises:
            InputError: ``by`` is something else.
            JournalError: The journal cannot be read.
        """
        return usage.usage(last_s, session=self.name, by=by, journal=self.journal, now_s=self._clock.unix_s())

    def statement(self) -> pd.DataFrame:
        """Return what was sent, billed there, kept here and lost, by job and model; no request is sent for it.

        Returns:
            One row per batch job, and one per lane and model of the other calls: job (number; NA without a job), lane,
            model, state, sent, billed, kept, waiting, lost, unknown (numbers of requests; what waits can be fetched
            until ``expires``, what is unknown may be billed), usd (of what is kept), usd_unknown (most that the unknown
            may cost), expires (UTC, 48 hours after the job's end), reason.

        Raises:
            JournalError: The journal cannot be read.
        """
        return statement(open_journal(self.journal), self.name, self._clock.unix_s())

    def resend(self, *jobs: int) -> int:
        """Let the next run send again, and pay again, what batch jobs did not answer; what has come since is used.

        Without this nothing is sent again of a job whose results are incomplete, that cannot be found, that belongs to
        another key, or that expired or failed for the second time.

        Args:
            jobs: Numbers of jobs; default: all such jobs.

        Returns:
            The number of jobs.

        Raises:
            InputError: The session is running, was opened for reading, or has no such job.
            JournalError: The journal cannot be written.
        """
        generation = cast("Generation", self.workload)
        generation.check_complete(self.name)
        if self.ending in ("running", "paused"):
            msg = f"session {self.name!r} is running: wait until it has ended, or cancel it"
            raise InputError(msg)
        store = JobStore(open_journal(self.journal), self._clock)
        held = [job.number for job in store.of_session(self.name) if job.is_held]
        for number in jobs:
            if number not in held:
                those = f"that is of {held}" if held else "and there is none"
                msg = f"jobs must be numbers of held jobs, {those}, got {number!r}: see statement()"
                raise InputError(msg)
        numbers = list(jobs) or held
        if numbers:
            store.release(self.name, numbers)
        return len(numbers)

    def estimate(self, n: int | None = None, *, latency_s: float = 5.0) -> Estimate:
        """Return the expected duration and cost in the session's first lane; of a batch, 5 minutes to 24 hours.

        Args:
            n: Number of prompts; default: all.
            latency_s: Time to an online answer, seconds.

        Raises:
            InputError: ``n`` or ``latency_s`` is out of range, or the session was opened for reading.
        """
        spec = self.spec
        found = super().estimate(n, latency_s=latency_s)
        lane = "batch" if spec.lane == "auto" and spec.has_batch else spec.lane
        lane = "online" if lane == "auto" else lane
        share = found.requests / max(1, len(spec.prompts))
        usd = spec.expected_usd(lane)
        found = msgspec.structs.replace(found, usd=None if usd is None else float(usd) * min(1.0, share))
        if lane != "batch" or not found.requests:
            return found
        low_s, high_s = BATCH_S
        return msgspec.structs.replace(found, seconds=high_s, low_s=low_s, high_s=high_s, begins_s=0.0, why="")


def generate(
    prompts: Iterable[Any],
    *,
    model: str | Model | None = None,
    lane: Lane | Online | Flex | Batch | Auto = "online",
    template: str | None = None,
    system: str | None = None,
    schema: Any = None,
    config: dict[str, Any] | None = None,
    **arguments: Unpack[GenerateArguments],
) -> GeminiSession:
    """Return a session that sends prompts to Gemini and records the answers; it is not started yet.

    A result has text (or data, with a schema), file or files (of images), tokens_in, tokens_out, tokens_thoughts, usd,
    model and finish_reason.  A blocked, cut or empty answer, or one that does not match the schema, is an error of its
    item; it is billed, and the item is not sent again unless ``again`` says so.

    Args:
        prompts: Texts, dicts or a frame; see `ipybatch.gemini.to_prompts`.
        model: A name or `Model`; default "gemini-2.5-flash".
        lane: "online"; "flex", half price, if there is room; "batch", half price, within a day; "auto", the cheapest
            lane that meets its deadline.  With settings: `Online`, `Flex`, `Batch` or `Auto`, such as
            ``lane=Batch(wait_s=600)``.
        template: A text with columns in braces, for a frame or dicts.
        system: The system instruction.
        schema: The schema of answers: a pydantic class, or a dict.
        config: The generation config, with the field names of google-genai's `GenerateContentConfig`.
        models: Several models: the one that may be asked first is asked, of those that may be asked now the first by
            ``priority``.  One whose daily quota is used up, or that goes on refusing, is left out for so long.
        modalities: Modalities of answers, "TEXT" and "IMAGE".
        key: The field that holds an item's key, or a function of the item.
        images_to: Folder or fsspec address for images of answers; False: they are thrown away.  Prompts that ask for
            images need one of these; an image that nobody asked for is saved in a folder "images" beside the journal.
        operation: Kind of work, by default "text": a label in `usage`, from which the credits follow.
        project: Another label in `usage`.
        keep: "reply": the whole reply stands in the item's result as ``reply`` (sources, citations, function calls,
            executed code, thoughts), with the files of its images in their place; default: what of these came is named
            in ``dropped``.
        samples: Answers of each prompt, >= 1, default 1: each is an item and a row of its own, the first with the
            prompt's key, the others with ``#2``, ``#3``, ... after it.  More samples later pay for no more than these.
        again: Which unusable answers are sent again: some of "empty", "cut" and "invalid" (does not match the schema),
            once each, or with a number, ``{"cut": 2}``.  Each try is billed; ``usd`` in the item's row is their sum,
            ``tries`` their number, and the rest is of the last one.
        fallback: Another model, to which prompts and answers that were blocked are sent once, at once and at the price
            of lane "online"; counted in ``tries`` and ``usd`` as these.
        output_tokens: Expected tokens of an answer, for the estimate; default 1,000. Without max_output_tokens a budget
            reserves no less for a call.
        budget_usd: The budget, USD: a bound, if ``config`` has max_output_tokens. Each model needs a price.
        account: The `CreditAccount` that pays the operations.
        prices: Your own prices, USD per million tokens; see `ipybatch.gemini.price_of`.
        api_key: Default: ``GEMINI_API_KEY``, else ``GOOGLE_API_KEY``.
        base_url: Address of another server, such as a simulator.
        client: A `google.genai.Client` of your own.
        backend: Where prompts that go one by one are sent from, such as ``Dask(client)``; default: from here.  Limits,
            money and the journal stay here, and so do batch jobs.
        name: Name of the session; default: one that follows from the prompts and all that is sent with them, so that
            the same call goes on and another one is another session.  With a name of your own, more prompts may join.
        replace: Whether to pay again for prompts that have an answer under this name, to another text, model, system
            instruction, config or schema.  Without it they are refused: nothing that was paid is overwritten.
        concurrency, sequential: As in `Online`, for a ``lane`` that is a word, as those that follow.
        flex_tries, flex_fallback: ``tries`` and ``fallback`` of `Flex`.
        max_requests_per_job, max_active_jobs, poll_s, wait_s: As in `Batch`.
        deadline_s: As in `Auto`.
        arguments: As for `BatchSession`: limits, retry, breaker, journal, fresh, timeout_s of a request, on_failure,
            resource, on_progress, priority, per, start_at, verbose, notify, clock.

    Raises:
        InputError: A prompt or an argument is invalid, or a prompt changed that has a paid answer under this name;
            nothing was sent.
        MissingExtra: google-genai is not installed, or what a channel of ``notify`` needs.
        TypeError: There is no argument of that name.

    Example:
        >>> from ipybatch.gemini import generate
        >>> from ipybatch.simulators import serve
        >>> with serve("gemini") as url:
        ...     session = generate(["Name a star"], base_url=url, api_key="SIMULATED")
        ...     print(session.run())
        gemini name-a-star 40281e99 completed: 1/1 successful, 0 failed, 0 skipped
    """
    asked_for = given_to(generate, locals())
    check_names(arguments)
    lanes = read_lane(lane, arguments)
    name = arguments.get("name")
    if name is not None:
        check_name(name)
    of_session = for_session(arguments)
    check_session(
        of_session.get("timeout_s"),
        of_session.get("on_failure") or "continue",
        of_session.get("limits"),
        of_session.get("retry"),
        of_session.get("breaker"),
    )
    chosen = choose_models(model, arguments.get("models"))
    read = read_prompts(
        prompts,
        template=template,
        key=arguments.get("key"),
        operation=arguments.get("operation", "text"),
        project=arguments.get("project", ""),
    )
    listed = read.prompts
    images_to = arguments.get("images_to")
    keeps_reply, samples = read_keep(arguments.get("keep")), read_samples(arguments.get("samples", 1))
    again = read_again(arguments.get("again"))
    fallback = read_fallback(arguments.get("fallback"), chosen)
    common = {"system": system, "config": config or {}, "schema": schema}
    common["modalities"] = arguments.get("modalities") or ()
    configs = {way: RequestConfig(lane=way, **common) for way in LANES}
    modalities = configs["online"].modalities
    check_sizes(listed, configs["online"])
    asked = [*(one.name for one in chosen), *([] if fallback is None else [fallback])]
    check_images(images_to, listed, asked, configs["online"])
    settings = {"model": chosen[0].name, **configs["online"].settings()}
    keying = Keying(None, encode_settings(settings))
    plan = make_plan(listed, keying)
    recorded_in = open_journal(of_session.get("journal"))
    word = lanes.lane
    if name is None:
        name = _default_name(plan, word, recorded_in, _word(template, schema, listed))
    if samples > 1:  # under the same name
        read = with_samples(read, samples)
        plan, listed = make_plan(read.prompts, keying), read.prompts
    plan.given, plan.index = read.given, read.index
    given = of_session.get("limits") or Limits()
    at_once = _at_once(lanes.flex, of_session.get("limits"))
    hurried = IN_A_HURRY if lanes.deadline_s is not None else MOST
    pacer = GeminiPacer(chosen, at_once=at_once or (hurried if word == "auto" else None))
    spec = GeminiSpec(
        name=name,
        lane=word,
        prompts=listed,
        models=chosen,
        request_configs=configs,
        policy=lanes.policy.fitted(len(listed)),
        connection=_connection(arguments, of_session.get("timeout_s")),
        pacer=pacer,
        at_once=at_once or hurried,
        journal=recorded_in,
        clock=of_session.get("clock") or SystemClock(),
        prices=check_prices(arguments.get("prices")) or None,
        budget_usd=arguments.get("budget_usd"),
        account=arguments.get("account"),
        deadline_s=lanes.deadline_s,
        output_tokens=arguments.get("output_tokens", OUTPUT_TOKENS),
        flex_tries=lanes.flex.tries,
        flex_fallback=lanes.fallback,
        images=_place_of_images(images_to, recorded_in, name),
        keeps_reply=keeps_reply,
        again=again,
        fallback=fallback,
    )
    _check_budget(spec)
    slots = min(len(listed), max(spec.policy.prompts, spec.at_once), WAITING) or 1
    limits = dataclasses.replace(
        given,
        concurrency=slots if spec.has_batch else at_once or MOST,
        batch_size=SEQUENTIAL if lanes.flex.sequential else given.batch_size,
        pacer=pacer,
    )
    first = {"template": template, "system": system, "schema": schema, "config": config}
    about = recorded({**arguments, **first, "modalities": modalities, "again": again, "fallback": fallback}, lanes)
    about |= {"models": [one.name for one in chosen], "images_to": str(images_to) if images_to else images_to}
    replaces = bool(arguments.get("replace"))
    work = Generation(spec, about, has_groups=limits.batch_size is None, replaces=replaces)
    work.given = asked_for
    return _session(work, spec, plan, settings, limits, of_session)


def _word(template: str | None, schema: Any, prompts: list[Prompt]) -> str:
    """Return what a session is about, in up to three words: of its template, else its schema, else its first prompt."""
    title = schema.get("title", "") if isinstance(schema, dict) else getattr(schema, "__name__", "")
    for text in (re.sub(r"{.*?}", " ", template or ""), str(title), *(prompt.text for prompt in prompts[:1])):
        if words := re.findall(r"\w+", mask(text).lower())[:3]:
            return "-".join(words)[:40]
    return "prompts"


def _default_name(plan: Plan, lane: str, journal: Journal, word: str) -> str:
    """Return a name that follows from the keys of the prompts and all that is sent, and not from the lane.

    The same work goes on under the name that it had by default in earlier versions.
    """
    with journal.reader() as database:
        found = run_store.find(database, former := f"gemini {lane}")
    is_there = found is not None and found.plan_hash == plan.hash
    return former if is_there else f"gemini {word} {plan.hash.hex()[:8]}"


def _session(  # noqa: PLR0917  # what `generate` made, each of another type
    work: Generation,
    spec: GeminiSpec,
    plan: Plan,
    settings: dict[str, Any],
    limits: Limits,
    arguments: SessionArguments,
) -> GeminiSession:
    handed: dict[str, Any] = {field: value for field, value in arguments.items() if value is not None}
    defaults = {"retry": Retry(attempts=5), "breaker": arguments.get("breaker", Breaker(failures=5, break_s=30.0))}
    if spec.has_batch or spec.has_open_jobs:
        handed.pop("timeout_s", None)
    key = spec.connection.api_key  # whose quotas are the resource
    resource = "gemini" if key is None else f"gemini {account_of(key)}"
    return GeminiSession(
        spec.name,
        work,
        plan,
        cost=start_cost(spec.lane, spec.request_configs["online"]),
        settings=settings,
        group_word="Job" if spec.lane in ("batch", "auto") else "Group",
        **{"resource": resource, **defaults, **handed, "limits": limits},
    )


class Generation(Workload[GeminiSession]):
    """The work of a Gemini session: its lanes, opened on the event loop that uses them.

    Attributes:
        spec: The settings; None for a session that was opened for reading.
    """

    name = "gemini"
    needs = "prompts"
    session_class = GeminiSession

    def __init__(
        self, spec: GeminiSpec | None, about: Mapping[str, Any], *, has_groups: bool = False, replaces: bool = False
    ) -> None:
        self.spec, self.about, self.replaces = spec, about, replaces
        self._has_groups = has_groups
        self._stack = AsyncExitStack()
        self._lanes: Lanes | None = None
        self._groups: PromptGroups | None = None

    def bind(self, session: GeminiSession) -> None:
        """Bind to a session, and observe its recorded outcomes."""
        super().bind(session)
        session.on_outcomes(self.recorded)

    @classmethod
    def reading(cls, name: str, journal: Path, about: Mapping[str, Any]) -> Generation:
        """Return what a recorded session can do without its prompts: its results, and what it used."""
        return cls(None, about)

    @classmethod
    def going_on(
        cls, name: str, journal: Path, about: Mapping[str, Any], items: Any, arguments: dict[str, Any]
    ) -> GeminiSession:
        """Return the session made anew with ``prompts=``.

        Raises:
            InputError: A prompt or an argument is not what it must be.
        """
        return generate(**going_on(about, {"name": name, "journal": journal, **arguments}))

    def template(self) -> tuple[str, dict[str, Any]]:
        """Return the kind of work and its arguments, the lane as a word with its settings."""
        given = described(self.given)
        kind = given["operation"]
        is_known = kind in SHIPPED and workload_of(kind) == self.name
        return kind if is_known else "text", given

    @classmethod
    def from_template(cls, name: str, arguments: dict[str, Any]) -> GeminiSession:
        """Return the session of a template; by default it is named after its prompts, which are others each time.

        Raises:
            InputError: A prompt or an argument is not what it must be.
        """
        return generate(arguments.pop("prompts"), **from_params(arguments))

    async def __aenter__(self) -> Generation:
        """Open the lanes."""
        session, spec = self.session, self.spec
        assert spec is not None
        self._stack = AsyncExitStack()
        if (backend := spec.connection.backend) is not None:
            await backend.open(spec.at_once)
            self._stack.push_async_callback(backend.close)
        await spec.settle()
        lanes = spec.open(self._stack, session.tell, lambda: session.ending)
        self._lanes = await self._stack.enter_async_context(lanes)
        if self._has_groups and lanes.gatherer is None:
            left, before = session.counts.pending, max(session.snapshot.groups, default=0)
            self._groups = PromptGroups(left, before, session.tell, spec.clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the lanes."""
        await self._stack.aclose()

    def facts(self, *, is_over: bool) -> list[Fact]:
        """Return what was saved against online, and how the batch jobs stand."""
        session, spec, lanes = self.session, self.spec, self._lanes
        if spec is None or (lanes is None and is_over):
            return []
        has_jobs = spec.has_batch or (lanes is not None and lanes.gatherer is not None)
        return bill_facts(
            session.snapshot,
            None if lanes is None else lanes.caller.money,
            spec.clock.unix_s(),
            is_cheaper=spec.lane != "online" or has_jobs,
            has_jobs=has_jobs,
            is_over=is_over,
        )

    async def __call__(self, prompt: Prompt, attempt: Attempt) -> dict[str, Any]:
        """Send a prompt and return the item's result."""
        assert self._lanes is not None
        if self._groups is not None:
            self._groups.join(attempt)
        return await self._lanes.send(prompt, attempt)

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Handle outcomes that are on disk."""
        if self._groups is not None:
            self._groups.recorded(outcomes)
        if self._lanes is not None:
            self._lanes.recorded(outcomes)


def _place_of_images(images_to: Any, journal: Journal, session: str) -> ImageStore | None:
    if images_to is False:
        return None
    return ImageStore.unasked(journal.path, session) if images_to is None else ImageStore(images_to)


def _check_budget(spec: GeminiSpec) -> None:
    lane = {"auto": "batch" if spec.has_batch else "online"}.get(spec.lane, spec.lane)
    spec.expected_usd(lane)  # always: the prices take half a second to load, too long on the engine's thread
    spec.check_budget(lane)


def _at_once(flex: Flex, limits: Limits | None) -> int | None:
    if flex.concurrency is not None:
        return flex.concurrency
    if flex.sequential:
        return SEQUENTIAL
    return None if limits is None else limits.concurrency


def _connection(arguments: GenerateArguments, timeout_s: float | None) -> Connection:
    """Return how to connect; a missing key raises here."""
    client = arguments.get("client")
    key = find_key(arguments.get("api_key")) if client is None else None
    timeout_s = min(timeout_s or TIMEOUT_S, LONGEST_S)
    connection = Connection(key, arguments.get("base_url"), client, timeout_s, arguments.get("backend"))
    connection.prepare()
    return connection
