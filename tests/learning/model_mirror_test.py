"""The aggregator's mirror of the global model, in stock learning processes."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.learning import model_mirror
from tests import small_problem

_optimizers = tff.learning.optimizers


class _FloatStepAdafactor(_optimizers.Optimizer):
  """Adafactor with a step count of one type, which TFF's finalizer demands.

  TFF's own starts it as an integer and goes on with a float, so no TFF builder
  takes it as the server's optimizer.
  """

  def __init__(self):
    self._adafactor = _optimizers.build_adafactor(0.1)

  def initialize(self, specs):
    return dict(self._adafactor.initialize(specs), steps=tf.constant(0.0))

  def next(self, state, weights, gradients):
    return self._adafactor.next(state, weights, gradients)


_SERVER_OPTIMIZERS = {
    'sgd': _optimizers.build_sgdm(0.5),
    'sgdm': _optimizers.build_sgdm(0.7, momentum=0.9),
    'adam': _optimizers.build_adam(0.1),
    'adamw': _optimizers.build_adamw(0.1),
    'adagrad': _optimizers.build_adagrad(0.1),
    'rmsprop': _optimizers.build_rmsprop(0.1),
    'yogi': _optimizers.build_yogi(0.1),
    'adafactor': _FloatStepAdafactor(),
    'scheduled': _optimizers.schedule_learning_rate(
        _optimizers.build_adam(0.1),
        lambda round_num: 0.1 / tf.cast(round_num + 1, tf.float32),
    ),
}


class _OptimizerPerPair(_optimizers.Optimizer):
  """Another optimizer for each two weights, so that one process tests all."""

  def __init__(self, optimizers):
    self._optimizers = list(optimizers)

  def initialize(self, specs):
    return tuple(
        optimizer.initialize(pair)
        for optimizer, pair in zip(self._optimizers, _pairs(specs))
    )

  def next(self, state, weights, gradients):
    stepped = [
        optimizer.next(*arguments)
        for optimizer, *arguments in zip(
            self._optimizers, state, _pairs(weights), _pairs(gradients)
        )
    ]
    states, pairs = zip(*stepped)
    return states, tf.nest.pack_sequence_as(weights, tf.nest.flatten(pairs))


def _pairs(weights):
  flat = tf.nest.flatten(weights)
  return list(zip(flat[::2], flat[1::2]))


def _sum_of_models(num_models):
  """A model with a kernel and a bias for each of several added logits."""
  single = small_problem.model()

  @tf.function
  def predict(weights, x, training):
    return tf.add_n(
        [
            single.predict_on_batch((pair, ()), x, training)
            for pair in _pairs(weights[0])
        ]
    )

  return tff.learning.models.FunctionalModel(
      initial_weights=(single.initial_weights[0] * num_models, ()),
      predict_on_batch_fn=predict,
      loss_fn=single.loss,
      input_spec=single.input_spec,
  )


def _process(server_optimizer, mirror_optimizer, model=None):
  model = model or small_problem.model()
  return tff.learning.algorithms.build_weighted_fed_avg(
      model,
      small_problem.client_optimizer(),
      server_optimizer,
      model_aggregator=fedaot.fedaot_factory(
          small_problem.holdout(model),
          server_optimizer=mirror_optimizer,
          seed=1,
      ),
  )


def _assert_notices(state):
  with pytest.raises(ValueError, match='differs from the global') as info:
    model_mirror.check_model(state)
  assert '\n' not in str(info.value)


def _assert_mirrors(state):
  model_mirror.check_model(state)
  small_problem.assert_bit_identical(
      state.aggregator['mirror']['weights'],
      state.global_model_weights.trainable,
  )


@pytest.fixture(scope='module')
def process():
  optimizer = _optimizers.build_sgdm(0.7, momentum=0.9)
  return _process(optimizer, optimizer)


def test_all_server_optimizers_are_known_here():
  exported = [name for name in dir(_optimizers) if name.startswith('build_')]
  assert {name[len('build_') :] for name in exported} <= set(_SERVER_OPTIMIZERS)


@pytest.mark.slow
def test_mirror_equals_the_model_bit_for_bit_with_every_optimizer():
  optimizer = _OptimizerPerPair(_SERVER_OPTIMIZERS.values())
  process = _process(
      optimizer, optimizer, _sum_of_models(len(_SERVER_OPTIMIZERS))
  )
  state = process.initialize()
  _assert_mirrors(state)
  for output in small_problem.run(process, 3, state):
    state = output.state
    trainable = state.global_model_weights.trainable
    for name, mirrored, weights in zip(
        _SERVER_OPTIMIZERS,
        _pairs(state.aggregator['mirror']['weights']),
        _pairs(trainable),
    ):
      assert [w.tobytes() for w in mirrored] == [
          w.tobytes() for w in weights
      ], name
    _assert_mirrors(state)
  final = [kernel.tobytes() for kernel, _ in _pairs(trainable)]
  assert len(set(final)) == len(_SERVER_OPTIMIZERS)


def test_mirror_equals_the_model_bit_for_bit(process):
  for output in small_problem.run(process, 3):
    _assert_mirrors(output.state)


def test_check_model_notices_another_server_optimizer():
  process = _process(_optimizers.build_adam(0.1), None)
  state = process.initialize()
  model_mirror.check_model(state)
  _assert_notices(small_problem.run(process, 1, state)[0].state)


def test_check_model_notices_another_learning_rate(process):
  state = process.initialize()
  hparams = process.get_hparams(state)
  hparams['finalizer']['learning_rate'] = np.float32(0.71)
  changed = process.set_hparams(state, hparams)
  with pytest.raises(ValueError, match='differs from the server optimizer'):
    model_mirror.check_model(changed)
  # Unnoticed, it would have led to another model.
  _assert_notices(small_problem.run(process, 1, changed)[0].state)


def test_check_model_notices_set_model_weights(process):
  state = small_problem.run(process, 1)[0].state
  weights = process.get_model_weights(state)
  kernel, bias = weights.trainable
  moved = bias.copy()
  moved[1] = np.nextafter(moved[1], np.float32(1))
  weights = tff.learning.models.ModelWeights((kernel, moved), ())
  state = process.set_model_weights(state, weights)
  _assert_notices(state)

  state = model_mirror.synchronize_model(state)
  small_problem.assert_bit_identical(
      state.aggregator['mirror']['weights'], (kernel, moved)
  )
  for output in small_problem.run(process, 2, state):
    _assert_mirrors(output.state)


def test_synchronize_model_cures_an_unseeded_keras_model_in_a_wrapper():
  holdout = small_problem.holdout(
      tff.learning.models.functional_model_from_keras(
          small_problem.keras_model(),
          small_problem.keras_loss(),
          small_problem.INPUT_SPEC,
      )
  )
  process = tff.learning.algorithms.build_weighted_fed_avg(
      small_problem.keras_model_fn,
      small_problem.client_optimizer(),
      model_aggregator=tff.aggregators.clipping_factory(
          1.0,
          tff.aggregators.zeroing_factory(
              100.0, fedaot.fedaot_factory(holdout, seed=1)
          ),
      ),
  )
  unsynchronized = process.initialize()
  _assert_notices(unsynchronized)
  _assert_notices(small_problem.run(process, 1, unsynchronized)[0].state)

  state = model_mirror.synchronize_model(unsynchronized)
  model_mirror.check_model(state)
  for output in small_problem.run(process, 2, state):
    model_mirror.check_model(output.state)


def _state(mirrored, trainable):
  mirror = collections.OrderedDict(
      weights=mirrored, non_trainable=(), optimizer=(), client_hparams=()
  )
  return tff.learning.templates.LearningAlgorithmState(
      global_model_weights=tff.learning.models.ModelWeights(trainable, ()),
      distributor=(),
      client_work=(),
      aggregator=(
          (),
          collections.OrderedDict(
              inner=collections.OrderedDict(mirror=mirror, weighting=())
          ),
      ),
      finalizer=(),
  )


def test_check_model_finds_the_mirror_at_any_depth():
  weights = [np.ones([2, 3], np.float32), np.zeros([3], np.float32)]
  state = _state(weights, weights)
  model_mirror.check_model(state)
  other = [weights[0], np.array([0, np.nan, 0], np.float32)]
  _assert_notices(_state(other, weights))
  _assert_notices(_state(weights, other))

  synchronized = model_mirror.synchronize_model(_state(other, weights))
  small_problem.assert_bit_identical(
      synchronized.aggregator[1]['inner']['mirror']['weights'], weights
  )


@pytest.mark.parametrize(
    'function', [model_mirror.check_model, model_mirror.synchronize_model]
)
def test_refuses_what_is_not_a_mirrored_state(function):
  weights = [np.ones([2, 3], np.float32)]
  for other in (weights, collections.OrderedDict(aggregator=()), None):
    with pytest.raises(TypeError, match='state of a learning process') as info:
      function(other)
    assert '\n' not in str(info.value)
  with pytest.raises(ValueError, match='another model') as info:
    function(_state(weights, [np.ones([3, 2], np.float32)]))
  assert '\n' not in str(info.value)


def test_leaves_a_state_without_mirror_alone():
  state = _state([], [])._replace(
      aggregator=collections.OrderedDict(round=3, weighting=()),
      global_model_weights=tff.learning.models.ModelWeights(
          [np.ones([2], np.float32)], ()
      ),
  )
  model_mirror.check_model(state)
  assert model_mirror.synchronize_model(state) == state
