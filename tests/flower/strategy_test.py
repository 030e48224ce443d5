"""Tests for FedAOT and rules as strategies of Flower."""

import inspect
import io
import logging
import types

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.serverapp import strategy as flower_strategies
import numpy as np
import pytest

import fedaot
from fedaot import rules
from fedaot.flower import FedAOT
from fedaot.flower import Robust
from tests.flower import messages


class _Quadratic:
  """A hold-out on all of `messages.model`: a pull towards a target."""

  num_examples = 4

  def __init__(self, target):
    self._target = target
    self.seen = []

  def train(self, model, positions):
    self.seen = [np.array(array) for array in model]
    _, gradient = self.loss_and_gradient(model, positions)
    return [m - 0.5 * g for m, g in zip(model, gradient)]

  def loss_and_gradient(self, model, positions):
    gradient = [
        (m - self._target[n]) * (n in messages.WEIGHTS)
        for n, m in zip(self._target, model)
    ]
    return sum(float(np.sum(g * g)) for g in gradient) / 2, gradient


class _OfWeights(_Quadratic):
  """The same on the weights alone, as `FedAOTAggregator` is given it."""

  def loss_and_gradient(self, model, positions):
    gradient = [m - self._target[n] for m, n in zip(model, messages.WEIGHTS)]
    return sum(float(np.sum(g * g)) for g in gradient) / 2, gradient


def _rounds(rng, num_rounds):
  arrays = messages.model(rng)
  return arrays, [messages.cohort(rng, arrays) for _ in range(num_rounds)]


def _norm(arrays):
  return np.sqrt(sum(np.sum(np.square(a, dtype=float)) for a in arrays))


@pytest.mark.parametrize('has_holdout', [False, True])
def test_rounds_are_those_of_the_aggregator(has_holdout):
  rng = np.random.default_rng(1)
  arrays, rounds = _rounds(rng, 4)
  target = messages.model(rng)
  strategy = FedAOT(holdout=_Quadratic(target) if has_holdout else None, seed=3)
  aggregator = fedaot.FedAOTAggregator(
      _OfWeights(target) if has_holdout else None, seed=3
  )
  model = messages.weights(arrays)
  for i, (replies, _) in enumerate(rounds):
    aggregator.learn(model)
    model = aggregator.aggregate(model, [messages.weights(r) for r in replies])
    arrays, metrics = messages.train(strategy, arrays, replies, i + 1)
    for found, expected in zip(messages.weights(arrays), model):
      np.testing.assert_array_equal(found, expected)
      assert found.dtype == expected.dtype
    last = aggregator.last_round
    assert metrics['fedaot-weights'] == last.weights.tolist()
    for name in (
        'effective_clients',
        'norm_bound',
        'num_attenuated',
        'num_clipped',
        'num_non_finite',
        'holdout_loss_before',
        'root_norm',
    ):
      key = f'fedaot-{name.replace("_", "-")}'
      assert metrics.get(key) == getattr(last, name)


def test_attackers_lose_their_weight_and_clients_do_not_see_a_new_type():
  rng = np.random.default_rng(2)
  arrays = messages.model(rng)
  replies, common = messages.cohort(rng, arrays)
  new, metrics = messages.train(FedAOT(seed=1), arrays, replies)
  assert {n: (a.shape, a.dtype) for n, a in new.items()} == {
      n: (a.shape, a.dtype) for n, a in arrays.items()
  }
  assert list(new) == list(arrays)
  assert sum(metrics['fedaot-weights'][:3]) < 0.02
  update = new['conv.weight'] - arrays['conv.weight']
  product = np.sum(update * common['conv.weight'])
  assert product > 0.9 * _norm([update]) * _norm([common['conv.weight']])


@pytest.mark.parametrize(
    'strategy',
    [FedAOT(seed=1), Robust(rules.krum(3)), Robust(rules.coordinate_median())],
)
def test_buffers_are_medians(strategy):
  rng = np.random.default_rng(3)
  arrays = messages.model(rng)
  replies, _ = messages.cohort(rng, arrays)
  new, _ = messages.train(strategy, arrays, replies)
  assert new['bn.num_batches_tracked'] == 9
  assert np.all((2 < new['bn.running_var']) & (new['bn.running_var'] < 2.1))


