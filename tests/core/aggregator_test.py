"""`FedAOTAggregator` on arrays: what it promises whatever the clients send."""

import io
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

import fedaot

_SHAPES = [(6, 5), (5,), ()]
_DIMENSION = 36
_MODES = pytest.mark.parametrize('has_holdout', [False, True])


class _LeastSquares:
  """A hold-out of a linear model; `steps` of gradient descent as training."""

  num_examples = 60

  def __init__(self, rate=0.1, steps=4):
    rng = np.random.default_rng(0)
    self._x = rng.normal(size=[self.num_examples, 6])
    self._y = self._x @ rng.normal(size=[6, 5]) + 1
    self._rate, self._steps = rate, steps

  def train(self, model, positions):
    model = [array.copy() for array in model]
    for _ in range(self._steps):
      _, gradient = self.loss_and_gradient(model, positions)
      model = [w - self._rate * g for w, g in zip(model, gradient)]
    return model

  def loss_and_gradient(self, model, positions):
    x, y = self._x[positions], self._y[positions]
    error = x @ model[0] + model[1] + model[2] - y
    scale = 2 / error.size
    gradient = [
        scale * x.T @ error,
        scale * error.sum(axis=0),
        scale * error.sum(),
    ]
    return float(np.mean(error**2)), [np.asarray(g) for g in gradient]


def _split(vector, dtype=np.float64):
  parts = np.split(np.asarray(vector, float), [30, 35])
  return [p.reshape(s).astype(dtype) for p, s in zip(parts, _SHAPES)]


def _flatten(arrays):
  return np.concatenate([np.ravel(array) for array in arrays])


def _aggregator(has_holdout, **kwargs):
  settings = dict(seed=3)
  settings.update(kwargs)
  return fedaot.FedAOTAggregator(
      _LeastSquares() if has_holdout else None, **settings
  )


def _model():
  return _split(np.linspace(-1, 1, _DIMENSION))


def _updates(num_clients, seed=1):
  """Honest updates [N, d]: what training gives from `_model`, with noise."""
  rng = np.random.default_rng(seed)
  trained = _LeastSquares().train(_model(), np.arange(60))
  center = _flatten(_model()) - _flatten(trained)
  noise = np.linalg.norm(center) / np.sqrt(_DIMENSION)
  return center + noise * rng.normal(size=[num_clients, _DIMENSION])


def _clients(updates, model=None):
  start = _flatten(model or _model())
  return [_split(start - update) for update in updates]


def _run(aggregator, updates, model=None):
  """The update that the model gets, after learning."""
  model = model or _model()
  new_model = aggregator.aggregate(model, _clients(updates, model))
  aggregator.learn(new_model)
  return _flatten(model) - _flatten(new_model)


def test_imports_no_framework():
  code = (
      'import sys, fedaot; print(sorted({"tensorflow", "torch", "jax", "flwr",'
      ' "tensorflow_federated", "pandas", "scipy"} & set(sys.modules)))'
  )
  output = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert output.stdout.strip() == '[]'


@_MODES
def test_result_is_the_weighted_sum_of_clipped_updates(has_holdout):
  aggregator = _aggregator(has_holdout)
  updates = _updates(7)
  updates[0] *= 9
  found = _run(aggregator, updates)
  this_round = aggregator.last_round
  norms = np.linalg.norm(updates, axis=1)
  clip = np.minimum(1, 2 * this_round.norm_bound / norms)
  np.testing.assert_allclose(this_round.norms, norms, rtol=1e-5)
  np.testing.assert_allclose(
      this_round.coefficients, this_round.weights * clip, rtol=1e-5
  )
  np.testing.assert_allclose(
      found, this_round.coefficients @ updates, atol=1e-9
  )
  assert this_round.num_clipped == np.sum(clip < 1 - 1e-6)
  np.testing.assert_allclose(
      this_round.effective_clients, 1 / np.sum(this_round.weights**2)
  )


@_MODES
def test_attackers_lose_their_weight(has_holdout):
  aggregator, model = _aggregator(has_holdout), _model()
  for seed in range(5):
    updates = _updates(10, seed)
    updates[:4] *= -2
    new_model = aggregator.aggregate(model, _clients(updates, model))
    aggregator.learn(new_model)
  assert aggregator.last_round.weights[:4].sum() < 0.02
  assert aggregator.last_round.num_attenuated >= 4


