"""Tests for the weighted sum of client updates."""

import ml_dtypes
import numpy as np
import tensorflow_federated as tff

from fedaot_tff.aggregators import weighted_sum

_VALUE_TYPE = tff.to_type(
    (
        tff.TensorType(np.float32, [2]),
        tff.TensorType(np.float64),
        tff.TensorType(ml_dtypes.bfloat16, [1]),
    )
)


@tff.federated_computation(
    tff.FederatedType(_VALUE_TYPE, tff.CLIENTS),
    tff.FederatedType(np.float32, tff.CLIENTS),
)
def _sum(value, coefficient):
  return weighted_sum.federated_weighted_sum(value, coefficient)


def _value(a, b, c):
  return (
      np.array(a, np.float32),
      np.float64(b),
      np.array(c, ml_dtypes.bfloat16),
  )


def test_adds_up_and_leaves_weight_zero_out():
  values = [
      _value([1, 2], 1.0 + 2**-40, [128]),
      _value([np.nan, np.inf], np.nan, [np.inf]),
      _value([3, -8], 2.0, [2]),
      _value([0, 0], 0.0, [1]),
  ]
  first, second, third = _sum(values, [2.0, 0.0, 0.5, 1.0])
  np.testing.assert_array_equal(first, [3.5, 0])
  # In float64 for float64.
  assert second == 3 + 2**-39
  # In float32 for half precision, in which 256 + 1 is 256.
  assert third.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(third.astype(np.float32), [258])


def test_sum_of_nobody_is_zero():
  first, second, third = _sum([], [])
  np.testing.assert_array_equal(first, [0, 0])
  assert second == 0
  np.testing.assert_array_equal(third.astype(np.float32), [0])


def test_tensors_keep_their_shapes():
  value_type = tff.to_type(
      (
          tff.TensorType(np.float32, [2, 3]),
          tff.TensorType(np.float32, [0, 4]),
          tff.TensorType(np.float32, [1, 1]),
      )
  )

  @tff.federated_computation(
      tff.FederatedType(value_type, tff.CLIENTS),
      tff.FederatedType(np.float32, tff.CLIENTS),
  )
  def add_up(value, coefficient):
    return weighted_sum.federated_weighted_sum(value, coefficient)

  matrix = np.arange(6, dtype=np.float32).reshape([2, 3])
  one = (matrix, np.zeros([0, 4], np.float32), np.ones([1, 1], np.float32))
  for num_clients in range(3):
    total = add_up([one] * num_clients, [1.0] * num_clients)
    for found, tensor in zip(total, one):
      np.testing.assert_array_equal(found, num_clients * tensor)
