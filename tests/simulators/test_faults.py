import dataclasses
import math
import statistics
import subprocess
import sys

import pytest

from ipybatch.simulators.faults import KINDS, Faults, uniforms

MIXED = Faults(seed=7, rate_slow=0.2, **{f"rate_{kind}": 0.1 for kind in KINDS})


def kinds(faults, n=2000):
    return [faults.kind(str(number), 1) for number in range(n)]


def test_the_default_is_sound_and_immediate():
    faults = Faults()
    assert set(kinds(faults)) == {None}
    assert faults.way_s("440", 1) == (0.0, 0.0)
    assert faults.delay_s("440", 1) == 0.0
    assert not faults.in_outage(0.0)


def test_the_same_seed_gives_the_same_faults():
    """Two simulators with equal settings break the same requests."""
    assert kinds(MIXED) == kinds(dataclasses.replace(MIXED))


def test_another_seed_gives_other_faults():
    assert kinds(MIXED) != kinds(dataclasses.replace(MIXED, seed=8))


def test_decisions_are_the_same_in_another_process():
    """A resume in a new process meets the faults that its first half would have met."""
    code = "from ipybatch.simulators.faults import uniforms; print(uniforms('kind', 7, '440', 1))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(uniforms("kind", 7, "440", 1))


def test_asking_again_draws_again():
    """A retry may succeed: the nth time decides, not the item alone."""
    faults = Faults(rate_500=0.5)
    assert {faults.kind("440", nth) for nth in range(1, 30)} == {"500", None}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_comes_as_often_as_its_rate_says(kind):
    """2,000 draws at 0.1 lie within four standard deviations."""
    assert kinds(MIXED).count(kind) == pytest.approx(200, abs=54)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_one_breaks_every_request(kind):
    assert set(kinds(Faults(**{f"rate_{kind}": 1.0}))) == {kind}


def test_slow_answers_take_slow_s_longer():
    delays = [MIXED.delay_s(str(number), 1) for number in range(2000)]
    assert set(delays) == {0.0, MIXED.slow_s}
    assert delays.count(MIXED.slow_s) == pytest.approx(400, abs=72)


def test_latency_is_split_anywhere_into_a_way_in_and_a_way_out():
    """Arrival lies between sending and answer: early for some, late for others."""
    faults = Faults(latency_s=(0.1, 0.2), jitter_s=0.05)
    ways = [faults.way_s(str(number), 1) for number in range(2000)]
    totals = [sum(way) for way in ways]
    shares = [in_s / (in_s + out_s) for in_s, out_s in ways]
    assert min(totals) >= 0.1
    assert max(totals) <= 0.25
    assert max(totals) > 0.2, "jitter is added to the latency"
    assert min(shares) < 0.01
    assert max(shares) > 0.99


def test_a_number_as_latency_is_exact():
    assert sum(Faults(latency_s=0.3).way_s("440", 1)) == pytest.approx(0.3)


def test_a_lognormal_latency_has_the_median_and_the_spread_it_is_given():
    """Half the answers are faster than the median, and the logarithms spread by sigma."""
    faults = Faults(latency_s=0.2, latency_sigma=0.5)
    totals = [sum(faults.way_s(str(number), 1)) for number in range(4000)]
    assert statistics.median(totals) == pytest.approx(0.2, rel=0.05)
    assert statistics.stdev(math.log(total) for total in totals) == pytest.approx(0.5, rel=0.05)


def test_an_outage_holds_from_its_start_to_before_its_end():
    faults = Faults(outages=[(10, 20), (50, math.inf)])
    down = [now_s for now_s in (0, 9.999, 10, 19.999, 20, 49, 50, 1e9) if faults.in_outage(now_s)]
    assert down == [10, 19.999, 50, 1e9]


def test_faults_cannot_be_changed_while_they_are_in_use():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MIXED.rate_500 = 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate_500": 1.5}, r"rate_500 must be in \[0, 1\], got 1.5"),
        ({"rate_slow": -0.1}, r"rate_slow must be in \[0, 1\], got -0.1"),
        ({"rate_html": math.nan}, r"rate_html must be in \[0, 1\], got nan"),
        ({"rate_429": 0.6, "rate_500": 0.6}, r"rate_429 \+ rate_500 .* must be in \[0, 1\], got 1.2"),
        ({"slow_s": -1}, r"slow_s must be >= 0 and finite, got -1"),
        ({"jitter_s": math.inf}, r"jitter_s must be >= 0 and finite, got inf"),
        ({"latency_sigma": -1}, r"latency_sigma must be >= 0 and finite, got -1"),
        ({"latency_s": -0.1}, r"latency_s must be >= 0 and finite, .* got -0.1"),
        ({"latency_s": (0.3, 0.1)}, r"latency_s must be .* got \(0.3, 0.1\)"),
        ({"latency_s": (0.1, 0.2, 0.3)}, r"latency_s must be .* got \(0.1, 0.2, 0.3\)"),
        ({"outages": [(5, 5)]}, r"outages must be pairs with 0 <= from_s < to_s, got \(5, 5\)"),
        ({"outage_kind": "smoke"}, r"outage_kind must be one of 429, 500, drop, .*, hang, got 'smoke'"),
    ],
)
def test_bad_faults_name_field_value_and_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Faults(**fields)


def test_five_shares_of_a_fifth_add_up_to_one():
    """Rounding in a sum of floats is not the user's mistake."""
    assert None not in kinds(Faults(rate_429=0.2, rate_500=0.2, rate_drop=0.2, rate_html=0.2, rate_truncated=0.2))
