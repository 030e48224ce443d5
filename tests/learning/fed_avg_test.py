"""Federated averaging that hands FedAOT the model, and under attack."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import rule_factory
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import multiples
from fedaot_tff.attacks import optimal_strength
from fedaot_tff.learning import fed_avg
from tests import small_problem

_SEED = 7
_HOLDOUT_EXAMPLES = 60
_SERVER_LEARNING_RATE = 0.5


def _sgd():
  return tff.learning.optimizers.build_sgdm(_SERVER_LEARNING_RATE)


def _adam():
  return tff.learning.optimizers.build_adam(0.1)


def _holdout():
  return small_problem.holdout(num_examples=_HOLDOUT_EXAMPLES)


def _our_process(server_optimizer):
  return fed_avg.build_fedaot_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      server_optimizer,
      holdout=_holdout(),
      seed=_SEED,
  )


def _stock_process(server_optimizer):
  return tff.learning.algorithms.build_weighted_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      server_optimizer,
      model_aggregator=fedaot.fedaot_factory(
          _holdout(), server_optimizer=server_optimizer, seed=_SEED
      ),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )


@pytest.fixture(scope='module')
def sgd_process():
  return _our_process(_sgd())


# --- The model is handed over ------------------------------------------------


def _assert_equals_the_stock_builder_with_a_mirror(process, server_optimizer):
  outputs = small_problem.run(process, 3)
  expected = small_problem.run(_stock_process(server_optimizer), 3)
  for ours, stock in zip(outputs, expected):
    small_problem.assert_bit_identical(
        ours.state.global_model_weights, stock.state.global_model_weights
    )
    small_problem.assert_bit_identical(
        ours.metrics['aggregator'], stock.metrics['aggregator']
    )
    remembered = dict(stock.state.aggregator)
    del remembered['mirror']
    assert list(ours.state.aggregator) == list(remembered)
    small_problem.assert_bit_identical(
        list(ours.state.aggregator.values()), list(remembered.values())
    )


def test_equals_the_stock_builder_with_a_mirror_bit_for_bit(sgd_process):
  _assert_equals_the_stock_builder_with_a_mirror(sgd_process, _sgd())


@pytest.mark.slow
def test_equals_the_stock_builder_with_adam_bit_for_bit():
  _assert_equals_the_stock_builder_with_a_mirror(_our_process(_adam()), _adam())


def test_get_and_set_weights_and_hparams(sgd_process):
  state = sgd_process.initialize()
  trainable, _ = small_problem.model().initial_weights
  small_problem.assert_bit_identical(
      small_problem.trainable(sgd_process, state), trainable
  )
  hparams = sgd_process.get_hparams(state)
  assert hparams['finalizer']['learning_rate'] == _SERVER_LEARNING_RATE

  halved = collections.OrderedDict(
      client_work=hparams['client_work'],
      finalizer=collections.OrderedDict(
          learning_rate=np.float32(_SERVER_LEARNING_RATE / 2)
      ),
  )
  slow = sgd_process.set_hparams(state, halved)
  assert sgd_process.get_hparams(slow)['finalizer'] == halved['finalizer']
  steps = []
  for start in (state, slow):
    after = small_problem.run(sgd_process, 1, start)[0].state
    steps.append(
        [
            b - a
            for a, b in zip(
                trainable, small_problem.trainable(sgd_process, after)
            )
        ]
    )
  for step, half_step in zip(*steps):
    np.testing.assert_allclose(step, 2 * half_step, atol=1e-7)
    assert np.any(step)

  moved = tff.learning.models.ModelWeights(
      tuple(w + np.float32(0.5) for w in trainable), ()
  )
  other = sgd_process.set_model_weights(state, moved)
  small_problem.assert_bit_identical(
      small_problem.trainable(sgd_process, other), moved.trainable
  )
  # The hold-out's loss is that of the new model without further ado.
  x, y = small_problem.examples(_HOLDOUT_EXAMPLES, seed=99).values()
  half = _evaluation_half(0)
  output = small_problem.run(sgd_process, 1, other)[0]
  np.testing.assert_allclose(
      output.metrics['aggregator']['holdout_loss_before'],
      small_problem.loss_and_gradient(moved.trainable, x[half], y[half])[0],
      rtol=1e-6,
  )


def test_trains_an_unseeded_keras_model_without_synchronization():
  model = tff.learning.models.functional_model_from_keras(
      small_problem.keras_model(),
      small_problem.keras_loss(),
      small_problem.INPUT_SPEC,
  )
  process = fed_avg.build_fedaot_fed_avg(
      small_problem.keras_model_fn,
      small_problem.client_optimizer(),
      holdout=small_problem.holdout(model),
      seed=_SEED,
  )
  state = process.initialize()
  hparams = process.get_hparams(state)
  assert hparams['client_work']['learning_rate'] == np.float32(
      small_problem.CLIENT_LEARNING_RATE
  )
  hparams['client_work']['learning_rate'] = np.float32(0.0)
  still = process.next(
      process.set_hparams(state, hparams), small_problem.client_datasets()
  ).state
  small_problem.assert_bit_identical(
      small_problem.trainable(process, still),
      small_problem.trainable(process, state),
  )

  x, y = small_problem.examples(30, seed=99).values()
  for round_num in range(3):
    before = small_problem.trainable(process, state)
    output = process.next(state, small_problem.client_datasets(round_num))
    state = output.state
    after = small_problem.trainable(process, state)
    for name, weights in (('before', before), ('after', after)):
      np.testing.assert_allclose(
          output.metrics['aggregator'][f'holdout_loss_{name}'],
          small_problem.loss_and_gradient(weights, x, y)[0],
          rtol=1e-5,
      )
  assert output.metrics['aggregator']['holdout_loss_after'] < 1.0


# --- The meta-gradient is that of the true hold-out loss ---------------------

# A point in general position: every entry of the gradient is well above the
# noise of float32, and clipped clients and copies keep a weight that counts.
_THETA = collections.OrderedDict(
    raw_slope=np.array([-2.5, -0.5, -0.2, -1.5, 0.1], np.float32),
    margin=np.array([-1.0, 0.3, -0.4, 0.3, -0.5], np.float32),
    log_sharpness=np.float32(-0.1),
)


def _evaluation_half(round_num):
  """Positions of the hold-out examples whose loss a round measures."""
  config = config_lib.FedAOTConfig()
  seed = tf.constant([_SEED, 0], tf.int64)
  for number in (2, round_num):
    seed = tf.random.experimental.stateless_fold_in(seed, number)
  return _holdout().split(seed, config.min_examples_to_split).evaluation.numpy()


def _flatten(theta):
  return np.concatenate([np.ravel(theta[name]) for name in _THETA])


def _with_weighting(state, vector):
  weighting = collections.OrderedDict(
      raw_slope=vector[:5], margin=vector[5:10], log_sharpness=vector[10]
  )
  return state._replace(
      aggregator=collections.OrderedDict(state.aggregator, weighting=weighting)
  )


def _diverse_clients():
  """One with huge features, one with mirrored labels, two alike and others."""
  clients = []
  for client, seed in enumerate((0, 1, 2, 2, 3, 4, 5)):
    data = small_problem.examples(20, seed=1000 + seed)
    if client == 0:
      data['x'] *= 6
    if client == 1:
      data['y'] = small_problem.NUM_CLASSES - 1 - data['y']
    clients.append(
        tf.data.Dataset.from_tensor_slices(data).batch(small_problem.BATCH_SIZE)
    )
  return clients


def test_meta_gradient_is_the_derivative_of_the_holdout_loss(sgd_process):
  num_rounds = 2
  state = small_problem.run(sgd_process, num_rounds)[-1].state
  theta = _flatten(_THETA)
  clients = _diverse_clients()

  def play(vector):
    return sgd_process.next(_with_weighting(state, vector), clients)

  output = play(theta)
  measured = output.metrics['aggregator']
  assert measured['num_clipped'] > 0
  assert np.all(measured['weights'] > 0.01)
  decay = config_lib.FedAOTConfig().meta_beta_1
  old, new = (
      _flatten(s.aggregator['meta_optimizer']['first_moment'])
      for s in (state, output.state)
  )
  gradient = (new - decay * old) / (1 - decay)

  step = 0.05
  differences = np.zeros_like(theta, np.float64)
  for k in range(len(theta)):
    losses = []
    for sign in (1, -1):
      perturbed = theta.copy()
      perturbed[k] += sign * step
      losses.append(
          float(play(perturbed).metrics['aggregator']['holdout_loss_after'])
      )
    differences[k] = (losses[0] - losses[1]) / (2 * step)

  norms = np.linalg.norm(gradient) * np.linalg.norm(differences)
  assert np.dot(gradient, differences) / norms > 0.99999

  # The model goes down by learning rate x sum_i w_i D_i, and the gradient is of
  # sum_i w_i A_i with A_i = -<g', D_i> / (norm of g' x norm bound).
  x, y = small_problem.examples(_HOLDOUT_EXAMPLES, seed=99).values()
  half = _evaluation_half(num_rounds)
  loss, loss_gradient = small_problem.loss_and_gradient(
      small_problem.trainable(sgd_process, output.state), x[half], y[half]
  )
  np.testing.assert_allclose(measured['holdout_loss_after'], loss, rtol=1e-6)
  factor = (
      _SERVER_LEARNING_RATE
      * measured['norm_bound']
      * np.linalg.norm(loss_gradient)
  )
  assert np.min(np.abs(differences)) > 5e-5
  np.testing.assert_allclose(
      differences, factor * gradient, rtol=3e-3, atol=3e-6
  )


# --- Under attack ------------------------------------------------------------


def _attacked(aggregator=None, **kwargs):
  return fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=aggregator or tff.aggregators.MeanFactory(),
      **kwargs,
  )


def _flagged(attackers=()):
  """A function from the round to client data in which some are attackers."""

  def client_data(round_num):
    return [
        collections.OrderedDict(
            attacker_index=np.int32(i if i in attackers else -1),
            dataset=dataset,
        )
        for i, dataset in enumerate(small_problem.client_datasets(round_num))
    ]

  return client_data


@pytest.fixture(scope='module')
def uniform_process():
  return tff.learning.algorithms.build_weighted_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      client_weighting=tff.learning.ClientWeighting.UNIFORM,
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )


@pytest.fixture(scope='module')
def honest_updates(uniform_process):
  """Each client's flat update of round 0, from rounds with one client."""
  state = uniform_process.initialize()
  before = small_problem.trainable(uniform_process, state)
  updates = []
  for dataset in small_problem.client_datasets(0):
    after = uniform_process.next(state, [dataset]).state
    updates.append(
        [
            a - b
            for a, b in zip(
                before, small_problem.trainable(uniform_process, after)
            )
        ]
    )
  return updates