def test_median_is_weighted_by_trust():
  """Sixty percent of the cohort vote for 10^9; the hold-out gives 9."""
  rng = np.random.default_rng(4)
  arrays = messages.model(rng)
  replies, common = messages.cohort(rng, arrays, num_flipped=6)
  target = {n: a + 0.1 * common[n] for n, a in arrays.items()}
  strategy = FedAOT(holdout=_Quadratic(target), seed=1)
  new, metrics = messages.train(strategy, arrays, replies)
  assert sum(metrics['fedaot-weights'][:6]) < 0.1
  assert new['bn.num_batches_tracked'] == 9


def test_buffers_of_no_usable_client_stay():
  rng = np.random.default_rng(5)
  arrays = messages.model(rng)
  arrays['bn.running_var'] = np.full(3, 4.0, np.float32)
  nan = {**arrays, 'bn.running_var': np.full(3, np.nan)}
  replies = [messages.reply(i, nan) for i in (1, 2)]
  new, _ = messages.train(FedAOT(seed=1), arrays, replies)
  np.testing.assert_array_equal(new['bn.running_var'], 4.0)


def test_buffers_can_be_named():
  """As in Keras, whose arrays Flower numbers."""
  arrays = {'4': np.zeros(20, np.float32), '14': np.zeros(20, np.float32)}
  replies = [
      messages.reply(i, {n: a + i for n, a in arrays.items()})
      for i in (1, 2, 6)
  ]
  new, _ = messages.train(FedAOT(seed=1, buffers=['4']), arrays, replies)
  assert np.all(new['4'] == 2)
  assert not np.any(np.isin(new['14'], (1, 2, 6)))


def test_unusable_replies_are_dropped_and_counted(caplog):
  rng = np.random.default_rng(6)
  arrays = messages.model(rng)
  replies, _ = messages.cohort(rng, arrays, num_flipped=0)
  good = messages.train(FedAOT(seed=1), arrays, replies[2:])[0]
  garbage = dict(replies[0].content['arrays'])
  garbage['head'] = Array(
      dtype='float16', shape=(5,), stype='numpy.ndarray', data=b'\n\n\x1b[2Jno'
  )
  nan = {n: np.full_like(a, np.nan) for n, a in arrays.items() if n == 'head'}
  strategy = FedAOT(seed=1)
  with caplog.at_level(logging.WARNING, logger='flwr'):
    new, metrics = messages.train(
        strategy,
        arrays,
        [
            messages.reply(1, ArrayRecord(garbage)),
            messages.reply(2, {'other': np.zeros(3)}),
            *replies[2:],
            replies[4],  # A node has one voice.
            messages.reply(11, {**arrays, **nan}),
        ],
    )
  assert metrics['fedaot-num-dropped'] == 3
  assert metrics['fedaot-num-non-finite'] == 1
  assert strategy.node_ids == [*range(3, 11), 11]
  assert len(metrics['fedaot-weights']) == 9
  for name in messages.WEIGHTS:
    np.testing.assert_allclose(new[name], good[name], rtol=1e-3)
  dropped = [r for r in caplog.messages if 'Dropped the reply of node' in r]
  nodes = [message.split(':')[0][-6:] for message in dropped]
  assert nodes == ['node 1', 'node 2', 'node 5']
  assert not any('\n' in message for message in dropped)


@pytest.mark.parametrize(
    'strategy', [FedAOT(seed=1), Robust(rules.trimmed_mean(1))]
)
def test_a_round_without_usable_replies_leaves_the_model(strategy):
  arrays = messages.model(np.random.default_rng(7))
  bad = messages.reply(1, {'x': np.zeros(1)})
  assert messages.train(strategy, arrays, [bad]) == (
      None,
      MetricRecord({'fedaot-num-dropped': 1}),
  )
  assert messages.train(strategy, arrays, []) == (
      None,
      MetricRecord({'fedaot-num-dropped': 0}),
  )


