"""Tests for the attacks whose strength is tried on the defence."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.attacks import alie
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import optimal_strength
from fedaot_tff.learning import composition

_TYPE = tff.to_type(collections.OrderedDict(a=tff.TensorType(np.float32, [2])))
_HONEST = np.array([[1, 2], [3, 2], [5, -1], [1, 1]], np.float32)
_INDICES = [np.int32(i) for i in (-1, 0, -1, -1, 1, -1)]


def _update(row):
  return collections.OrderedDict(a=np.asarray(row, np.float32))


def _context(factory):
  process = tff.aggregators.as_weighted_aggregator(factory).create(
      _TYPE, tff.TensorType(np.float32)
  )
  defence = composition.defence_of(
      process, update_weight_type=tff.TensorType(np.float32)
  )
  return process.initialize(), attack.Context(defence=defence)


def _attack(poisoning, factory):
  """The strength that is chosen and what all clients send."""
  defence_state, context = _context(factory)
  process = poisoning.create(_TYPE, context)
  honest = iter(_HONEST)
  updates = [
      _update([9, 9] if index >= 0 else next(honest)) for index in _INDICES
  ]
  output = process.next(
      process.initialize(), updates, _INDICES, _update([0, 0]), defence_state
  )
  return (
      float(output.measurements['strength']),
      np.array([sent['a'] for sent in output.result]),
  )


def _ipm(strengths):
  return optimal_strength.OptimalStrength(ipm.reversed_mean, strengths)


def _expected(vector):
  rows = iter(_HONEST)
  return np.array([vector if i >= 0 else next(rows) for i in _INDICES])


def test_takes_the_largest_strength_against_a_mean():
  strength, sent = _attack(
      _ipm([0.5, 3.0, 1.0]),
      tff.aggregators.UnweightedMeanFactory(),
  )
  assert strength == 3
  np.testing.assert_allclose(sent, _expected(-3 * _HONEST.mean(axis=0)))


def test_alie_sends_the_mean_less_deviations():
  strength, sent = _attack(
      optimal_strength.OptimalStrength(alie.shifted_mean, [0.25]),
      tff.aggregators.UnweightedMeanFactory(),
  )
  assert strength == 0.25
  np.testing.assert_allclose(
      sent,
      _expected(_HONEST.mean(axis=0) - 0.25 * _HONEST.std(axis=0)),
      rtol=1e-6,
  )


def test_takes_what_a_defence_lets_through():
  # Norms above 5.2 are zeroed: of the strengths times 2.7, the norm of the
  # honest mean, only the smallest is not.
  strength, _ = _attack(
      _ipm([4.0, 0.5, 2.0]),
      tff.aggregators.zeroing_factory(
          5.2, tff.aggregators.UnweightedMeanFactory(), norm_order=2.0
      ),
  )
  assert strength == 0.5


def test_does_not_change_the_state_of_the_defence():
  process = optimal_strength.optimal_alie().create(
      _TYPE, _context(coordinate_median.CoordinateMedianFactory())[1]
  )
  assert process.next.type_signature.result.state.member.is_equivalent_to(
      tff.to_type(())
  )


def test_oracle_makes_all_strengths_equal():
  weight_type = tff.TensorType(np.float32)
  process = tff.aggregators.MeanFactory().create(_TYPE, weight_type)
  defence = composition.defence_of(
      process, update_weight_type=weight_type, discard_attackers=True
  )

  @tff.federated_computation(
      process.initialize.type_signature.result,
      *attack.next_parameters(_TYPE, attack.Context())[:3],
  )
  def aggregate(state, update, index, model):
    return defence.aggregate(state, update, index, model)

  honest = iter(_HONEST)
  updates = [
      _update([np.nan] * 2 if i >= 0 else next(honest)) for i in _INDICES
  ]
  found = aggregate(process.initialize(), updates, _INDICES, _update([0, 0]))
  np.testing.assert_allclose(found['a'], _HONEST.mean(axis=0), rtol=1e-6)


def test_needs_a_defence():
  with pytest.raises(ValueError, match='give one in the context'):
    optimal_strength.optimal_alie().create(_TYPE)


@pytest.mark.parametrize(
    'strengths, error, message',
    [
        ([], ValueError, 'number of strengths must be >= 1; found 0'),
        ([1.0, -1.0], ValueError, 'strengths must be > 0; found -1.0'),
        ('12', TypeError, "strengths must be a number; found '1'"),
    ],
)
def test_refuses_wrong_strengths(strengths, error, message):
  with pytest.raises(error, match=message):
    _ipm(strengths)
