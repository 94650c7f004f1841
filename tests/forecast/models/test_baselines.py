"""Models that an evaluation shows beside a forecast's own."""

from importlib.util import find_spec

import pytest

from ipybatch.errors import InputError
from ipybatch.forecast.models.baselines import NAMED, baselines_of
from ipybatch.forecast.settings import Settings

PACKAGES = ("statsforecast", "mlforecast")
SETTINGS = Settings(horizon=3)


def test_by_default_they_are_the_naive_ones_and_those_of_packages_that_are_installed():
    names, others = baselines_of(None, SETTINGS)
    assert names == NAMED
    labels = [label for one in others for label in one.labels.values()]
    assert {label.partition(" ")[0] for label in labels} == {name for name in PACKAGES if find_spec(name)}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_asked_for_and_not_installed_is_refused(name):
    if find_spec(name):
        pytest.skip("it is installed")
    with pytest.raises(InputError, match=f"baselines must be installed, got '{name}': pip install"):
        baselines_of([name], SETTINGS)


@pytest.mark.parametrize("freq", ["D", "W", "M"])
def test_standard_models_are_called_by_package_and_name(freq):
    pytest.importorskip("statsforecast")
    pytest.importorskip("mlforecast")
    _, others = baselines_of(PACKAGES, Settings(horizon=3, freq=freq))
    labels = [label for one in others for label in one.labels.values()]
    assert labels[:3] == ["statsforecast IMAPA", "statsforecast TSB", "statsforecast CrostonSBA"]
    assert labels[3].startswith("mlforecast ")


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match="baselines must be names of models"):
        baselines_of(["prophet"], SETTINGS)
    with pytest.raises(InputError, match="models must be names or have fit and predict"):
        baselines_of([3], SETTINGS)