def test_a_count_is_of_use_only_if_capped():
  rng = np.random.default_rng(8)
  arrays = messages.model(rng)
  replies, _ = messages.cohort(rng, arrays, num_flipped=0)
  forged = [messages.reply(1, replies[0].content['arrays'], num_examples=10**9)]
  plain = messages.train(FedAOT(seed=1), arrays, replies)[1]
  same = messages.train(FedAOT(seed=1), arrays, forged + replies[1:])[1]
  config = fedaot.FedAOTConfig(max_example_ratio=2.0)
  capped = messages.train(
      FedAOT(seed=1, config=config), arrays, forged + replies[1:]
  )[1]
  assert same['fedaot-weights'] == plain['fedaot-weights']
  assert plain['fedaot-weights'][0] < capped['fedaot-weights'][0] < 0.4


# --- Metrics ---


def test_clients_metrics_are_averaged_and_odd_ones_left_out():
  rng = np.random.default_rng(9)
  arrays = messages.model(rng)
  replies, _ = messages.cohort(rng, arrays, loss=2.0, f1=[0.5, 1.0])
  record = replies[0].content['arrays']
  replies[0] = messages.reply(1, record, loss=float('nan'), f1=[0.0, 0.0])
  replies[1] = messages.reply(2, record, f1=[0.0], fedaot_weights=5)
  replies[2] = messages.reply(3, record, loss=6.0, f1=[0.5, 1.0])
  replies[2].content['metrics']['num-examples'] = 30
  _, metrics = messages.train(FedAOT(seed=1), arrays, replies)
  assert metrics['loss'] == pytest.approx((7 * 2.0 * 10 + 6.0 * 30) / 100)
  assert metrics['f1'] == pytest.approx([0.5, 1.0])
  assert 'num-examples' not in metrics
  assert len(metrics['fedaot-weights']) == 10


def test_own_metrics_functions_are_called():
  asked = []

  def worst(contents, key):
    asked.append(key)
    return MetricRecord({'worst': max(c['metrics']['loss'] for c in contents)})

  rng = np.random.default_rng(10)
  arrays = messages.model(rng)
  replies, _ = messages.cohort(rng, arrays, loss=2.0)
  strategy = FedAOT(
      seed=1,
      train_metrics_aggr_fn=worst,
      evaluate_metrics_aggr_fn=lambda contents, key: None,
      weighted_by_key='loss',
  )
  _, metrics = messages.train(strategy, arrays, replies)
  assert metrics['worst'] == 2.0 and asked == ['loss']
  assert strategy.aggregate_evaluate(1, replies) == MetricRecord()


def test_evaluation_goes_on_without_unusable_replies():
  strategy = FedAOT(seed=1)
  metrics = lambda **m: RecordDict({'metrics': MetricRecord(m)})
  replies = [
      messages.answer(1, metrics(**{'num-examples': 10, 'acc': 0.5})),
      messages.answer(2, metrics(**{'num-examples': 30, 'acc': 0.9})),
      messages.answer(3, metrics(acc=0.0)),
      messages.answer(4, metrics(**{'num-examples': [3], 'acc': 0.0})),
      messages.answer(5, metrics(**{'num-examples': 5, 'acc': float('nan')})),
      messages.answer(6, RecordDict()),
  ]
  found = strategy.aggregate_evaluate(1, replies)
  assert dict(found) == {'acc': pytest.approx(0.8)}
  assert strategy.aggregate_evaluate(1, replies[3:4]) is None


# --- Rules ---


def _rule(name):
  options = inspect.signature(rules.RULES[name]).parameters
  given = {'num_byzantine': 2, 'seed': 1}
  return rules.RULES[name](**{k: v for k, v in given.items() if k in options})


_ALL_RULES = [
    *(_rule(name) for name, f in rules.RULES.items() if not f.needs_root),
    rules.nnm(rules.krum(2)),
    rules.bucketing(rules.coordinate_median(), seed=3),
    rules.median_norm_bounding(rules.trimmed_mean(2)),
    rules.arc(rules.geometric_median(), num_byzantine=2),
]


