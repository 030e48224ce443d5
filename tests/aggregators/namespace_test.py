"""What the two namespaces define for themselves."""

import numpy as np
import pytest

from fedaot.namespace import NUMPY
from fedaot_tff.namespace import TENSORFLOW


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('num_rows', [1, 2, 3, 4, 7])
def test_sums_of_the_middle(num_rows, dtype):
  generator = np.random.default_rng(num_rows)
  tied = generator.integers(-1, 2, [num_rows, 50])
  table = np.concatenate([tied, generator.normal(size=tied.shape)], axis=1)
  table = table.astype(dtype)
  for first in range(num_rows):
    for end in range(first + 1, num_rows + 1):
      ordered = np.sort(table.astype(np.float64), axis=0)
      expected = ordered[first:end].sum(axis=0)
      for xp in NUMPY, TENSORFLOW:
        found = np.asarray(xp.sum_of_middle(table, first, end))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
