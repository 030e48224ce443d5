"""`fedaot.FedAOTAggregator` gives the numbers of `fedaot_tff` in ten rounds.

Signs and splits of the hold-out, which each framework draws for itself, are
handed over.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import fedaot
from fedaot import equations
from fedaot import sketch
from fedaot_tff.aggregators import fedaot as fedaot_lib
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import summaries

_SEED = 7
_NUM_ROUNDS = 10
_SHAPES = [(5, 40), (3,), (40, 4), (4,)]
_DIMENSION = sum(int(np.prod(shape)) for shape in _SHAPES)
_VALUE_TYPE = tff.to_type(
    tuple(tff.TensorType(np.float32, shape) for shape in _SHAPES)
)
# Several rows a tensor, of which each leaves a rest.
_CONFIG = fedaot.FedAOTConfig(
    sketch_dimension=16, agreement_sketch_dimension=32, projection_dimension=48
)


def _fold(*numbers):
  seed = tf.constant([_SEED, 0], tf.int64)
  for number in numbers:
    seed = tf.random.experimental.stateless_fold_in(seed, number)
  return seed


class _SameDraws(fedaot.FedAOTAggregator):
  """Draws what the process in TFF draws."""

  tff_holdout = None

  def _draw_signs(self, groups):
    return [
        sketch.Signs(signs.table.numpy(), signs.blocks.numpy())
        for signs in summaries.draw_group_signs(_fold(0), groups)
    ]

  def _draw_order(self):
    split = self.tff_holdout.split(_fold(2, self._round), 50)
    return np.concatenate([split.training, split.evaluation])


class _HoldOutOfTFF:
  """The hold-out of TFF behind the protocol of arrays."""

  def __init__(self, holdout):
    self._holdout = holdout
    self.num_examples = holdout.num_examples

  def train(self, model, positions):
    update = self._holdout.root_update(_tensors(model), tf.constant(positions))
    return [before - u.numpy() for before, u in zip(model, update)]

  def loss_and_gradient(self, model, positions):
    loss, gradient = self._holdout.loss_and_gradient(
        _tensors(model), tf.constant(positions)
    )
    return float(loss), [g.numpy() for g in gradient]


def _tensors(model):
  return holdout_lib.GlobalModel(tuple(tf.constant(a) for a in model))


def _split(vector):
  ends = np.cumsum([int(np.prod(shape)) for shape in _SHAPES])[:-1]
  parts = np.split(vector.astype(np.float32), ends)
  return tuple(part.reshape(s) for part, s in zip(parts, _SHAPES))


def _cohorts():
  """Updates of each round: honest, flipped, copied, broken, alike and none."""
  rng = np.random.default_rng(4)
  base = rng.normal(size=_DIMENSION)
  for round_num in range(_NUM_ROUNDS):
    updates = base + 1.5 * rng.normal(size=[9 + round_num % 2, _DIMENSION])
    updates[0] *= -3
    updates[1] = -base
    updates[2] = updates[1]
    updates[3] *= [1.0, 1e30, 0.0, 1e6][round_num % 4]
    updates[4, round_num] *= [1.0, np.inf, np.nan][round_num % 3]
    yield {
        3: updates[:1],
        4: np.full([4, _DIMENSION], np.nan),
        5: np.repeat(updates[5:6], 4, axis=0),
        6: np.zeros([3, _DIMENSION]),
        7: updates[:0],
        8: 10 * updates[rng.permutation(len(updates))],
    }.get(round_num, updates).astype(np.float32)


def _model():
  initial = _split(np.random.default_rng(2).normal(size=_DIMENSION) * 0.1)

  def predict(weights, x, training):
    del training
    (first, bias, second, last), _ = weights
    hidden = tf.tanh(tf.matmul(x, first) + tf.reduce_sum(bias))
    return tf.matmul(hidden, second) + last

  return tff.learning.models.FunctionalModel(
      initial_weights=(initial, ()),
      predict_on_batch_fn=tf.function(predict),
      loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(
          tf.nn.sparse_softmax_cross_entropy_with_logits(label, output)
      ),
      input_spec=(
          tf.TensorSpec([None, 5], tf.float32),
          tf.TensorSpec([None], tf.int32),
      ),
  )


def _holdout():
  rng = np.random.default_rng(6)
  x = rng.normal(size=[60, 5]).astype(np.float32)
  y = np.argmax(x[:, :4], axis=1).astype(np.int32)
  return holdout_lib.HoldOut(_model(), (x, y), batch_size=10, num_steps=4)


@pytest.mark.parametrize('has_holdout', [False, True])
def test_ten_rounds_equal_those_of_tff(has_holdout):
  holdout = _holdout() if has_holdout else None
  process = fedaot_lib.fedaot_factory(
      holdout, config=_CONFIG, seed=_SEED
  ).unweighted.create(_VALUE_TYPE)
  state = process.initialize()
  aggregator = _SameDraws(
      _HoldOutOfTFF(holdout) if has_holdout else None,
      config=_CONFIG,
      seed=_SEED,
  )
  aggregator.tff_holdout = holdout
  model = list(_model().initial_weights[0])
  for updates in _cohorts():
    output = process.next(state, [_split(u) for u in updates])
    state, expected = output.state, output.measurements
    clients = [
        [before - u for before, u in zip(model, _split(update))]
        for update in updates
    ]
    # A client that cannot be read is one that is not finite.
    clients = [
        None if np.isnan(update).any() and not np.isnan(update).all() else c
        for update, c in zip(updates, clients)
    ]
    new_model = aggregator.aggregate(model, clients)
    aggregator.learn(new_model)

    length = np.sqrt(sum(np.sum(np.square(r)) for r in output.result))
    size = np.sqrt(sum(np.sum(np.square(m)) for m in model))
    # The models themselves are rounded to float32.
    tolerance = 1e-5 * length + 1e-7 * size
    for before, after, result in zip(model, new_model, output.result):
      np.testing.assert_allclose(before - after, result, atol=tolerance)
    found = aggregator.last_round
    np.testing.assert_allclose(found.weights, expected['weights'], atol=1e-4)
    np.testing.assert_allclose(found.norms, expected['norms'], rtol=1e-4)
    np.testing.assert_allclose(found.z, expected['z'], rtol=1e-3, atol=1e-3)
    assert found.num_non_finite == expected['num_non_finite']
    assert found.num_clipped == expected['num_clipped']
    assert found.num_attenuated == expected['num_attenuated']
    np.testing.assert_allclose(
        found.effective_clients, expected['effective_clients'], rtol=1e-4
    )
    if has_holdout:
      np.testing.assert_allclose(
          [
              found.root_norm,
              found.holdout_loss_before,
              aggregator.holdout_loss_after,
          ],
          [
              expected['root_norm'],
              expected['holdout_loss_before'],
              expected['holdout_loss_after'],
          ],
          rtol=1e-4,
      )
    model = new_model
  for name, value in state['weighting'].items():
    np.testing.assert_allclose(
        aggregator.state_dict()[f'weighting.{name}'], value, atol=1e-4
    )
  names = ('reference',) if has_holdout else equations.Memory._fields
  for name in names:
    np.testing.assert_allclose(
        aggregator.state_dict()[name],
        state[name],
        atol=1e-5 * np.linalg.norm(state[name]) + 1e-7,
        err_msg=name,
    )
