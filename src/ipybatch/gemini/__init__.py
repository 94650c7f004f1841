"""Gemini: bulk generation in three lanes, with the cost of each.

online  at once, full price
flex    at once if there is room, half price
batch   within a day, half price

session       `generate` and the session that it returns
arguments     what `generate` takes: the settings of each lane, and the rest
spec          all settings of a session, and its parts
lanes         the lanes that a prompt goes through, and the deadlines of these
online_call   one request and its cost
batch_call    one prompt in the batch lane, and its cost
tries         answers that were of no use, and which of them are sent again
statement     what was sent, billed there, kept here and lost
bill_facts    what the panel shows of what was saved, and of the jobs
prompts       items, as users write them and as they are sent
prompt_files  files that a prompt names, waited for until they are processed
images        images of prompts and of answers
money/        prices, tokens, budgets, credits, quotes
batch/        batch jobs: of a session, and by hand
service/      requests, replies and pacing
"""

from __future__ import annotations

from ipybatch.gemini.arguments import Auto, Batch, Flex, Online
from ipybatch.gemini.batch.manual import GeminiBatches
from ipybatch.gemini.images import Image
from ipybatch.gemini.money.credits import CreditAccount, InsufficientCredits, credits_of
from ipybatch.gemini.money.prices import price_of
from ipybatch.gemini.money.quote import Quote, compare
from ipybatch.gemini.money.usage import usage
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.service.pacer import Model
from ipybatch.gemini.service.reply import Tokens
from ipybatch.gemini.session import GeminiSession, generate

__all__ = [
    "Auto",
    "Batch",
    "CreditAccount",
    "Flex",
    "GeminiBatches",
    "GeminiSession",
    "Image",
    "InsufficientCredits",
    "Model",
    "Online",
    "Prompt",
    "Quote",
    "Tokens",
    "compare",
    "credits_of",
    "generate",
    "price_of",
    "to_prompts",
    "usage",
]
