"""What others do with the same prompts: each function runs them all and returns the texts that came back.

They are no dependencies of ours: they live in an environment of their own, ``out/peers``, which this makes:

    python -m tests.benchmarks.gemini_peers
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from typing import Any

from .measure import ROOT

PLACE = ROOT / "out" / "peers"
PYTHON = PLACE / ("Scripts" if sys.platform == "win32" else "bin") / "python"
PACKAGES = ("litellm", "lm-deluge", "psutil")
MODEL, KEY, AT_ONCE = "gemini-2.5-flash", "SIMULATED", 50
NO_MATTER = 10_000_000  # tokens a minute: the service counts requests only

Contestant = Callable[[str, list[str], int | None], Callable[[], list[str | None]]]


def plain(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """Google's own client, its retries as they come; it takes no quota."""
    return _by_sdk(url, prompts)


def once(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """Google's own client, each request sent once: what a call takes."""
    return _by_sdk(url, prompts, attempts=1)


def _by_sdk(url: str, prompts: list[str], **retry: int) -> Callable[[], list[str | None]]:
    from google import genai
    from google.genai import types

    async def run() -> list[str | None]:
        options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(**retry))
        client, slots = genai.Client(api_key=KEY, http_options=options), asyncio.Semaphore(AT_ONCE)

        async def one(prompt: str) -> str | None:
            async with slots:
                return (await client.aio.models.generate_content(model=MODEL, contents=prompt)).text

        texts = await asyncio.gather(*map(one, prompts), return_exceptions=True)
        await client.aio.aclose()
        return kept(texts)

    return lambda: asyncio.run(run())


def aiohttp(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """The same requests by hand: the least that a call can take."""
    import aiohttp

    async def run() -> list[str | None]:
        slots, headers = asyncio.Semaphore(AT_ONCE), {"x-goog-api-key": KEY}
        connector, address = aiohttp.TCPConnector(limit=0), f"{url}/v1beta/models/{MODEL}:generateContent"

        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def one(prompt: str) -> Any:
                sent = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
                async with slots, session.post(address, json=sent) as answer:
                    return (await answer.json())["candidates"][0]["content"]["parts"][0]["text"]

            return kept(await asyncio.gather(*map(one, prompts), return_exceptions=True))

    return lambda: asyncio.run(run())


def litellm(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """The router of litellm, which knows quotas and tries again."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for prices
    import litellm

    litellm.suppress_debug_info = True
    sent = {"model": f"gemini/{MODEL}", "api_base": f"{url}/v1beta", "api_key": KEY, **({"rpm": rpm} if rpm else {})}

    async def run() -> list[str | None]:
        router = litellm.Router(model_list=[{"model_name": MODEL, "litellm_params": sent}], num_retries=5)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(prompt: str) -> Any:
            async with slots:
                answer = await router.acompletion(model=MODEL, messages=[{"role": "user", "content": prompt}])
                return answer.choices[0].message.content

        return kept(await asyncio.gather(*map(one, prompts), return_exceptions=True))

    return lambda: asyncio.run(run())


def lm_deluge(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """The client of lm-deluge; it supposes 1,000 requests a minute when nothing is said."""
    os.environ["GEMINI_API_KEY"] = KEY
    from lm_deluge import LLMClient
    from lm_deluge.models import registry

    registry[MODEL].api_base = f"{url}/v1beta"
    told = {"max_requests_per_minute": rpm} if rpm else {}

    async def run() -> list[str | None]:
        client = LLMClient(MODEL, max_concurrent_requests=AT_ONCE, max_tokens_per_minute=NO_MATTER, **told)
        answers = await client.process_prompts_async(prompts, show_progress=False)
        return [answer.completion or None for answer in answers]

    return lambda: asyncio.run(run())


def kept(texts: Iterable[Any]) -> list[str | None]:
    """Return None for every error."""
    return [None if isinstance(text, BaseException) else text for text in texts]


def make() -> None:
    """Make the environment."""
    venv.create(PLACE, with_pip=True, clear=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    print(f"made {PLACE}")


if __name__ == "__main__":
    make()
