import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.forecast.features import features
from tests.forecast.retail import matrix, series


@given(seed=st.integers(0, 99), factor=st.sampled_from([0.001, 3.0, 1e5]))
def test_features_have_no_scale(seed, factor):
    """The part that sells ten and the part that sells ten thousand look alike."""
    values = matrix(8, 30, seed=seed)
    values = values[values.any(axis=1)]
    small, scale = features(series(values), [10, 20])
    large, larger = features(series(values * factor), [10, 20])
    moved = np.array([np.diff(values[:, :cut], axis=1).any(axis=1) for cut in (10, 20)])
    assert np.allclose(small[moved], large[moved])
    assert np.allclose(scale[moved] * factor, larger[moved])


@given(seed=st.integers(0, 99), cut=st.integers(1, 29))
def test_features_know_nothing_beyond_their_origin(seed, cut):
    values = matrix(8, 30, seed=seed)
    changed = values.copy()
    changed[:, cut:] = 1e6
    before, after = features(series(values), [cut]), features(series(changed), [cut])
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


def test_features_and_scales_are_finite_where_nothing_sold():
    seen, scale = features(series(np.zeros((3, 10))), [1, 5, 10])
    assert np.isfinite(seen).all()
    assert (scale == 1).all()