@_MODES
@pytest.mark.parametrize('kind', ['none', 'unread', 'nan', 'inf', 'huge'])
def test_unusable_clients_are_as_if_left_out(has_holdout, kind):
  updates = _updates(6)
  clients = _clients(updates)
  bad = {
      'none': None,
      'unread': lambda: None,
      'nan': _split([np.nan] + [0] * 35),
      'inf': _split([0] * 35 + [np.inf]),
      'huge': _split([1e30] * 36),
  }[kind]
  alone, together = _aggregator(has_holdout), _aggregator(has_holdout)
  expected = alone.aggregate(_model(), clients)
  found = together.aggregate(
      _model(), [bad] + clients[:3] + [bad] + clients[3:]
  )
  np.testing.assert_allclose(_flatten(found), _flatten(expected), atol=1e-12)
  assert together.last_round.num_non_finite == 2
  np.testing.assert_array_equal(together.last_round.weights[[0, 4]], 0)
  alone.learn(expected)
  together.learn(found)
  states = alone.state_dict(), together.state_dict()
  for name in states[0]:
    if not name.startswith('memory'):
      if states[0][name].dtype.kind == 'f':
        np.testing.assert_allclose(
            states[1][name], states[0][name], atol=1e-9, err_msg=name
        )


@_MODES
@pytest.mark.parametrize('num_clients', [0, 3])
def test_a_round_without_a_usable_client_changes_nothing(
    has_holdout, num_clients
):
  aggregator = _aggregator(has_holdout)
  _run(aggregator, _updates(5))
  before = aggregator.state_dict()
  np.testing.assert_array_equal(
      _run(aggregator, np.full([num_clients, _DIMENSION], np.nan)), 0
  )
  after = aggregator.state_dict()
  assert int(after.pop('round')) == int(before.pop('round')) + 1
  for name in before:
    np.testing.assert_array_equal(after[name], before[name], err_msg=name)
  assert aggregator.last_round.effective_clients == 0


@_MODES
def test_degenerate_cohorts(has_holdout):
  one = _updates(1)
  np.testing.assert_allclose(
      _run(_aggregator(has_holdout), one), one[0], rtol=1e-6
  )
  equal = np.repeat(one, 4, axis=0)
  aggregator = _aggregator(has_holdout)
  np.testing.assert_allclose(_run(aggregator, equal), one[0], rtol=1e-6)
  np.testing.assert_allclose(aggregator.last_round.weights, 0.25)
  zeros = np.zeros([3, _DIMENSION])
  np.testing.assert_array_equal(_run(aggregator, zeros), 0)
  assert np.all(np.isfinite(_run(aggregator, _updates(4))))


@_MODES
def test_order_of_clients_has_no_influence(has_holdout):
  updates = _updates(9)
  updates[:2] *= -1
  order = np.random.default_rng(0).permutation(9)
  first, second = _aggregator(has_holdout), _aggregator(has_holdout)
  np.testing.assert_allclose(
      _run(first, updates), _run(second, updates[order]), rtol=1e-6, atol=1e-9
  )
  np.testing.assert_allclose(
      first.last_round.weights[order], second.last_round.weights, rtol=1e-6
  )


def test_clients_are_read_one_at_a_time_and_twice():
  open_clients, reads = [], []

  def reader(i, arrays):
    def read():
      reads.append(i)
      open_clients.append(i)
      assert len(open_clients) == 1
      open_clients.clear()
      return arrays

    return read

  clients = _clients(_updates(4))
  lazily = _aggregator(False).aggregate(
      _model(), [reader(i, c) for i, c in enumerate(clients)]
  )
  assert reads == [0, 1, 2, 3] * 2
  for found, expected in zip(
      lazily, _aggregator(False).aggregate(_model(), clients)
  ):
    np.testing.assert_array_equal(found, expected)


def test_dtypes_and_shapes_are_those_of_the_model():
  model = [np.ones(3, np.float16), np.ones([2, 2], np.float64), np.float32(1.0)]
  clients = [
      [np.asarray(array) * scale for array in model] for scale in (0.5, 0.6)
  ]
  found = _aggregator(False).aggregate(model, clients)
  assert [f.dtype for f in found] == [np.float16, np.float64, np.float32]
  assert [f.shape for f in found] == [(3,), (2, 2), ()]
  np.testing.assert_allclose(found[1], 0.55, atol=0.03)