def _flat_update(before, after):
  return np.concatenate(
      [
          np.subtract(a, b, dtype=np.float32).ravel()
          for b, a in zip(before, after)
      ]
  )


@pytest.mark.parametrize('rule', _ALL_RULES, ids=repr)
def test_robust_gives_what_the_rule_gives(rule):
  rng = np.random.default_rng(11)
  arrays, rounds = _rounds(rng, 3)
  strategy, reference = Robust(rule), None
  for i, (replies, _) in enumerate(rounds):
    before = messages.weights(arrays)
    updates = [_flat_update(before, messages.weights(r)) for r in replies]
    expected, measured = rule.measure(
        updates,
        round_num=i,
        reference=reference,
        shapes=[array.shape for array in before],
    )
    if rule.remembers:
      reference = expected
    arrays, metrics = messages.train(strategy, arrays, replies, i + 1)
    found = _flat_update(before, messages.weights(arrays))
    np.testing.assert_allclose(found, expected, atol=4e-3)  # Half precision.
    np.testing.assert_allclose(found[:24], expected[:24], atol=1e-6)
    assert metrics['fedaot-num-non-finite'] == 0
    if 'weights' in measured:
      assert metrics['fedaot-weights'] == measured['weights'].tolist()


def test_fltrust_trusts_what_the_holdout_trains():
  rng = np.random.default_rng(12)
  arrays = messages.model(rng)
  replies, common = messages.cohort(rng, arrays, num_flipped=7)
  target = {n: a + common[n] for n, a in arrays.items()}
  strategy = Robust(rules.fltrust(), holdout=_Quadratic(target))
  _, metrics = messages.train(strategy, arrays, replies)
  assert metrics['fedaot-trust-scores'][:7] == [0.0] * 7
  assert min(metrics['fedaot-trust-scores'][7:]) > 0.8


# --- Going on ---


def _strategies():
  target = messages.model(np.random.default_rng(13))
  return [
      lambda: FedAOT(seed=1),
      lambda: FedAOT(seed=1, holdout=_Quadratic(target)),
      lambda: Robust(rules.centered_clipping(1.0)),
      lambda: Robust(rules.bucketing(rules.krum(2), seed=3)),
  ]


@pytest.mark.parametrize('make', _strategies())
def test_a_restarted_server_app_goes_on(make):
  arrays, rounds = _rounds(np.random.default_rng(14), 5)
  expected, strategy = arrays, make()
  for i, (replies, _) in enumerate(rounds):
    expected, metrics = messages.train(strategy, expected, replies, i + 1)
  strategy = make()
  for i, (replies, _) in enumerate(rounds):
    arrays, found = messages.train(strategy, arrays, replies, i + 1)
    file = io.BytesIO()
    np.savez(file, **strategy.state_dict())
    file.seek(0)
    strategy = make()
    strategy.load_state_dict(np.load(file))
  for name, array in expected.items():
    np.testing.assert_array_equal(arrays[name], array)
  assert found == metrics


def test_a_holdout_sees_the_buffers_of_the_round():
  rng = np.random.default_rng(15)
  arrays = messages.model(rng)
  holdout = _Quadratic(messages.model(rng))
  strategy = FedAOT(holdout=holdout, seed=1)
  for i in range(2):
    before = arrays
    arrays, _ = messages.train(
        strategy, arrays, messages.cohort(rng, arrays)[0], i + 1
    )
    for seen, array in zip(holdout.seen, before.values()):
      np.testing.assert_array_equal(seen, array)


# --- What Flower wraps ---


_DP = 'DifferentialPrivacy'