def _assert_moved_by(process, output, update):
  before = small_problem.trainable(process, process.initialize())
  after = small_problem.trainable(process, output.state)
  for a, b, u in zip(before, after, update):
    np.testing.assert_allclose(a - b, u, atol=2e-7)


def test_without_attack_equals_the_stock_builder_bit_for_bit(uniform_process):
  outputs = small_problem.run(_attacked(), 3, client_data_fn=_flagged([0, 1]))
  for ours, stock in zip(outputs, small_problem.run(uniform_process, 3)):
    small_problem.assert_bit_identical(
        ours.state.global_model_weights, stock.state.global_model_weights
    )
    small_problem.assert_bit_identical(
        ours.metrics['client_work'], stock.metrics['client_work']
    )


def test_only_flagged_clients_flip_the_sign(uniform_process, honest_updates):
  process = _attacked(update_poisoning=multiples.SignFlip())
  outputs = small_problem.run(process, 2, client_data_fn=_flagged())
  for ours, stock in zip(outputs, small_problem.run(uniform_process, 2)):
    small_problem.assert_bit_identical(
        ours.state.global_model_weights, stock.state.global_model_weights
    )

  signs = [1, 1, -3, 1, 1, 1]
  attacked_mean = [
      np.mean([s * u for s, u in zip(signs, updates)], axis=0)
      for updates in zip(*honest_updates)
  ]
  output = small_problem.run(process, 1, client_data_fn=_flagged([2]))[0]
  _assert_moved_by(process, output, attacked_mean)