def test_example_counts_are_heeded_only_if_asked():
  updates = _updates(3)
  plain = _aggregator(False)
  plain.aggregate(_model(), _clients(updates), [1, 100, np.inf])
  counted = _aggregator(
      False, config=fedaot.FedAOTConfig(max_example_ratio=2.0)
  )
  counted.aggregate(_model(), _clients(updates), [1, 3, 1e9])
  np.testing.assert_allclose(
      counted.last_round.weights
      / plain.last_round.weights
      / (counted.last_round.weights[0] / plain.last_round.weights[0]),
      # The median is 3.
      [1, 3, 6],
  )
  counted.aggregate(_model(), _clients(updates), [np.inf, 3, np.nan])
  np.testing.assert_array_equal(counted.last_round.weights, [0, 1, 0])
  assert counted.last_round.num_non_finite == 1
  assert counted.last_round.num_empty == 1


@_MODES
@pytest.mark.parametrize('poison', [0.0, 1.0, np.nan])
def test_clients_without_examples_do_not_vote(has_holdout, poison):
  """Six of ten have nothing to say: the round is that of the four alone."""
  counts = np.array([0, 3, 0, 0, np.nan, 5, -1, 1e9, 0, 0.5])
  votes = counts > 0
  alone, together = _aggregator(has_holdout), _aggregator(has_holdout)
  model, expected_model = _model(), _model()
  for seed in range(3):
    updates = _updates(10, seed)
    updates[~votes] *= poison
    model = together.aggregate(model, _clients(updates, model), counts)
    expected_model = alone.aggregate(
        expected_model, _clients(updates[votes], expected_model)
    )
    for aggregator, new_model in ((together, model), (alone, expected_model)):
      aggregator.learn(new_model)
    found, expected = together.last_round, alone.last_round
    np.testing.assert_allclose(_flatten(model), _flatten(expected_model))
    np.testing.assert_allclose(found.weights[votes], expected.weights)
    assert not found.weights[~votes].any()
    assert (found.num_empty, found.num_non_finite) == (6, 0)
    assert (expected.num_empty, expected.num_non_finite) == (0, 0)
    assert found.num_attenuated == expected.num_attenuated


@_MODES
def test_a_round_in_which_nobody_has_anything_to_say(has_holdout):
  aggregator, model = _aggregator(has_holdout), _model()
  for seed in range(2):
    _run(aggregator, _updates(6, seed))
  before = aggregator.state_dict()
  for clients in ([], _clients(_updates(3))):
    found = aggregator.aggregate(model, clients, [0] * len(clients))
    aggregator.learn(found)
    np.testing.assert_array_equal(_flatten(found), _flatten(model))
    assert aggregator.last_round.num_empty == len(clients)
    assert aggregator.last_round.num_non_finite == 0
  after = aggregator.state_dict()
  assert after.pop('round') == before.pop('round') + 2
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array, err_msg=name)


@_MODES
def test_a_saved_state_goes_on_as_if_uninterrupted(has_holdout):
  whole, model = _aggregator(has_holdout), _model()
  _run(whole, _updates(6, 1))
  new_model = whole.aggregate(model, _clients(_updates(6, 2)))
  # In the middle of a round, too: `learn` is still to come.
  file = io.BytesIO()
  np.savez(file, **whole.state_dict())
  file.seek(0)
  resumed = _aggregator(has_holdout, seed=99)
  resumed.load_state_dict(np.load(file, allow_pickle=False))
  for aggregator in (whole, resumed):
    aggregator.learn(new_model)
  np.testing.assert_array_equal(
      _run(whole, _updates(6, 3)), _run(resumed, _updates(6, 3))
  )
  states = whole.state_dict(), resumed.state_dict()
  assert list(states[0]) == list(states[1])
  for name in states[0]:
    np.testing.assert_array_equal(states[0][name], states[1][name])


@_MODES
def test_a_state_of_before_the_first_round_is_a_new_start(has_holdout):
  fresh, used = _aggregator(has_holdout), _aggregator(has_holdout)
  _run(used, _updates(6, 1))
  used.load_state_dict(fresh.state_dict())
  np.testing.assert_array_equal(
      _run(used, _updates(6, 2)), _run(fresh, _updates(6, 2))
  )


def test_state_dict_is_a_copy():
  aggregator = _aggregator(False)
  _run(aggregator, _updates(3))
  aggregator.state_dict()['reference'][:] = np.nan
  assert np.all(np.isfinite(aggregator.state_dict()['reference']))


@pytest.mark.parametrize(
    'change, expected',
    [
        (dict(mode=np.array('holdout')), 'agreement mode; found holdout'),
        # As the first version had it.
        ({'weighting.margin': np.zeros(4)}, "'weighting.margin' of shape (3,)"),
        ({'camp_memory': np.full(2, np.nan)}, "'camp_memory' that is not"),
    ],
)
def test_a_state_of_another_kind_is_refused(change, expected):
  aggregator = _aggregator(False)
  _run(aggregator, _updates(3))
  before = aggregator.state_dict()
  with pytest.raises(ValueError) as info:
    aggregator.load_state_dict({**before, **change})
  assert expected in str(info.value)
  for name, value in aggregator.state_dict().items():
    np.testing.assert_array_equal(value, before[name])


