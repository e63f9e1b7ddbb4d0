"""Interpolation along the first axis, against NumPy's of one dimension."""

import numpy as np

from hamshoot.support.interpolation import interpolate


def test_it_is_that_of_numpy_in_every_entry():
    rng = np.random.default_rng(0)
    x, at = np.sort(rng.random(7)), rng.uniform(-0.5, 1.5, 40)
    values = rng.standard_normal((7, 2, 3))
    found = interpolate(x, values, at)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(found[:, i, j], np.interp(at, x, values[:, i, j]),
                                       atol=1e-14)


def test_one_place_is_a_constant():
    np.testing.assert_array_equal(interpolate(np.array([0.5]), np.ones((1, 2)), np.zeros(3)),
                                  np.ones((3, 2)))
