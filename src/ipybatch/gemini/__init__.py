"""Gemini: bulk generation through three lanes, with the cost of each.

online  at once, full price
flex    at once when there is room, half price
batch   within a day, half price
"""

from __future__ import annotations

from ipybatch.gemini.answers import Tokens
from ipybatch.gemini.batches import GeminiBatches
from ipybatch.gemini.calls import usage
from ipybatch.gemini.credits import CreditAccount, InsufficientCredits, credits_of
from ipybatch.gemini.generating import GeminiSession, generate
from ipybatch.gemini.images import Image
from ipybatch.gemini.models import Model
from ipybatch.gemini.prices import price_of
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.quote import Quote, compare

__all__ = [
    "CreditAccount",
    "GeminiBatches",
    "GeminiSession",
    "Image",
    "InsufficientCredits",
    "Model",
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