class _SendsNaN(attack.OwnUpdatePoisoning):

  def poison(self, update, attacker):
    return update * np.nan


def test_discard_attackers_is_the_mean_of_honest_clients(honest_updates):
  process = _attacked(update_poisoning=_SendsNaN(), discard_attackers=True)
  output = small_problem.run(process, 1, client_data_fn=_flagged([0, 3]))[0]
  honest = [honest_updates[i] for i in (1, 2, 4, 5)]
  _assert_moved_by(
      process, output, [np.mean(updates, axis=0) for updates in zip(*honest)]
  )
  measured = output.metrics['honest_mean']
  assert measured['distance'] < 1e-6 * measured['norm']


def test_forged_examples_outweigh_honest_ones(honest_updates):
  process = _attacked(
      forged_examples=1e9,
      client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES,
  )
  output = small_problem.run(process, 1, client_data_fn=_flagged([4]))[0]
  # Next to 1e9 the honest examples vanish in float32.
  _assert_moved_by(process, output, honest_updates[4])


def test_forged_examples_are_nothing_to_a_rule_without_counts(honest_updates):
  process = _attacked(
      tff.aggregators.UnweightedMeanFactory(), forged_examples=1e9
  )
  output = small_problem.run(process, 1, client_data_fn=_flagged([4]))[0]
  _assert_moved_by(
      process, output, [np.mean(u, axis=0) for u in zip(*honest_updates)]
  )


