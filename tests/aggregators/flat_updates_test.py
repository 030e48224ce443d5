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


def test_gathering_process_applies_the_rule():
  """The rule sees all rows, the finite mask, and returns any measurements."""

  def keep_maximum(updates, is_finite):
    kept = tf.boolean_mask(updates, is_finite)
    return tf.reduce_max(kept, axis=0), collections.OrderedDict(
        is_finite=is_finite, num_rows=tf.shape(updates)[0]
    )

  value_type = tff.to_type((tff.TensorType(np.float64, [2]), np.float16))
  process = flat_updates.create_gathering_process(value_type, keep_maximum)
  assert isinstance(process, tff.templates.AggregationProcess)
  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(value_type, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          is_finite=tff.TensorType(np.bool_, [None]), num_rows=np.int32
      ),
      tff.SERVER,
  )

  updates = [
      (np.array([1.0, -5.0]), np.float16(2.0)),
      (np.array([9.0, 9.0]), np.float16(np.nan)),
      (np.array([0.0, -4.0]), np.float16(3.0)),
  ]
  output = process.next(process.initialize(), updates)
  vector, scalar = output.result
  assert vector.dtype == np.float64 and scalar.dtype == np.float16
  np.testing.assert_array_equal(vector, [1.0, -4.0])
  assert scalar == 3.0
  np.testing.assert_array_equal(
      output.measurements['is_finite'], [True, False, True]
  )
  assert output.measurements['num_rows'] == 3


def test_gathering_process_rejects_integers():
  with pytest.raises(TypeError, match='tf.int32'):
    flat_updates.create_gathering_process(
        tff.TensorType(np.int32), lambda updates, is_finite: (updates[0], {})
    )


def test_means_of_rows():
  updates = tf.constant([[1.0, 2.0], [np.nan, np.inf], [3.0, 6.0], [9.0, 0.0]])
  counts = tf.constant(
      [[1.0, 0, 1, 0], [0, 0, 0, 0], [3, 0, 0, 1], [0, 0, 0, 1]]
  )
  np.testing.assert_allclose(
      flat_updates.means_of_rows(
          updates, tf.constant([True, False, True, True]), counts
      ),
      [[2.0, 4.0], [0.0, 0.0], [3.0, 1.5], [9.0, 0.0]],
  )


def test_weights_before_means():
  counts = tf.constant([[1.0, 0, 1, 0], [0, 0, 0, 0], [3, 0, 0, 1]])
  np.testing.assert_allclose(
      flat_updates.weights_before_means(tf.constant([0.5, 0.1, 0.4]), counts),
      [0.55, 0.0, 0.25, 0.1],
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


def test_clipped_mean():
  updates = tf.constant(
      [[3.0, 4.0], [np.nan, 0.0], [0.6, 0.8], [9.0, 9.0], [0.0, 0.0]]
  )
  is_finite = tf.constant([True, False, True, True, True])
  norms = tf.norm(updates, axis=1)
  mean, weights = flat_updates.clipped_mean(
      updates,
      is_finite,
      norms,
      tf.constant(2.0),
      tf.constant([True, False, True, False, True]),
  )
  np.testing.assert_allclose(mean, [1.8 / 3, 2.4 / 3], rtol=1e-6)
  np.testing.assert_allclose(weights, [1 / 3, 0, 1 / 3, 0, 1 / 3])
  mean, weights = flat_updates.clipped_mean(
      updates, is_finite, norms, tf.constant(0.0), tf.fill([5], False)
  )
  np.testing.assert_array_equal(mean, [0.0, 0.0])
  np.testing.assert_array_equal(weights, [0.0] * 5)


def test_check_seed():
  assert flat_updates.check_seed(2**63 - 1) == 2**63 - 1
  assert type(flat_updates.check_seed(np.int32(5))) is int
  drawn = {flat_updates.check_seed(None) for _ in range(3)}
  assert len(drawn) == 3 and all(0 <= seed < 2**63 for seed in drawn)
  for seed, error in (
      (-1, ValueError),
      (2**63, ValueError),
      (True, TypeError),
      (1.0, TypeError),
  ):
    with pytest.raises(error, match=str(seed)):
      flat_updates.check_seed(seed)


def test_rule_that_counts_rounds():
  class RoundFactory(flat_updates.GatheringFactory):
    counts_rounds = True

    def rule(self, updates, is_finite, round_number):
      return updates[0] + tf.cast(round_number, tf.float32), (
          collections.OrderedDict(num_clients=tf.size(is_finite))
      )

  process = RoundFactory().create(tff.TensorType(np.float32, [2]))
  assert process.state_type == tff.FederatedType(np.int64, tff.SERVER)
  state = process.initialize()
  for round_number in range(2):
    output = process.next(state, [np.array([5.0, 7.0], np.float32)])
    state = output.state
    np.testing.assert_array_equal(
        output.result, [5.0 + round_number, 7.0 + round_number]
    )
    assert output.measurements['num_clients'] == 1
