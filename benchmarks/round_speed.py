"""A round of a training next to plain loops of the same training, in turns.

  python -m benchmarks.round_speed --task=mnist5k --model=mlp --rounds=20

The loops train the same clients on the same examples in the same batches, and
average the weights: with a `tf.function` a client, with one that has the loop
over the clients inside, and with a scan in JAX, where it is installed, for
which clients are padded to the largest. Prints the median CPU milliseconds of a
round and their ratio to the first loop's.
"""

import collections
import functools
import os
import time

from absl import app
from absl import flags
from absl import logging

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

# pylint: disable=wrong-import-position
import numpy as np
import tensorflow as tf

from binaries import experiment as experiment_lib
from binaries import runner as runner_lib
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib
from tasks import registry

_TASK = flags.DEFINE_string('task', 'mnist5k', 'The task.')
_MODEL = flags.DEFINE_string('model', 'mlp', 'mlp or cnn; JAX knows the mlp.')
_AGGREGATORS = flags.DEFINE_list(
    'aggregators', ['mean', 'fedaot', 'fedaot_no_holdout'], 'Ours.'
)
_CONTEXT = flags.DEFINE_string('context', 'in_process', 'Of ours.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Turns that count.')
_WARM_UP_ROUNDS = 3
_MANY = 10_000  # Rounds of a training that does not end.


def _ours(aggregator):
  """A function that plays the next round of a training."""
  experiment = experiment_lib.Experiment(
      task=_TASK.value,
      task_options={'rounds': _MANY, 'model': _MODEL.value},
      aggregator=aggregator,
      byzantine_fraction=0.1,
      evaluate_every=_MANY,
      context=_CONTEXT.value,
  )
  return functools.partial(next, _runner().run(experiment))


@functools.lru_cache(maxsize=None)
def _runner():
  return runner_lib.Runner()


def _cohorts(task):
  """A function that gives the next round's arrays: x, y and order a client."""
  datasets = client_datasets.ClientDatasets(
      task.client_data,
      num_classes=task.num_classes,
      batch_size=task.batch_size,
      client_epochs=task.client_epochs,
  )
  sampler = cohort_lib.CohortSampler(
      task.client_data.client_ids, cohort_size=task.cohort_size
  )
  rounds = iter(range(1, _MANY))

  def next_cohort():
    round_num = next(rounds)
    cohort = sampler.sample(round_num)
    return [
        tuple(map(tf.convert_to_tensor, client['dataset'].values()))
        for client in datasets.arrays_for_cohort(cohort, round_num)
    ]

  return next_cohort


def _train_client(task, weights, x, y, order):
  """The trained weights, by TensorFlow."""
  size, rate = task.batch_size, task.client_learning_rate

  def step(start, *weights):
    positions = order[start : start + size]
    with tf.GradientTape() as tape:
      tape.watch(weights)
      output = task.model.predict_on_batch(
          (weights, ()), tf.gather(x, positions), training=True
      )
      loss = task.model.loss(output, tf.gather(y, positions))
    gradient = tape.gradient(loss, weights)
    return start + size, *(w - rate * g for w, g in zip(weights, gradient))

  return tf.while_loop(
      lambda start, *_: start < tf.size(order),
      step,
      (tf.constant(0), *weights),
      parallel_iterations=1,
  )[1:]


def _tf_by_client(task):
  """Rounds with a `tf.function` that trains a client."""
  train = tf.function(
      functools.partial(_train_client, task),
      autograph=False,
      reduce_retracing=True,
  )
  next_cohort = _cohorts(task)
  weights = [tf.constant(w) for w in task.model.initial_weights[0]]

  def play():
    clients = [train(weights, *client) for client in next_cohort()]
    weights[:] = [tf.add_n(ws) / len(ws) for ws in zip(*clients)]

  return play