def test_a_missing_entry_of_a_state_is_refused():
  state = _aggregator(True).state_dict()
  del state['seed']
  with pytest.raises(ValueError, match="'seed'.*found none"):
    _aggregator(True).load_state_dict(state)


def test_a_round_must_be_learned_before_the_next():
  aggregator = _aggregator(True)
  aggregator.aggregate(_model(), _clients(_updates(3)))
  with pytest.raises(RuntimeError, match=r'call learn\(model\)'):
    aggregator.aggregate(_model(), _clients(_updates(3)))


def test_learning_is_at_the_model_that_it_is_given():
  """A server optimizer may have made another model of the aggregate."""
  # All examples judge, not a half that the aggregator draws.
  config = fedaot.FedAOTConfig(min_examples_to_split=100)
  first, second = (_aggregator(True, config=config) for _ in range(2))
  for aggregator, scale in ((first, 1.0), (second, 3.0)):
    updates = _updates(6)
    updates[0] *= -1
    new_model = aggregator.aggregate(_model(), _clients(updates))
    model = [m + scale * (n - m) for m, n in zip(_model(), new_model)]
    aggregator.learn(model)
    loss, _ = _LeastSquares().loss_and_gradient(model, np.arange(60))
    np.testing.assert_allclose(aggregator.holdout_loss_after, loss)
  assert first.holdout_loss_after > second.holdout_loss_after
  assert np.any(
      first.state_dict()['weighting.margin']
      != second.state_dict()['weighting.margin']
  )


def test_seed_is_secret_unless_given():
  draw = lambda: int(fedaot.FedAOTAggregator().state_dict()['seed'])
  assert draw() != draw()
  assert int(_aggregator(False, seed=8).state_dict()['seed']) == 8


@pytest.mark.parametrize(
    'arguments, error, expected',
    [
        (dict(holdout=3), TypeError, 'holdout must have num_examples'),
        (dict(config={}), TypeError, 'found dict'),
        (dict(seed=1.5), TypeError, 'seed must be an int; found 1.5'),
        (dict(seed=-1), ValueError, 'found -1'),
    ],
)
def test_wrong_arguments(arguments, error, expected):
  with pytest.raises(error) as info:
    fedaot.FedAOTAggregator(**arguments)
  assert expected in str(info.value)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'model, clients, kwargs, error, expected',
    [
        ([np.ones(2, int)], [], {}, TypeError, 'Array 0 of the model must be'),
        ([np.array([np.inf])], [], {}, ValueError, 'is not finite'),
        ([], [], {}, ValueError, 'has no floats'),
        ([np.ones(2)], [[np.ones(3)]], {}, ValueError, 'client 0 must have'),
        ([np.ones(2)], [[np.ones(2)] * 2], {}, ValueError, 'client 0 must'),
        ([np.ones(2)], [[np.array(['a', 'b'])]], {}, ValueError, 'numbers'),
        (
            [np.ones(2)],
            [[np.ones(2)]],
            dict(num_examples=[1, 2]),
            ValueError,
            'each of 1 clients; found 2',
        ),
    ],
)
def test_wrong_arrays(model, clients, kwargs, error, expected):
  with pytest.raises(error) as info:
    _aggregator(False).aggregate(model, clients, **kwargs)
  assert expected in str(info.value)
  assert '\n' not in str(info.value)


def test_another_model_needs_another_aggregator():
  config = fedaot.FedAOTConfig(sketch_dimension=4)
  aggregator = _aggregator(False, config=config)
  aggregator.aggregate([np.ones(30)], [[np.zeros(30)]])
  with pytest.raises(ValueError, match='make a new FedAOTAggregator'):
    aggregator.aggregate([np.ones(5)], [[np.zeros(5)]])


def test_a_useless_hold_out_says_nothing():
  class Useless(_LeastSquares):

    def loss_and_gradient(self, model, positions):
      return np.nan, [np.full_like(w, np.nan) for w in model]

  aggregator = fedaot.FedAOTAggregator(Useless(), seed=0)
  result = _run(aggregator, _updates(5))
  assert np.all(np.isfinite(result)) and np.any(result)
  for name, value in aggregator.state_dict().items():
    assert value.dtype.kind != 'f' or np.all(np.isfinite(value)), name


