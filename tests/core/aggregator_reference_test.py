"""`FedAOTAggregator` against the independent reference, round by round."""

import numpy as np
import pytest

import fedaot
from fedaot import sketch
from tests.reference import fedaot_reference

# Two layers, so that agreement mode has two groups.
_SHAPES, _DIMENSION, _SKETCH = [(3, 4), (4,), (2, 1)], 18, 8
_CONFIG = fedaot.FedAOTConfig(
    sketch_dimension=_SKETCH, agreement_sketch_dimension=2 * _SKETCH
)


class _Aggregator(fedaot.FedAOTAggregator):
  """Its signs and root updates are known."""

  def _draw_signs(self, groups):
    rng = np.random.default_rng(5)
    self.flat_signs, tables = [], []
    for group in groups:
      signs = rng.choice([-1.0, 1.0], group.num_coordinates)
      self.flat_signs.append(signs)
      tables.append(np.zeros([1, group.length], np.float32))
      tables[-1][0, : len(signs)] = signs
    return [sketch.Signs(t, np.ones(1, np.float32)) for t in tables]


def _split(vector):
  parts = np.split(np.asarray(vector, float), [12, 16])
  return [part.reshape(shape) for part, shape in zip(parts, _SHAPES)]


def _flatten(arrays):
  return np.concatenate([np.ravel(array) for array in arrays])


class _Known:
  """A hold-out whose root update and gradient are given."""

  num_examples = 1

  def __init__(self):
    self.root = self.gradient = None

  def train(self, model, positions):
    return [w - r for w, r in zip(model, _split(self.root))]

  def loss_and_gradient(self, model, positions):
    return 0.0, _split(self.gradient)


@pytest.mark.parametrize('has_holdout', [False, True])
def test_rounds_equal_the_reference(has_holdout):
  rng = np.random.default_rng(1)
  known = _Known() if has_holdout else None
  aggregator = _Aggregator(known, config=_CONFIG, seed=0)
  kind = 'HoldOutReference' if has_holdout else 'AgreementReference'
  reference, model = None, np.zeros(_DIMENSION)
  base = rng.normal(size=_DIMENSION)
  for round_num in range(5):
    updates = fedaot_reference.rough_cohort(rng, round_num, base)
    root, gradient = base + 0.3 * rng.normal(size=[2, _DIMENSION])
    if has_holdout:
      known.root, known.gradient = root, -gradient
    new_arrays = aggregator.aggregate(
        _split(model), [_split(model - u) for u in updates]
    )
    aggregator.learn(new_arrays)
    new_model = _flatten(new_arrays)
    if reference is None:
      reference = getattr(fedaot_reference, kind)(
          signs=aggregator.flat_signs[0]
          if has_holdout
          else aggregator.flat_signs,
          sketch_dimension=_SKETCH,
          sizes=[12, 4, 2],
      )
    if has_holdout:
      expected = reference.aggregate(updates, root)
      # The reference adds the aggregate to the model.
      reference.learn(gradient)
    else:
      expected = reference.next(updates)

    found, finite = aggregator.last_round, np.asarray(expected['finite'], bool)
    np.testing.assert_allclose(model - new_model, expected['result'], atol=1e-5)
    np.testing.assert_allclose(found.weights, expected['weights'], atol=1e-5)
    for name in ('z', 'statistics'):
      np.testing.assert_allclose(
          getattr(found, name)[finite],
          np.asarray(expected[name])[finite],
          atol=1e-3,
      )
    np.testing.assert_allclose(
        found.norm_bound, expected['norm_bound'], rtol=1e-5
    )
    assert found.num_attenuated == np.sum(
        finite & (expected['weights'] < 0.5 / finite.sum())
    )
    state = aggregator.state_dict()
    for name, value in (
        ('raw_slope', reference.b),
        ('margin', reference.m),
        ('log_sharpness', reference.log_sharpness),
    ):
      np.testing.assert_allclose(state[f'weighting.{name}'], value, atol=1e-5)
    # With a hold-out a projection, which is longer than the update.
    known_reference = (
        state['reference'][:_DIMENSION] * aggregator.flat_signs[0]
        if has_holdout
        else state['reference']
    )
    np.testing.assert_allclose(known_reference, reference.reference, atol=1e-5)
    if not has_holdout:
      for name in ('camp_memory', 'support', 'age'):
        np.testing.assert_allclose(
            state[name], getattr(reference, name), atol=1e-5, err_msg=name
        )
    model = new_model
  assert state['meta_optimizer.step'] == (5 if has_holdout else 4)