def _tf_by_round(task):
  """Rounds with a `tf.function` that trains a cohort one after the other."""

  @tf.function(autograph=False, reduce_retracing=True)
  def train_all(weights, x, y, order, x_ends, order_ends):
    def train_next(client, *sums):
      examples = slice(x_ends[client], x_ends[client + 1])
      trained = _train_client(
          task,
          weights,
          x[examples],
          y[examples],
          order[order_ends[client] : order_ends[client + 1]],
      )
      return client + 1, *map(tf.add, sums, trained)

    num_clients = tf.size(x_ends) - 1
    _, *sums = tf.while_loop(
        lambda client, *_: client < num_clients,
        train_next,
        (tf.constant(0), *map(tf.zeros_like, weights)),
        parallel_iterations=1,
    )
    return [w / tf.cast(num_clients, w.dtype) for w in sums]

  next_cohort = _cohorts(task)
  weights = [tf.constant(w) for w in task.model.initial_weights[0]]

  def play():
    x, y, order = zip(*next_cohort())
    x_ends, order_ends = (
        np.cumsum([0, *map(len, parts)], dtype=np.int32) for parts in (y, order)
    )
    weights[:] = train_all(
        weights, *(tf.concat(p, 0) for p in (x, y, order)), x_ends, order_ends
    )

  return play


def _jax_by_round(task):
  """Rounds with a compiled scan over clients and batches, padded."""
  # pylint: disable=g-import-not-at-top
  import jax
  import jax.numpy as jnp

  size, rate = task.batch_size, task.client_learning_rate
  sizes = [
      task.client_data.create_tf_dataset_for_client(c)
      .batch(1 << 30)
      .get_single_element()['y']
      .shape[0]
      for c in task.client_data.client_ids
  ]
  most = max(sizes) * task.client_epochs

  def loss(weights, x, y, is_there):
    features = x.reshape([x.shape[0], -1])
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
      features = jax.nn.relu(features @ kernel + bias)
    logits = features @ weights[-2] + weights[-1]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
    return jnp.sum(losses[:, 0] * is_there) / jnp.maximum(is_there.sum(), 1)

  def step(weights, batch):
    gradient = jax.grad(loss)(weights, *batch)
    return [w - rate * g for w, g in zip(weights, gradient)], None

  @jax.jit
  def train_all(weights, x, y, is_there):
    def train_next(sums, client):
      trained, _ = jax.lax.scan(step, weights, client)
      return [s + w for s, w in zip(sums, trained)], None

    zeros = [jnp.zeros_like(w) for w in weights]
    sums, _ = jax.lax.scan(train_next, zeros, (x, y, is_there))
    return [s / x.shape[0] for s in sums]

  num_batches = -(-most // size)
  next_cohort = _cohorts(task)
  weights = [jnp.asarray(w) for w in task.model.initial_weights[0]]

  def pad(array):
    padded = np.zeros([num_batches * size, *array.shape[1:]], array.dtype)
    padded[: len(array)] = array
    return padded.reshape([num_batches, size, *array.shape[1:]])

  def play():
    clients = [
        (
            pad(x.numpy()[o.numpy()]),
            pad(y.numpy()[o.numpy()]),
            pad(np.ones(len(o), np.float32)),
        )
        for x, y, o in next_cohort()
    ]
    weights[:] = train_all(weights, *map(np.stack, zip(*clients)))
    weights[0].block_until_ready()

  return play


def main(argv):
  del argv
  logging.set_verbosity(logging.WARNING)
  plays = {name: _ours(name) for name in _AGGREGATORS.value}
  task = registry.load_task(_TASK.value, model=_MODEL.value, seed=0)
  plays['tf.function a client'] = _tf_by_client(task)
  plays['tf.function a round'] = _tf_by_round(task)
  if _MODEL.value == 'mlp':
    try:
      plays['jax scan'] = _jax_by_round(task)
    except ImportError:
      print('JAX is not installed.')
  seconds = collections.defaultdict(list)
  for _ in range(_WARM_UP_ROUNDS + _ROUNDS.value):
    for name, play in plays.items():
      start = time.process_time()
      play()
      seconds[name].append(time.process_time() - start)
  medians = {
      name: 1000 * float(np.median(times[_WARM_UP_ROUNDS:]))
      for name, times in seconds.items()
  }
  for name, median in medians.items():
    ratio = median / medians['tf.function a client']
    print(f'{name:24} {median:8.1f} ms {ratio:6.2f}')


if __name__ == '__main__':
  app.run(main)