@_MODES
@pytest.mark.parametrize('tiny', [0.0, 1e-30, 2e-19, 6e-19, 1e-18, 1e-12])
@pytest.mark.parametrize('huge', [1.0, 3.5e8, 1e9, 9e13])
def test_norms_at_the_edge_of_float32_spoil_no_later_round(
    has_holdout, tiny, huge
):
  rng = np.random.default_rng(5)
  aggregator, model = _aggregator(has_holdout), _model()
  # Models that differ by less than a float of them: updates around a zero one.
  zero = [np.zeros_like(array) for array in model]
  for num_huge in (0, 2, 4):
    cohort = rng.normal(size=[5, _DIMENSION]) / 6
    cohort[:num_huge] *= huge
    cohort[num_huge:] *= tiny
    new_model = aggregator.aggregate(zero, _clients(cohort, zero))
    assert np.all(np.isfinite(_flatten(new_model)))
    aggregator.learn(new_model)
    for name, value in aggregator.state_dict().items():
      assert value.dtype.kind != 'f' or np.all(np.isfinite(value)), name
  updates = _updates(9)
  updates[:2] *= -1
  _run(aggregator, updates)
  center = updates[2:].mean(axis=0)
  found = _run(aggregator, updates)
  assert found @ center > 0.7 * np.linalg.norm(found) * np.linalg.norm(center)


class _Softmax:
  """A hold-out of softmax regression, and training like its clients'."""

  num_examples = 100

  def __init__(self, x, y):
    self._x, self._y = x, y
    self._rng = np.random.default_rng(0)

  def train(self, model, positions):
    return self.fit(model, self._x[positions], self._y[positions], self._rng)

  def loss_and_gradient(self, model, positions):
    x, y = self._x[positions], self._y[positions]
    logits = x @ model[0] + model[1]
    logits = logits - logits.max(axis=1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(chances[np.arange(len(y)), y] + 1e-9))
    error = (chances - np.eye(model[1].size)[y]) / len(y)
    return float(loss), [x.T @ error, error.sum(axis=0)]

  @classmethod
  def fit(cls, model, x, y, rng):
    for _ in range(50):
      batch = rng.choice(len(y), 20, replace=False)
      _, gradient = cls(x, y).loss_and_gradient(model, batch)
      model = [w - 0.1 * g for w, g in zip(model, gradient)]
    return model


@pytest.mark.parametrize('num_same', [7, 5])
@pytest.mark.parametrize('is_exact', [False, True])
def test_honest_clients_with_the_same_data_keep_the_weight(num_same, is_exact):
  """Three label flippers, who differ, against seven honest clients."""
  x, y = datasets.load_digits(return_X_y=True)
  x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3)
  order = np.random.default_rng(0).permutation(len(y))
  x, y = x[order[449:]], y[order[449:]]
  aggregator = fedaot.FedAOTAggregator(_Softmax(x[:100], y[:100]), seed=0)
  x, y = x[100:400].reshape(10, 30, -1), y[100:400].reshape(10, 30)
  model = [np.zeros([64, 10]), np.zeros(10)]
  for round_num in range(4):
    clients = []
    for i in range(10):
      share = 0 if i < num_same else i
      labels = 9 - y[share] if i >= 7 else y[share]
      seed = 0 if is_exact and i < num_same else i
      rng = np.random.default_rng([round_num, seed])
      clients.append(_Softmax.fit(model, x[share], labels, rng))
    model = aggregator.aggregate(model, clients)
    aggregator.learn(model)
    assert aggregator.last_round.weights[7:].sum() < 0.1


@pytest.mark.parametrize('cosine', [0.999, 0.96, 0.92, 0.8])
@pytest.mark.parametrize('jitter', [0.0, 0.5, 2.0])
def test_honest_clients_who_are_alike_outvote_those_who_differ(cosine, jitter):
  """Six of ten with much the same data, four that send the opposite."""
  d = 500
  for seed in range(3):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(d)
    model = [np.zeros(d)]
    aggregator = fedaot.FedAOTAggregator(seed=seed)
    spread = np.sqrt(1 / cosine - 1)
    for _ in range(6):
      step = target - model[0]
      noise = rng.standard_normal((10, d)) * np.linalg.norm(step) / np.sqrt(d)
      honest = [step + spread * e for e in noise[:6]]
      others = [-step - jitter * e for e in noise[6:]]
      model = aggregator.aggregate(
          model, [[model[0] + 0.3 * u] for u in honest + others]
      )
      aggregator.learn(model)
    assert aggregator.last_round.weights[6:].sum() < 0.05
    assert np.linalg.norm(model[0] - target) < 0.3 * np.linalg.norm(target)
