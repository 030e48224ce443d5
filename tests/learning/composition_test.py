"""A learning process with an adversary between work and aggregator."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.learning import adversary as adversary_lib
from fedaot_tff.learning import composition
from tests import small_problem

_SHAPE = [small_problem.NUM_FEATURES, small_problem.NUM_CLASSES]
_WEIGHTS_TYPE = tff.to_type(
    tff.learning.models.ModelWeights(
        trainable=((np.float32, _SHAPE), (np.float32, _SHAPE[1:])),
        non_trainable=(),
    )
)


class _Counting(adversary_lib.UpdatePoisoning):
  """Sends zeros, counts its rounds and tells the number of attackers."""

  def create(self, value_type, context=adversary_lib.Context()):

    @tff.federated_computation
    def init_fn():
      return tff.federated_value(0, tff.SERVER)

    @tff.tensorflow.computation(value_type, np.int32)
    def poison(update, index):
      return attack.replace_if_attacker(update, index, tf.zeros_like)

    @tff.tensorflow.computation(np.int32)
    def increment(state):
      return state + 1

    @tff.tensorflow.computation(np.int32)
    def count(index):
      return tf.cast(index >= 0, tf.int32)

    @tff.federated_computation(
        init_fn.type_signature.result,
        *attack.next_parameters(value_type, context),
    )
    def next_fn(state, update, index, model, defence_state):
      del model, defence_state
      return tff.templates.MeasuredProcessOutput(
          tff.federated_map(increment, state),
          tff.federated_map(poison, (update, index)),
          tff.federated_sum(tff.federated_map(count, index)),
      )

    return adversary_lib.AdversaryProcess(init_fn, next_fn)


def _compose(**kwargs):
  model = small_problem.model()

  @tff.tensorflow.computation
  def initial_weights():
    return tff.learning.models.ModelWeights(
        tuple(tf.constant(w) for w in model.initial_weights[0]), ()
    )

  return composition.compose_learning_process(
      initial_weights,
      tff.learning.templates.build_broadcast_process(_WEIGHTS_TYPE),
      tff.learning.templates.build_functional_model_delta_client_work(
          model=model,
          optimizer=small_problem.client_optimizer(),
          client_weighting=tff.learning.ClientWeighting.UNIFORM,
      ),
      tff.aggregators.MeanFactory().create(
          _WEIGHTS_TYPE.trainable, tff.TensorType(np.float32)
      ),
      tff.learning.templates.build_apply_optimizer_finalizer(
          tff.learning.optimizers.build_sgdm(1.0), _WEIGHTS_TYPE
      ),
      **kwargs,
  )


def _client_data(flags):
  return [
      collections.OrderedDict(
          attacker_index=np.int32(0 if flag else -1), dataset=dataset
      )
      for flag, dataset in zip(flags, small_problem.client_datasets())
  ]


def test_adversary_keeps_a_state_and_its_measurements_are_released():
  process = _compose(
      adversary=_Counting().create(_WEIGHTS_TYPE.trainable),
      attacker_indices=True,
  )
  assert isinstance(process, tff.learning.templates.LearningProcess)
  start = process.initialize()
  assert isinstance(start, composition.LearningState)
  assert start.adversary == 0
  first = process.next(start, _client_data([True, False, True]))
  second = process.next(first.state, _client_data([False, True, False]))
  assert isinstance(second.state, composition.LearningState)
  assert [first.state.adversary, second.state.adversary] == [1, 2]
  assert first.metrics['adversary'] == 2
  assert second.metrics['adversary'] == 1
  assert list(first.metrics) == [
      'distributor',
      'client_work',
      'adversary',
      'aggregator',
      'finalizer',
      'honest_mean',
  ]
  assert first.metrics['finalizer']['update_non_finite'] == 0

  # Two of the three updates were zeros, so the mean is a third of the honest.
  alone = process.next(start, _client_data([True, False])[1:]).state
  for before, third, whole in zip(
      small_problem.trainable(process, start),
      small_problem.trainable(process, first.state),
      small_problem.trainable(process, alone),
  ):
    np.testing.assert_allclose(3 * (before - third), before - whole, atol=1e-6)
    assert not np.array_equal(before, whole)


@pytest.mark.parametrize(
    'option',
    [
        'adversary',
        'attacker_training',
        'forged_examples',
        'discard_attackers',
    ],
)
def test_knows_attackers_only_from_flags(option):
  options = dict(
      adversary=_Counting().create(_WEIGHTS_TYPE.trainable),
      attacker_training=lambda update, weights, batches: update,
      forged_examples=1e9,
      discard_attackers=True,
  )
  with pytest.raises(ValueError, match='need attacker_indices=True') as info:
    _compose(**{option: options[option]})
  assert '\n' not in str(info.value)
