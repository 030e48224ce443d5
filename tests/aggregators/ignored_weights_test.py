"""Tests for ignored_weights."""

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.aggregators import ignored_weights


def test_without_weights_the_factory_is_as_it_was():
  factory = coordinate_median.CoordinateMedianFactory()
  assert ignored_weights.accept_weights(factory, False) is factory


def test_weights_have_no_effect():
  process = ignored_weights.accept_weights(
      coordinate_median.CoordinateMedianFactory(), True
  ).create(tff.TensorType(np.float32, [1]), tff.TensorType(np.float32))
  clients = [np.array([x], np.float32) for x in (1.0, 2.0, 9.0)]
  output = process.next(process.initialize(), clients, [1.0, np.nan, 1e30])
  assert output.result == [2.0]


@pytest.mark.parametrize('weighted', [None, 1, 'yes'])
def test_other_than_a_bool_is_refused(weighted):
  factory = coordinate_median.CoordinateMedianFactory()
  with pytest.raises(TypeError, match=f'found {weighted!r}'):
    ignored_weights.accept_weights(factory, weighted)
