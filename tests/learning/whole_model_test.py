"""The hold-out judges the model that is trained: all weights, all settings."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import holdout_rules
from fedaot_tff.attacks import optimal_strength
from fedaot_tff.learning import fed_avg
from fedaot_tff.learning import model_mirror
from tests import small_problem

_RATE = small_problem.CLIENT_LEARNING_RATE
_NUM_EXAMPLES = 30
_EXAMPLES = small_problem.examples(_NUM_EXAMPLES, seed=99)
_sgd = tff.learning.optimizers.build_sgdm
_adam = tff.learning.optimizers.build_adam
_Dense = tf.keras.layers.Dense


# --- Models with weights that are not trained --------------------------------


def _frozen():
  """A fixed random layer below a trained one."""
  return tf.keras.Sequential(
      [
          _Dense(5, 'tanh', input_shape=(4,), trainable=False),
          _Dense(small_problem.NUM_CLASSES),
      ]
  )


def _frozen_on_top():
  """Of the shape of the trained one, so that none can stand for the other."""
  return tf.keras.Sequential(
      [
          _Dense(3, 'tanh', input_shape=(4,)),
          _Dense(3, trainable=False),
          _Dense(3),
      ]
  )


def _batch_norm():
  return tf.keras.Sequential(
      [
          _Dense(5, input_shape=(4,)),
          tf.keras.layers.BatchNormalization(),
          _Dense(small_problem.NUM_CLASSES),
      ]
  )


def _plain():
  return tf.keras.Sequential(
      [_Dense(small_problem.NUM_CLASSES, input_shape=(4,))]
  )


_KERAS = {
    'frozen': _frozen,
    'frozen_on_top': _frozen_on_top,
    'batch_norm': _batch_norm,
    'plain': _plain,
}


def _variable_model(make_keras):
  return tff.learning.models.from_keras_model(
      make_keras(),
      loss=small_problem.keras_loss(),
      input_spec=small_problem.INPUT_SPEC,
  )


def _scaled_features():
  """A functional model that scales its features by fixed factors."""

  @tf.function
  def predict(weights, x, training):
    del training
    (kernel, bias), (scale,) = weights
    return tf.matmul(x * scale, kernel) + bias

  return tff.learning.models.FunctionalModel(
      initial_weights=(
          small_problem.model().initial_weights[0],
          (np.ones([4], np.float32),),
      ),
      predict_on_batch_fn=predict,
      loss_fn=small_problem.model().loss,
      input_spec=small_problem.INPUT_SPEC,
  )


def _model(name):
  if name == 'functional':
    return _scaled_features()
  return functools.partial(_variable_model, _KERAS[name])


def _weights(name, seed):
  """Weights of a pretrained model, far from the initial ones."""
  rng = np.random.default_rng(seed)
  if name == 'functional':
    groups = _scaled_features().initial_weights
  else:
    model = _KERAS[name]()
    groups = [
        [w.numpy() for w in variables]
        for variables in (model.trainable_weights, model.non_trainable_weights)
    ]
  # A moving variance is positive.
  return tff.learning.models.ModelWeights(
      *(
          [rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in group]
          for group in groups
      )
  )


def _loss(name, weights):
  """The loss on the hold-out, without the code at hand."""
  x, y = _EXAMPLES.values()
  if name == 'functional':
    logits = x * weights.non_trainable[0] @ weights.trainable[0]
    logits += weights.trainable[1]
  else:
    model = _KERAS[name]()
    for variables, values in (
        (model.trainable_weights, weights.trainable),
        (model.non_trainable_weights, weights.non_trainable),
    ):
      for variable, value in zip(variables, values):
        variable.assign(value)
    logits = model(x, training=False)
  return small_problem.keras_loss()(y, logits).numpy()


def _client_norm(name, weights, optimizer):
  """The norm of the update of a client that has the hold-out as its data."""
  process = tff.learning.algorithms.build_unweighted_fed_avg(
      _model(name), optimizer, _sgd(1.0)
  )
  state = process.set_model_weights(process.initialize(), weights)
  client = tf.data.Dataset.from_tensor_slices(_EXAMPLES).batch(_NUM_EXAMPLES)
  after = process.next(state, [client]).state.global_model_weights.trainable
  return np.sqrt(
      sum(np.sum((a - b) ** 2) for a, b in zip(weights.trainable, after))
  )


def _holdout(name, optimizer=None):
  """Its root update is that of one step on all examples, in any order."""
  return holdout_lib.HoldOut(
      _model(name),
      _EXAMPLES,
      client_optimizer=optimizer,
      batch_size=_NUM_EXAMPLES,
      num_steps=1,
  )


def _ours(name, client_optimizer=_sgd(_RATE), holdout_optimizer=None):
  return fed_avg.build_fedaot_fed_avg(
      _model(name),
      client_optimizer,
      holdout=_holdout(name, holdout_optimizer),
      seed=1,
  )


def _stock(name, client_optimizer=_sgd(_RATE), server_optimizer=None):
  return tff.learning.algorithms.build_weighted_fed_avg(
      _model(name),
      client_optimizer,
      server_optimizer or _sgd(1.0),
      model_aggregator=fedaot.fedaot_factory(
          _holdout(name, client_optimizer),
          server_optimizer=server_optimizer,
          seed=1,
      ),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )


_NAMES = ['functional', 'frozen', 'frozen_on_top', 'batch_norm']


@pytest.mark.parametrize('name', _NAMES)
def test_loss_and_root_update_are_those_of_the_model_that_is_trained(name):
  process = _ours(name)
  weights = _weights(name, 1)
  state = process.set_model_weights(process.initialize(), weights)
  output = process.next(state, small_problem.client_datasets())
  measured = output.metrics['aggregator']
  np.testing.assert_allclose(
      measured['holdout_loss_before'], _loss(name, weights), rtol=1e-5
  )
  np.testing.assert_allclose(
      measured['root_norm'],
      _client_norm(name, weights, _sgd(_RATE)),
      rtol=1e-4,
  )
  after = output.state.global_model_weights
  small_problem.assert_bit_identical(after.non_trainable, weights.non_trainable)
  np.testing.assert_allclose(
      measured['holdout_loss_after'], _loss(name, after), rtol=1e-5
  )


@pytest.mark.parametrize('name', ['functional', 'batch_norm'])
def test_a_mirror_follows_the_weights_that_are_not_trained(name):
  process = _stock(name)
  initial = model_mirror.synchronize_model(process.initialize())
  weights = _weights(name, 2)
  trainable = initial.global_model_weights.trainable
  # Nothing but the other weights is new.
  weights = tff.learning.models.ModelWeights(trainable, weights.non_trainable)
  state = process.set_model_weights(initial, weights)
  with pytest.raises(ValueError, match='differs.*non-trainable') as info:
    model_mirror.check_model(state)
  assert '\n' not in str(info.value)

  state = model_mirror.synchronize_model(state)
  for output in small_problem.run(process, 2, state):
    model_mirror.check_model(output.state)
    np.testing.assert_allclose(
        output.metrics['aggregator']['holdout_loss_after'],
        _loss(name, output.state.global_model_weights),
        rtol=1e-5,
    )


def _attacked(aggregator, name='functional', **options):
  return fed_avg.build_attacked_fed_avg(
      _model(name),
      _sgd(_RATE),
      model_aggregator=aggregator,
      **options,
  )


def _honest_clients():
  return [
      collections.OrderedDict(attacker_index=np.int32(-1), dataset=dataset)
      for dataset in small_problem.client_datasets()
  ]


def test_the_other_rules_train_the_whole_model():
  weights = _weights('functional', 3)

  def measure(aggregator):
    process = _attacked(aggregator)
    state = process.set_model_weights(process.initialize(), weights)
    output = process.next(state, _honest_clients())
    return output.state.global_model_weights, output.metrics['aggregator']

  # Made without an optimizer the hold-out has that of the clients.
  _, measured = measure(
      holdout_rules.fltrust_factory(_holdout('functional')).unweighted
  )
  expected = _client_norm('functional', weights, _sgd(_RATE))
  np.testing.assert_allclose(measured['root_norm'], expected, rtol=1e-4)

  after_mean, _ = measure(tff.aggregators.UnweightedMeanFactory())
  _, measured = measure(
      holdout_rules.holdout_finetuned_mean_factory(_holdout('functional'))
  )
  expected = _client_norm('functional', after_mean, _sgd(_RATE))
  np.testing.assert_allclose(measured['finetuning_norm'], expected, rtol=1e-3)


def _flatten(weights):
  return np.concatenate([np.ravel(w) for w in weights])


def _update(trainable, scale, batches):
  """The flat update of a client of `_scaled_features`, in NumPy."""
  kernel, bias = trainable
  for batch in batches:
    logits = (batch['x'] * scale) @ kernel + bias
    error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = _RATE / len(error) * (error - np.eye(len(bias))[batch['y']])
    kernel = kernel - (batch['x'] * scale).T @ error
    bias = bias - error.sum(axis=0)
  # What TFF's clients send is what is to be subtracted.
  return _flatten(trainable) - _flatten([kernel, bias])


def _fltrust(updates, root):
  """FLTrust by its definition."""
  norms = np.linalg.norm(updates, axis=1)
  scores = np.maximum(updates @ root / norms / np.linalg.norm(root), 0)
  coefficients = scores / scores.sum() * np.linalg.norm(root) / norms
  return coefficients @ updates


def test_an_attacker_that_knows_the_defence_tries_on_the_whole_model():
  """It sends what takes FLTrust farthest, by the root at all weights."""
  process = _attacked(
      holdout_rules.fltrust_factory(_holdout('functional')),
      update_poisoning=optimal_strength.optimal_alie(),
  )
  clients = _honest_clients()
  for i in range(3):
    clients[i]['attacker_index'] = np.int32(i)
  strengths, changed = np.array([0.5, 1.0, 2.0, 4.0]), 0
  for seed in range(6):
    trainable, (scale,) = _weights('functional', seed)
    scale *= np.random.default_rng(seed).choice([-2, 2], scale.shape)
    honest = [
        _update(trainable, scale, client['dataset'].as_numpy_iterator())
        for client in clients[3:]
    ]
    mean, stddev = np.mean(honest, axis=0), np.std(honest, axis=0)

    def tried(scale):
      root = _update(trainable, scale, [_EXAMPLES])
      return [
          _fltrust(np.stack([mean - z * stddev] * 3 + honest), root)
          for z in strengths
      ]

    aggregates = tried(scale)
    best = np.argmax(np.linalg.norm(aggregates - mean, axis=1))
    changed += best != np.argmax(np.linalg.norm(tried(1.0) - mean, axis=1))
    state = process.set_model_weights(
        process.initialize(),
        tff.learning.models.ModelWeights(trainable, [np.float32(scale)]),
    )
    output = process.next(state, clients)
    assert output.metrics['adversary']['strength'] == strengths[best]
    np.testing.assert_allclose(
        _flatten(output.state.global_model_weights.trainable),
        _flatten(trainable) - aggregates[best],
        atol=1e-5,
    )
  # The weights that are not trained decide.
  assert changed > 0


@pytest.mark.parametrize('name', ['frozen', 'frozen_on_top', 'batch_norm'])
def test_refuses_what_tff_cannot_make_functional(name):
  model = tff.learning.models.functional_model_from_keras(
      _KERAS[name], small_problem.keras_loss(), small_problem.INPUT_SPEC
  )
  with pytest.raises(ValueError, match='function that returns the') as info:
    holdout_lib.HoldOut(model, _EXAMPLES)
  assert '\n' not in str(info.value)


def test_refuses_other_weights_that_are_not_trained():
  with pytest.raises(ValueError, match='non-trainable weights must') as info:
    fed_avg.build_fedaot_fed_avg(
        small_problem.model(), _sgd(_RATE), holdout=_holdout('functional')
    )
  assert '\n' not in str(info.value)


# --- Settings that change after the build ------------------------------------


def _with_rate(process, state, part, rate):
  hparams = process.get_hparams(state)
  hparams[part] = collections.OrderedDict(
      hparams[part], learning_rate=np.float32(rate)
  )
  return process.set_hparams(state, hparams)


def _small(process):
  """An initial state, the same for every process of the plain model."""
  weights = _weights('plain', 5)
  small = [w / 10 for w in weights.trainable]
  return process.set_model_weights(
      process.initialize(), tff.learning.models.ModelWeights(small, [])
  )


def _measure(process, state):
  return process.next(state, small_problem.client_datasets()).metrics[
      'aggregator'
  ]


@pytest.mark.parametrize(
    'client_optimizer, holdout_optimizer',
    [
        (_sgd(_RATE), None),
        (_sgd(_RATE), _sgd(_RATE)),
        (_adam(0.01), _sgd(_RATE)),
    ],
)
def test_the_clients_learning_rate_reaches_the_holdout(
    client_optimizer, holdout_optimizer
):
  process = _ours('plain', client_optimizer, holdout_optimizer)
  state = _small(process)
  rate = process.get_hparams(state)['client_work']['learning_rate']
  before = _measure(process, state)
  for factor in (0.2, 5.0):
    changed = _with_rate(process, state, 'client_work', rate * factor)
    after = _measure(process, changed)
    np.testing.assert_allclose(
        after['root_norm'], factor * before['root_norm'], rtol=1e-4
    )
    # The bound on the norms has come along: nobody else is clipped.
    np.testing.assert_allclose(
        after['norm_bound'] / before['norm_bound'], factor, rtol=0.5
    )


@pytest.mark.parametrize(
    'clients, own, changed, expected',
    [
        # Nothing has changed.
        (_sgd(0.3), _sgd(0.1), 0.3, 0.1),
        # Twice as fast, as the clients are.
        (_sgd(0.3), _sgd(0.1), 0.6, 0.2),
        (_adam(0.01), _sgd(0.1), 0.02, 0.2),
        (_sgd(0.3), None, 0.7, 0.7),
        # There is no factor from zero.
        (_sgd(0.0), None, 0.7, 0.7),
        (_sgd(0.0), _sgd(0.1), 0.7, 0.7),
        (_sgd(0.3), None, 0.0, 0.0),
    ],
)
def test_the_holdouts_learning_rate_follows(clients, own, changed, expected):
  holdout = _holdout('functional', own).for_clients(clients)
  hparams = holdout.hparams({'learning_rate': np.float32(changed)})
  np.testing.assert_allclose(hparams['learning_rate'], expected, rtol=1e-6)


def test_other_settings_of_the_clients_replace_the_holdouts():
  holdout = _holdout('functional', _sgd(0.1, 0.5)).for_clients(_sgd(0.3, 0.9))
  for changed, expected in ((0.9, 0.5), (0.8, 0.8)):
    hparams = holdout.hparams(
        {'learning_rate': np.float32(0.3), 'momentum': np.float32(changed)}
    )
    np.testing.assert_allclose(hparams['momentum'], expected, rtol=1e-6)
    np.testing.assert_allclose(hparams['learning_rate'], 0.1, rtol=1e-6)


@pytest.mark.parametrize('part', ['client_work', 'finalizer'])
def test_a_mirror_follows_settings_once_synchronized(part):
  optimizer = _sgd(0.7, momentum=0.9)
  process = _stock('plain', _sgd(_RATE), optimizer)
  state = model_mirror.synchronize_model(_small(process))
  state = small_problem.run(process, 1, state)[0].state
  model_mirror.check_model(state)
  changed = _with_rate(process, state, part, 0.02)
  what = {'client_work': 'hyperparameters', 'finalizer': 'server optimizer'}
  with pytest.raises(ValueError, match=f'differs.*{what[part]}') as info:
    model_mirror.check_model(changed)
  assert '\n' not in str(info.value)

  changed = model_mirror.synchronize_model(changed)
  outputs = small_problem.run(process, 3, changed)
  for output in outputs:
    model_mirror.check_model(output.state)
  root_norm = outputs[0].metrics['aggregator']['root_norm']
  expected = _measure(process, state)['root_norm']
  if part == 'client_work':
    expected *= 0.02 / _RATE
  np.testing.assert_allclose(root_norm, expected, rtol=1e-4)