@pytest.mark.parametrize('weighting', ['UNIFORM', 'NUM_EXAMPLES'])
def test_measures_the_distance_from_the_honest_mean(honest_updates, weighting):
  process = _attacked(
      update_poisoning=multiples.SignFlip(scale=1.0),
      client_weighting=tff.learning.ClientWeighting[weighting],
  )
  output = small_problem.run(process, 1, client_data_fn=_flagged([2]))[0]
  counts = np.ones([6])
  if weighting == 'NUM_EXAMPLES':
    counts = np.array(
        [
            sum(len(batch['y']) for batch in dataset)
            for dataset in small_problem.client_datasets()
        ]
    )
  flat = np.array(
      [np.concatenate([t.ravel() for t in u]) for u in honest_updates]
  )
  is_honest = np.arange(6) != 2
  mean = np.average(flat, axis=0, weights=counts * is_honest)
  flat[2] *= -1
  aggregate = np.average(flat, axis=0, weights=counts)
  measured = output.metrics['honest_mean']
  assert list(measured) == ['norm', 'distance']
  np.testing.assert_allclose(measured['norm'], np.linalg.norm(mean), rtol=1e-4)
  np.testing.assert_allclose(
      measured['distance'], np.linalg.norm(aggregate - mean), rtol=1e-4
  )


def test_discard_attackers_needs_an_aggregator_that_heeds_weights():
  with pytest.raises(ValueError, match='heeds weights') as error:
    _attacked(tff.aggregators.UnweightedMeanFactory(), discard_attackers=True)
  assert '\n' not in str(error.value)


def test_discarded_attackers_do_not_vote_in_fedaot():
  process = _attacked(
      fedaot.fedaot_factory(seed=_SEED),
      update_poisoning=_SendsNaN(),
      discard_attackers=True,
  )
  output = small_problem.run(process, 1, client_data_fn=_flagged([0, 3]))[0]
  measured = output.metrics['aggregator']
  assert (measured['num_empty'], measured['num_non_finite']) == (2, 0)
  weights = np.asarray(measured['weights'])
  assert not weights[[0, 3]].any()
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


def test_fedaot_with_a_holdout_is_handed_the_model_and_resists():
  process = _attacked(
      fedaot.fedaot_factory(_holdout(), seed=_SEED).unweighted,
      update_poisoning=multiples.SignFlip(),
  )
  attackers = [0, 2, 3, 5]
  outputs = small_problem.run(process, 2, client_data_fn=_flagged(attackers))
  assert 'mirror' not in outputs[0].state.aggregator
  for output in outputs:
    norms = output.metrics['aggregator']['norms']
    weights = output.metrics['aggregator']['weights']
    # Rows are in no known order, but tripled norms tell the attackers.
    largest = np.argsort(norms)[-len(attackers) :]
    assert np.sum(weights[largest]) < 0.05


# --- Errors ------------------------------------------------------------------


def _fedaot(**kwargs):
  arguments = dict(
      model_fn=small_problem.model(),
      client_optimizer_fn=small_problem.client_optimizer(),
  )
  arguments.update(kwargs)
  return fed_avg.build_fedaot_fed_avg(**arguments)