@pytest.mark.parametrize(
    'kind, options',
    [
        ('ServerSideFixedClipping', {'clipping_norm': 5.0}),
        ('ClientSideFixedClipping', {'clipping_norm': 5.0}),
        ('ServerSideAdaptiveClipping', {'initial_clipping_norm': 5.0}),
        ('ClientSideAdaptiveClipping', {'initial_clipping_norm': 5.0}),
    ],
)
def test_central_differential_privacy_goes_around_it(kind, options):
  rng = np.random.default_rng(16)
  arrays = {'w': rng.standard_normal((30, 20)).astype(np.float32)}
  common = rng.standard_normal((30, 20))
  # What clients clip themselves.
  scale = 5 / _norm([common]) if 'Client' in kind else 1
  replies = [
      messages.reply(
          i + 1,
          {'w': arrays['w'] + (-1 if i < 3 else 1) * scale * common},
      )
      for i in range(10)
  ]
  for reply in replies:
    reply.content['metrics']['norm_bit'] = 1.0
  wrapped = getattr(flower_strategies, _DP + kind)(
      FedAOT(seed=1), noise_multiplier=1e-3, num_sampled_clients=10, **options
  )
  new, metrics = messages.train(wrapped, arrays, replies)
  update = new['w'] - arrays['w']
  assert 4 < _norm([update]) < 6
  assert np.sum(update * common) > 0.9 * _norm([update]) * _norm([common])
  assert sum(metrics['fedaot-weights'][:3]) < 0.02


def test_flower_accounts_for_no_privacy_around_it():
  accounting = pytest.importorskip('flwr.supercore.privacy_accounting')
  method = accounting.SamplingMethod.NO_AMPLIFICATION
  accountant = types.SimpleNamespace(
      config=types.SimpleNamespace(sampling_method=method)
  )
  with pytest.raises(ValueError, match='requires a strategy using'):
    flower_strategies.DifferentialPrivacyServerSideFixedClipping(
        FedAOT(), 1.0, 5.0, 10, accountant=accountant
    )


def test_server_optimizers_mix_in():
  class FedAOTAdam(flower_strategies.FedAdam, FedAOT):
    """Adam on the robust aggregate."""

  rng = np.random.default_rng(17)
  arrays = {'w': rng.standard_normal(50).astype(np.float32)}
  replies = [
      messages.reply(i + 1, {'w': arrays['w'] + (-10 if i < 3 else 1)})
      for i in range(10)
  ]
  new, metrics = messages.train(FedAOTAdam(eta=0.01), arrays, replies)
  assert np.all(new['w'] > arrays['w'])
  assert sum(metrics['fedaot-weights'][:3]) < 0.02


def test_secure_aggregation_is_refused():
  from flwr.server import LegacyContext
  from flwr.server import workflow

  context = LegacyContext(
      context=Context(
          run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}
      ),
      strategy=FedAOT(seed=1),
  )
  run = workflow.DefaultWorkflow(
      fit_workflow=workflow.SecAggPlusWorkflow(
          num_shares=3, reconstruction_threshold=2
      )
  )
  with pytest.raises(TypeError, match='hides the single updates'):
    run(messages.Nodes(3), context)


# --- Refusals ---


def test_wrong_arguments_are_refused():
  with pytest.raises(TypeError, match='holdout must have num_examples'):
    FedAOT(holdout=[1, 2])
  with pytest.raises(TypeError, match='config must be a fedaot.FedAOTConfig'):
    FedAOT(config={})
  with pytest.raises(ValueError, match='seed must be >= 0'):
    FedAOT(seed=-1)
  with pytest.raises(TypeError, match='rule must be a Rule; found function'):
    Robust(rules.krum)
  with pytest.raises(ValueError, match=r'fltrust\(\) needs the .*give a hold'):
    Robust(rules.fltrust())
  with pytest.raises(ValueError, match=r'krum\(.*\) has no use for a holdout'):
    Robust(rules.krum(1), holdout=_Quadratic({}))


def test_aggregation_before_configuration_is_refused():
  with pytest.raises(RuntimeError, match='call configure_train first'):
    FedAOT(seed=1).aggregate_train(1, [])


def test_a_model_without_weights_or_with_nan_is_refused():
  with pytest.raises(ValueError, match='The model has no floats'):
    messages.train(
        FedAOT(), {'n': np.arange(3)}, [messages.reply(1, {'n': np.arange(3)})]
    )
  nan = {'w': np.full(3, np.nan)}
  with pytest.raises(ValueError, match='not finite'):
    messages.train(FedAOT(), nan, [messages.reply(1, nan)])
