"""Gemini: bulk generation through three lanes, with the cost of each.

online  at once, full price
flex    at once when there is room, half price
batch   within a day, half price
"""

from __future__ import annotations
