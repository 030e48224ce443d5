"""Tests for the attacks whose strength is tried on the defence."""

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.attacks import alie
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import optimal_strength
from fedaot_tff.learning import adversary
from fedaot_tff.learning import composition

_TYPE = tff.TensorType(np.float32, [2])
_WEIGHT_TYPE = tff.TensorType(np.float32)
_HONEST = np.array([[1, 2], [3, 2], [5, -1], [1, 1]], np.float32)
_MEAN = _HONEST.mean(axis=0)


def _attack(make_vector, strengths, factory, **options):
  """The strength that is chosen and what two attackers send."""
  aggregator = factory.create(_TYPE, _WEIGHT_TYPE)
  defence = composition.defence_of(
      aggregator, update_weight_type=_WEIGHT_TYPE, **options
  )
  process = optimal_strength.OptimalStrength(make_vector, strengths).create(
      _TYPE, adversary.Context(defence=defence)
  )
  first, second = _HONEST[:2], _HONEST[2:]
  own = np.float32([[9, 9]])
  output = process.next(
      process.initialize(),
      list(np.concatenate([first, own, second, own])),
      [np.int32(i) for i in (-1, -1, 0, -1, -1, 1)],
      np.zeros([2], np.float32),
      aggregator.initialize(),
  )
  np.testing.assert_array_equal(output.result[2], output.result[5])
  return float(output.measurements['strength']), output.result[2]


@pytest.mark.parametrize(
    'make_vector, expected',
    [
        (ipm.reversed_mean, -3 * _MEAN),
        (alie.shifted_mean, _MEAN - 3 * _HONEST.std(axis=0)),
    ],
)
def test_takes_the_largest_strength_against_a_mean(make_vector, expected):
  strength, sent = _attack(
      make_vector, [0.5, 3.0, 1.0], tff.aggregators.MeanFactory()
  )
  assert strength == 3
  np.testing.assert_allclose(sent, expected, rtol=1e-6)


def test_takes_what_a_defence_lets_through():
  # Norms above 5.2 are zeroed: of the strengths times 2.7, the norm of the
  # honest mean, only the smallest is not.
  strength, _ = _attack(
      ipm.reversed_mean,
      [4.0, 0.5, 2.0],
      tff.aggregators.zeroing_factory(
          5.2, tff.aggregators.MeanFactory(), norm_order=2.0
      ),
  )
  assert strength == 0.5


@pytest.mark.parametrize('strengths', [[0.5, 4.0], [4.0, 0.5]])
def test_against_an_oracle_all_strengths_are_equal(strengths):
  strength, _ = _attack(
      ipm.reversed_mean,
      strengths,
      tff.aggregators.MeanFactory(),
      discard_attackers=True,
  )
  assert strength == strengths[0]


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
    optimal_strength.OptimalStrength(ipm.reversed_mean, strengths)