@pytest.mark.parametrize(
    'message, build',
    [
        ('model_fn must be', lambda: _fedaot(model_fn=3)),
        (
            'model_fn must return a',
            lambda: _fedaot(model_fn=small_problem.keras_model),
        ),
        (
            'client_optimizer_fn must be',
            lambda: _fedaot(client_optimizer_fn=lambda: None),
        ),
        (
            'server_optimizer_fn must be',
            lambda: _fedaot(server_optimizer_fn='sgd'),
        ),
        ('holdout must be', lambda: _fedaot(holdout=small_problem.model())),
        ('config must be', lambda: _fedaot(config={})),
        (
            'model_aggregator must be',
            lambda: _attacked(tff.aggregators.MeanFactory),
        ),
        (
            'forged_examples must be a number',
            lambda: _attacked(forged_examples='1e9'),
        ),
        (
            'update_poisoning must be',
            lambda: _attacked(update_poisoning=lambda update: update),
        ),
    ],
)
def test_refuses_arguments_of_a_wrong_kind(message, build):
  with pytest.raises(TypeError, match=message) as info:
    build()
  assert '\n' not in str(info.value)


def test_refuses_the_holdout_of_another_model():
  other = tff.learning.models.functional_model_from_keras(
      tf.keras.Sequential(
          [
              tf.keras.layers.Dense(
                  2, input_shape=(small_problem.NUM_FEATURES,)
              ),
              tf.keras.layers.Dense(small_problem.NUM_CLASSES),
          ]
      ),
      small_problem.keras_loss(),
      small_problem.INPUT_SPEC,
  )
  with pytest.raises(ValueError, match='trainable weights') as info:
    _fedaot(holdout=small_problem.holdout(other))
  assert '\n' not in str(info.value)


# --- Clients who have nothing to say -----------------------------------------


def _with_nothing_to_say(round_num=0):
  """Six clients, one after each of which one has no or no finite examples."""
  clients = []
  for dataset in small_problem.client_datasets(round_num):
    clients.extend([dataset, dataset.take(0)])
  clients[3] = clients[2].map(
      lambda e: collections.OrderedDict(x=e['x'] * np.nan, y=e['y'])
  )
  return clients


@pytest.mark.parametrize(
    'factory',
    [
        fedaot.fedaot_factory(seed=_SEED),
        rule_factory.coordinate_median_factory(),
        rule_factory.nearest_neighbor_mixing_factory(
            rule_factory.krum_factory(1)
        ),
    ],
    ids=['fedaot', 'median', 'nnm'],
)
def test_clients_with_nothing_to_say_do_not_vote(factory):
  """In a stock process TFF gives a NaN update, now zero, the weight 0."""
  process = tff.learning.algorithms.build_weighted_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      _sgd(),
      model_aggregator=factory,
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  outputs = small_problem.run(process, 2, client_data_fn=_with_nothing_to_say)
  alone = small_problem.run(process, 2)
  for found, expected in zip(outputs, alone):
    for a, b in zip(
        small_problem.trainable(process, found.state),
        small_problem.trainable(process, expected.state),
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    measured = found.metrics['aggregator']
    assert (measured['num_empty'], measured['num_non_finite']) == (6, 0)
    assert expected.metrics['aggregator']['num_empty'] == 0


@pytest.mark.parametrize(
    'poisoning',
    [ipm.Ipm(), optimal_strength.optimal_ipm()],
    ids=['ipm', 'optimal_ipm'],
)
def test_attackers_see_who_votes(poisoning):
  """Equal weights are of those who have examples, and attackers always vote."""
  process = _attacked(
      rule_factory.trimmed_mean_factory(2), update_poisoning=poisoning
  )

  def with_attackers(clients):
    return lambda round_num: [
        collections.OrderedDict(attacker_index=np.int32(i), dataset=dataset)
        for i, dataset in zip(
            [0, 1, *[-1] * len(clients(round_num))],
            [clients(round_num)[1].take(0)] * 2 + clients(round_num),
        )
    ]

  found = small_problem.run(
      process, 1, client_data_fn=with_attackers(_with_nothing_to_say)
  )[0]
  alone = small_problem.run(
      process, 1, client_data_fn=with_attackers(small_problem.client_datasets)
  )[0]
  for a, b in zip(
      small_problem.trainable(process, found.state),
      small_problem.trainable(process, alone.state),
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert found.metrics['aggregator']['num_empty'] == 6
  assert alone.metrics['aggregator']['num_empty'] == 0
  np.testing.assert_allclose(
      found.metrics['honest_mean']['norm'],
      alone.metrics['honest_mean']['norm'],
      rtol=1e-5,
  )
