"""Tests for byzantine_bound."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound


@pytest.mark.parametrize(
    'num_byzantine, cohort_size, expected',
    [
        (3, 10, 3),
        (3, 2, 3),
        (0.29, 100, 29),
        (0.4, 20, 8),
        (0.4, 21, 8),
        (0.2, 9, 1),
        (0.0, 9, 0),
        (0.3, 0, 0),
    ],
)
def test_resolve_num_byzantine(num_byzantine, cohort_size, expected):
  resolved = byzantine_bound.resolve_num_byzantine(
      num_byzantine, tf.constant(cohort_size)
  )
  assert resolved.dtype == tf.int32 and resolved == expected


@pytest.mark.parametrize(
    'num_byzantine, expected',
    [(np.int64(2), 2), (np.float64(0.25), 0.25), (0, 0), (0.0, 0.0)],
)
def test_check_num_byzantine(num_byzantine, expected):
  checked = byzantine_bound.check_num_byzantine(num_byzantine)
  assert checked == expected and type(checked) is type(expected)


@pytest.mark.parametrize(
    'num_byzantine, error, found',
    [
        ('3', TypeError, "'3'"),
        (None, TypeError, 'None'),
        (True, TypeError, 'True'),
        (-1, ValueError, '-1'),
        (1.0, ValueError, '1.0'),
        (-0.1, ValueError, '-0.1'),
        (float('nan'), ValueError, 'nan'),
    ],
)
def test_construction_errors(num_byzantine, error, found):
  with pytest.raises(error) as raised:
    _FirstFactory(num_byzantine)
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)


class _FirstFactory(byzantine_bound.BoundedFactory):
  """Takes the f-th finite update, and the round after it."""

  counts_rounds = True

  def bounded_rule(self, updates, is_finite, num_byzantine, round_number):
    row = tf.cast(num_byzantine, tf.int64) + round_number
    return (
        tf.boolean_mask(updates, is_finite)[row],
        collections.OrderedDict(row=row),
    )


def test_rule_knows_the_cohort_and_the_round():
  process = _FirstFactory(0.4).create(tff.TensorType(np.float32, [1]))
  state = process.initialize()
  clients = [[0.0], [1.0], [np.nan], [2.0], [3.0]]
  clients = [np.array(client, np.float32) for client in clients]
  for expected in (2.0, 3.0):
    output = process.next(state, clients)
    state = output.state
    assert output.result == [expected]
    assert output.measurements == collections.OrderedDict(
        row=int(expected), num_byzantine=2, num_non_finite=1
    )
