"""What a session is expected to cost: what budgets reserve, and what the estimate says."""

import pytest

from ipybatch.gemini import generate
from ipybatch.gemini.money.prices import price_of
from ipybatch.gemini.service.reply import Tokens
from tests.gemini.conftest import KEY


def test_an_image_is_expected_at_the_price_of_an_image(tmp_path):
    """It costs twelve times what as much text does."""
    session = generate(
        ["Draw a star"], model="gemini-2.5-flash-image", modalities=["IMAGE"], api_key=KEY, journal=tmp_path / "j.db"
    )
    image = price_of("gemini-2.5-flash-image", Tokens(in_=2, out=1290, image=1290), "online")
    assert session.estimate().usd == pytest.approx(float(image.usd))
    assert session.estimate().usd > 0.03


def test_many_short_prompts_are_not_priced_as_one_long_one(tmp_path):
    """A long prompt may be of a dearer tier."""
    prompts = [f"{number} " + "star " * 20_000 for number in range(20)]
    session = generate(prompts, model="gemini-2.5-pro", output_tokens=100, api_key=KEY, journal=tmp_path / "j.db")
    each = price_of("gemini-2.5-pro", Tokens(in_=25_000, out=100), "online")
    assert session.estimate().usd == pytest.approx(20 * float(each.usd), rel=0.01)
