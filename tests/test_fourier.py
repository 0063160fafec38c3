"""Padded sizes are those of SciPy, which takes half a second to import."""

import pytest
import scipy.fft

from lfjax.fourier import good_centred_size, good_size


@pytest.mark.parametrize("n", [1, 2, 7, 67, 127, 131, 257, 400, 1009])
def test_padded_sizes_are_those_of_scipy(n):
    assert good_size(n) == scipy.fft.next_fast_len(n, real=True)
    size = good_centred_size(n)
    assert size >= n and (size - n) % 2 == 0 and scipy.fft.next_fast_len(size) == size
    assert all(scipy.fft.next_fast_len(m) != m for m in range(n, size, 2))
