"""Files that a prompt names: users upload them, and the service processes them before it reads them.

refused with FAILED_PRECONDITION --> look at its files
                                       |-- PROCESSING: wait, then send the prompt again
                                       |-- FAILED or gone: the prompt fails, alone
                                       `-- ACTIVE, and refused once more: it is the account
"""

from __future__ import annotations

import asyncio
import re

from ipybatch.engine.data.clock import Clock
from ipybatch.errors import Held, Permanent, Refused, Transient
from ipybatch.gemini.batch.submission import FILE_WAIT_S, FIRST_PAUSE_S, LONGEST_FILE_PAUSE_S
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api, NotReady

_NAME = re.compile(r"files/[^/:?]+$")


class PromptFiles:
    """The files of a prompt that is being sent, each by its name at the service; other addresses are not looked at."""

    def __init__(self, prompt: Prompt, api: Api, clock: Clock) -> None:
        self._prompt, self._api, self._clock = prompt, api, clock
        self._were_ready = False

    async def wait(self, refused: NotReady) -> None:
        """Return when all are ACTIVE, after the prompt was refused for one that seems not to be.

        Raises:
            Refused: They are, and were: the account is refused.
            Missing: The service has no such file.
            Permanent: It could not process a file.
            Held: It has not processed a file in time.
        """
        has_waited = False
        for name in self._names():
            has_waited |= await self._wait_for(name)
        if self._were_ready and not has_waited:
            raise _of_account(refused) from refused
        self._were_ready = True

    def _names(self) -> list[str]:
        parts = [part for part in self._prompt.all_parts() if isinstance(part, dict)]
        found = [_NAME.search(str((part.get("fileData") or {}).get("fileUri"))) for part in parts]
        return list(dict.fromkeys(match[0] for match in found if match))

    async def _wait_for(self, name: str) -> bool:
        """Wait for one file; return whether it had to be waited for."""
        deadline_s, pause_s = self._clock.now_s() + FILE_WAIT_S, FIRST_PAUSE_S
        has_waited = False
        while True:
            state, why = await self._look(name)
            if state == "ACTIVE":
                return has_waited
            if state == "FAILED":
                msg = f"Gemini could not process {name}: {why}"
                raise Permanent(msg)
            if self._clock.now_s() >= deadline_s:
                msg = f"Gemini has not processed {name} within {FILE_WAIT_S:g} s: it is {state}; run it again later"
                raise Held(msg)
            await asyncio.sleep(pause_s)
            has_waited, pause_s = True, min(2 * pause_s, LONGEST_FILE_PAUSE_S)

    async def _look(self, name: str) -> tuple[str, str]:
        try:
            file = await self._api.file(name)
        except NotReady as error:  # to look needs no file that is ready
            raise _of_account(error) from error
        except Transient as error:
            return f"not known ({error})", ""
        return file.state, file.reason


def _of_account(error: NotReady) -> Refused:
    return Refused(f"Gemini does not serve this key ({error}): check its region and billing")
