"""The process that mirrors the model, with a round that shows what it sees."""

import collections
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        b=tff.TensorType(np.float32, [2]), a=tff.TensorType(np.float64)
    )
)
_INITIAL = collections.OrderedDict(
    b=np.array([1, 2], np.float32), a=np.float64(3)
)


class _InitialModel:
  """Of a hold-out only what the mirror asks."""

  def initial_model(self):
    # In the order of `tf.nest.flatten`, by key.
    return holdout_lib.GlobalModel(
        (tf.constant(_INITIAL['a']), tf.constant(_INITIAL['b']))
    )


class _SumRound(model_aware.ModelAwareRound):
  """Sums updates up; measures the models and the weights it was given."""

  holdout = _InitialModel()

  @property
  def initialize(self):
    @tff.tensorflow.computation
    def initialize():
      return collections.OrderedDict(rounds=0)

    return initialize

  def weigh(self, state, value, weight=None, model=None):
    return types.SimpleNamespace(
        result=tff.federated_sum(value),
        model=model,
        weight=None if weight is None else tff.federated_sum(weight),
    )

  def learn(self, state, weighed, model_after=None):
    @tff.tensorflow.computation(state.type_signature.member)
    def count(state):
      return collections.OrderedDict(rounds=state['rounds'] + 1)

    measurements = collections.OrderedDict(
        before=weighed.model.trainable, after=model_after.trainable
    )
    if weighed.weight is not None:
      measurements['weight'] = weighed.weight
    return tff.federated_map(count, state), tff.federated_zip(measurements)


class _SumFactory(model_aware.ModelAwareFactory):

  needs_holdout = False

  def __init__(self, optimizer):
    super().__init__()
    self._server_optimizer = optimizer

  def create_round(self, value_type, weight_type):
    return _SumRound()


def _create(optimizer, weight_type=None):
  return _SumFactory(optimizer).create_process(_VALUE_TYPE, weight_type)


def _update(scale):
  return collections.OrderedDict(
      b=np.array([scale, -scale], np.float32), a=np.float64(2 * scale)
  )


def _assert_equal(found, expected, **kwargs):
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], **kwargs)


def test_round_sees_the_model_before_and_after_each_aggregate():
  process = _create(
      tff.learning.optimizers.build_sgdm(0.5), tff.TensorType(np.float32)
  )
  assert process.is_weighted
  state = process.initialize()
  assert list(state) == ['rounds', 'mirror']
  assert model_aware.is_mirrored(state)
  model = dict(_INITIAL)
  for round_num in range(2):
    output = process.next(state, [_update(1.0), _update(3.0)], [5.0, 6.0])
    _assert_equal(output.result, _update(4.0))
    _assert_equal(output.measurements['before'], model)
    model = {name: w - 0.5 * _update(4.0)[name] for name, w in model.items()}
    _assert_equal(output.measurements['after'], model)
    assert output.measurements['weight'] == 11
    state = output.state
    assert state['rounds'] == round_num + 1
    _assert_equal(state['mirror']['weights'], model)


def test_aggregate_that_is_not_finite_changes_neither_model_nor_optimizer():
  process = _create(tff.learning.optimizers.build_adam(0.1))
  assert not process.is_weighted
  first = process.next(process.initialize(), [_update(1.0)]).state
  assert np.any(first['mirror']['weights']['b'] != _INITIAL['b'])
  bad = _update(1.0)
  bad['a'] = np.float64(np.inf)
  output = process.next(first, [bad])
  assert output.result['a'] == np.inf
  assert output.state['rounds'] == 2
  tf.nest.map_structure(
      np.testing.assert_array_equal, output.state['mirror'], first['mirror']
  )
  _assert_equal(output.measurements['after'], first['mirror']['weights'])


@pytest.mark.parametrize(
    'state',
    [
        (),
        None,
        {},
        {'mirror': ()},
        {'mirror': {'weights': 1}},
        {'mirror': dict.fromkeys(model_aware.MIRROR_ENTRIES + ('more',))},
        {'weights': 1, 'optimizer': 2},
    ],
)
def test_other_states_have_no_mirror(state):
  assert not model_aware.is_mirrored(state)


def test_fedaot_needs_the_model_only_with_a_holdout():
  this_round = fedaot.fedaot_factory().create_round(_VALUE_TYPE, None)
  assert this_round.holdout is None
