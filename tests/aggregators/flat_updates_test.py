"""Tests of flat client updates."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float16, [2, 3]),
        bias=(
            tff.TensorType(np.float64),
            [tff.TensorType(tf.bfloat16.as_numpy_dtype, [1])],
        ),
        empty=tff.TensorType(np.float32, [0, 4]),
        scale=tff.TensorType(np.float32, [2]),
    )
)


def _update():
  """Numbers that all the dtypes can hold."""
  return collections.OrderedDict(
      kernel=tf.constant([[1.0, -2.0, 3.0], [4.0, 5.5, 6.0]], tf.float16),
      bias=(tf.constant(7.0, tf.float64), [tf.constant([8.0], tf.bfloat16)]),
      empty=tf.zeros([0, 4]),
      scale=tf.constant([9.0, -0.25]),
  )


def test_flatten_casts_and_concatenates():
  flat = flat_updates.flatten(_update())
  assert flat.dtype == tf.float32
  # `tf.nest` visits the keys in alphabetical order.
  np.testing.assert_array_equal(
      flat, [7.0, 8.0, 1.0, -2.0, 3.0, 4.0, 5.5, 6.0, 9.0, -0.25]
  )


def test_unflatten_inverts_flatten():
  update = _update()
  specs = tf.nest.map_structure(
      lambda x: tf.TensorSpec(x.shape, x.dtype), update
  )
  for like in (update, specs):
    result = flat_updates.unflatten(flat_updates.flatten(update), like)
    assert list(result) == list(update)
    for found, expected in zip(
        tf.nest.flatten(result), tf.nest.flatten(update)
    ):
      assert found.dtype == expected.dtype
      np.testing.assert_array_equal(found, expected)


def test_flatten_and_unflatten_a_scalar():
  flat = flat_updates.flatten(tf.constant(3.0, tf.float64))
  np.testing.assert_array_equal(flat, [3.0])
  scalar = flat_updates.unflatten(flat, tf.TensorSpec([], tf.float64))
  assert scalar.shape == [] and scalar.dtype == tf.float64


@pytest.mark.parametrize(
    'entry, expected',
    [
        (0.0, True),
        (-3e38, False),
        (9.9e14, True),
        (-9.9e14, True),
        (1.1e15, False),
        (-1.1e15, False),
        (np.nan, False),
        (np.inf, False),
        (-np.inf, False),
    ],
)
def test_is_finite_update(entry, expected):
  flat = tf.constant([1.0, entry, -2.0], tf.float32)
  assert bool(flat_updates.is_finite_update(flat)) is expected


def test_float64_beyond_float32_is_not_finite():
  flat = flat_updates.flatten(tf.constant([1.0, 1e300], tf.float64))
  assert not flat_updates.is_finite_update(flat)


def test_num_coordinates():
  assert flat_updates.num_coordinates(_VALUE_TYPE) == 10
  assert flat_updates.num_coordinates(tff.TensorType(np.float32)) == 1


def test_check_accepts_nested_mixed_floats():
  flat_updates.check_float_value_type(_VALUE_TYPE)


@pytest.mark.parametrize(
    'value_type, found',
    [
        ((np.float32, tff.TensorType(np.int32, [3])), 'tf.int32'),
        (np.bool_, 'tf.bool'),
        (np.complex64, 'tf.complex64'),
        (np.str_, 'tf.string'),
        ((np.float32, tff.TensorType(np.float32, [None, 2])), '(None, 2)'),
        (tff.SequenceType(np.float32), 'float32*'),
        (tff.FederatedType(np.float32, tff.CLIENTS), '@CLIENTS'),
        (((), []), 'at least one tensor'),
        (tff.TensorType(np.float32, [3, 0]), 'at least one coordinate'),
    ],
)
def test_check_names_what_is_wrong(value_type, found):
  with pytest.raises(TypeError) as error:
    flat_updates.check_float_value_type(tff.to_type(value_type))
  assert found in str(error.value)
  assert '\n' not in str(error.value)


def test_inner_products():
  updates = np.random.default_rng(0).normal(size=[5, 4100]).astype(np.float32)
  wide = updates.astype(np.float64)
  np.testing.assert_allclose(
      flat_updates.inner_products(tf.constant(updates)),
      wide @ wide.T,
      rtol=1e-12,
  )


@pytest.mark.parametrize(
    'norms, is_finite, expected',
    [
        ([3.0, 1.0, 2.0], [True, True, True], 2.0),
        ([3.0, 1.0, 2.0, 7.0], [True, True, True, True], 2.5),
        ([np.nan, 1.0, np.inf, 7.0], [False, True, False, True], 4.0),
        ([np.nan, 5.0], [False, True], 5.0),
        ([np.nan], [False], 0.0),
        ([], [], 0.0),
    ],
)
def test_median_norm(norms, is_finite, expected):
  median = flat_updates.median_norm(
      tf.constant(norms, tf.float32), tf.constant(is_finite, tf.bool)
  )
  assert median.dtype == tf.float32 and median == expected
