"""Tests for the training loop, with real rounds of a small model."""

import collections
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry as aggregators
from fedaot_tff.aggregators import row_gather
from fedaot_tff.attacks import sign_flip
from fedaot_tff.learning import fed_avg
from fedaot_tff.learning import model_mirror
from fedaot_tff.simulation import checkpoints as checkpoints_lib
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import evaluation
from fedaot_tff.simulation import training

_NUM_CLIENTS = 10
_NUM_CLASSES = 3
_CENTERS = 2.0 * np.eye(_NUM_CLASSES, 4)


def _make_examples(seed, num_examples):
  rng = np.random.default_rng(seed)
  y = rng.integers(0, _NUM_CLASSES, num_examples)
  x = _CENTERS[y] + rng.normal(size=[num_examples, 4])
  return collections.OrderedDict(x=x.astype(np.float32), y=y)


def _make_model():
  """Softmax regression."""

  @tf.function
  def predict(weights, x, training):
    del training
    (kernel, bias), _ = weights
    return tf.linalg.matmul(x, kernel) + bias

  @tf.function
  def loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(label, output)
    )

  return tff.learning.models.FunctionalModel(
      initial_weights=(
          (
              np.zeros([4, _NUM_CLASSES], np.float32),
              np.zeros([_NUM_CLASSES], np.float32),
          ),
          (),
      ),
      predict_on_batch_fn=predict,
      loss_fn=loss,
      input_spec=collections.OrderedDict(
          x=tf.TensorSpec([None, 4], tf.float32),
          y=tf.TensorSpec([None], tf.int64),
      ),
  )


def _make_process(model_aggregator):
  return fed_avg.build_attacked_fed_avg(
      _make_model(),
      tff.learning.optimizers.build_sgdm(learning_rate=0.3),
      model_aggregator=model_aggregator,
      update_poisoning=sign_flip.SignFlip(scale=1.0),
  )


class _NormFactory(tff.aggregators.UnweightedAggregationFactory):
  """The mean, which measures the clients' norms as `weights`."""

  def create(self, value_type):

    @tff.federated_computation
    def init_fn():
      return tff.federated_value((), tff.SERVER)

    @tff.tensorflow.computation(value_type)
    def norm(update):
      return tf.linalg.global_norm(tf.nest.flatten(update))

    @tff.federated_computation(
        init_fn.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, updates):
      norms = row_gather.federated_gather(tff.federated_map(norm, updates))
      return tff.templates.MeasuredProcessOutput(
          state,
          tff.federated_mean(updates),
          tff.federated_zip(collections.OrderedDict(weights=norms)),
      )

    return tff.templates.AggregationProcess(init_fn, next_fn)


@pytest.fixture(name='process', scope='module')
def fixture_process():
  return _make_process(_NormFactory())


@pytest.fixture(name='fedaot_process', scope='module')
def fixture_fedaot_process():
  aggregator = aggregators.get_aggregator('fedaot_no_holdout')
  return _make_process(
      aggregator.create(aggregators.AggregatorContext(seed=1))
  )


@pytest.fixture(
    name='each_process',
    params=['process', pytest.param('fedaot_process', marks=pytest.mark.slow)],
)
def fixture_each_process(request):
  return request.getfixturevalue(request.param)


def _client_id(i):
  return f'client_{i}'


def _make_datasets(seed=0, client_data=None):
  if client_data is None:
    client_data = {
        _client_id(i): _make_examples(100 + i, 12 + i)
        for i in range(_NUM_CLIENTS)
    }
  return client_datasets.ClientDatasets(
      tff.simulation.datasets.TestClientData(client_data),
      num_classes=_NUM_CLASSES,
      batch_size=6,
      seed=seed,
  )


def _train(process, *, fraction=0.25, seed=0, datasets=None, **options):
  settings = dict(
      cohorts=cohort_lib.CohortSampler(
          [_client_id(i) for i in range(_NUM_CLIENTS)],
          cohort_size=8,
          byzantine_fraction=fraction,
          seed=seed,
      ),
      datasets=datasets or _make_datasets(seed),
      num_rounds=3,
  )
  return training.train_rounds(process, **{**settings, **options})


def _assert_equal(first, second):
  tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def _weights(record):
  return tf.nest.flatten(record.state.global_model_weights.trainable)


def test_records(process):
  evaluate = evaluation.build_evaluation(_make_model(), _make_examples(1, 200))
  records = list(
      _train(process, num_rounds=5, evaluate=evaluate, evaluate_every=2)
  )
  assert [r.round_num for r in records] == [1, 2, 3, 4, 5]
  assert [r.num_attackers for r in records] == [2] * 5
  assert all(r.model_is_finite for r in records)
  assert all(r.seconds > 0 for r in records)
  evaluated = [r.evaluation is not None for r in records]
  assert evaluated == [False, True, False, True, True]
  assert evaluated == [r.evaluation_seconds > 0 for r in records]
  for record in records[1::2]:
    _assert_equal(
        record.evaluation, evaluate(record.state.global_model_weights)
    )
  initial = evaluate(process.initialize().global_model_weights)
  assert records[-1].evaluation['loss'] < records[1].evaluation['loss']
  assert records[1].evaluation['loss'] < 0.9 * initial['loss']


def test_trains_when_asked(process):
  with mock.patch.object(
      tff.learning.templates.LearningProcess, 'initialize'
  ) as initialize:
    _train(process)
    initialize.assert_not_called()


def test_weights_are_in_the_order_of_the_cohort(process):
  # The first step from zero weights is proportional to x, so a client's norm
  # tells its number. Sign flipping keeps norms.
  y = np.zeros(6, np.int64)
  datasets = _make_datasets(
      client_data={
          _client_id(i): collections.OrderedDict(
              x=np.full([6, 4], 1.0 + i, np.float32), y=y
          )
          for i in range(_NUM_CLIENTS)
      }
  )
  state = process.initialize()
  for seed in range(8):
    cohorts = cohort_lib.CohortSampler(
        [_client_id(i) for i in range(_NUM_CLIENTS)],
        cohort_size=10,
        byzantine_fraction=0.4,
        seed=seed,
    )
    (record,) = _train(
        process,
        cohorts=cohorts,
        datasets=datasets,
        num_rounds=1,
        initial_state=state,
    )
    cohort = cohorts.sample(1)
    norms = record.metrics['aggregator']['weights']
    by_norm = [cohort.client_ids[i] for i in np.argsort(norms)]
    assert by_norm == sorted(by_norm)
    is_attacker = np.isin(cohort.client_ids, cohorts.attackers)
    assert record.attacker_weight == pytest.approx(norms[is_attacker].sum())


@pytest.mark.slow
def test_fedaot_finds_the_attackers(fedaot_process):
  records = list(_train(fedaot_process, num_rounds=2))
  assert all(r.attacker_weight < 0.02 for r in records)
  assert [r.detection_auroc for r in records] == [1.0, 1.0]


@pytest.mark.slow
def test_the_mean_measures_no_weights():
  process = _make_process(tff.aggregators.MeanFactory())
  (record,) = _train(process, num_rounds=1)
  assert record.attacker_weight is None
  assert record.detection_auroc is None


def test_without_attackers(process):
  (record,) = _train(process, fraction=0.0, num_rounds=1)
  assert record.num_attackers == 0
  assert record.attacker_weight == 0.0
  assert record.detection_auroc is None


def test_the_seed_fixes_everything(each_process):
  first, second = list(_train(each_process)), list(_train(each_process))
  for record, again in zip(first, second):
    _assert_equal(record.state, again.state)
    _assert_equal(record.metrics, again.metrics)
    assert record.attacker_weight == again.attacker_weight
  *_, other = _train(each_process, seed=1)
  assert not np.array_equal(_weights(first[-1])[0], _weights(other)[0])


def test_goes_on_where_it_stopped(each_process):
  whole = list(_train(each_process))
  second, third = _train(
      each_process, initial_state=whole[0].state, first_round=2
  )
  assert (second.round_num, third.round_num) == (2, 3)
  _assert_equal(second.state, whole[1].state)
  _assert_equal(third.state, whole[2].state)
  assert not list(
      _train(each_process, initial_state=third.state, first_round=4)
  )


class _Recorder(tff.program.ReleaseManager):
  """Keeps what is released, or fails in a round."""

  def __init__(self, fails_in=None):
    self.released = []
    self._fails_in = fails_in

  async def release(self, value, key):
    if key == self._fails_in:
      raise OSError('full')
    self.released.append((value, key))


def _make_holdout():
  return holdout_lib.HoldOut(
      _make_model(),
      _make_examples(2, 30),
      client_optimizer=tff.learning.optimizers.build_sgdm(learning_rate=0.3),
      batch_size=6,
      num_steps=3,
  )


@pytest.mark.parametrize('name', ['fedaot', 'fedaot_no_holdout'])
def test_goes_on_after_a_checkpoint_as_if_uninterrupted(name, tmp_path):
  # Adam has a state of its own. Without a hold-out the aggregator keeps tables
  # of as many rows as the last cohort had clients.
  holdout = _make_holdout() if name == 'fedaot' else None

  process = fed_avg.build_attacked_fed_avg(
      _make_model(),
      tff.learning.optimizers.build_sgdm(learning_rate=0.3),
      tff.learning.optimizers.build_adam(learning_rate=0.1),
      model_aggregator=aggregators.get_aggregator(name).create(
          aggregators.AggregatorContext(holdout=holdout, seed=1)
      ),
      update_poisoning=sign_flip.SignFlip(scale=1.0),
  )
  evaluate = evaluation.build_evaluation(_make_model(), _make_examples(1, 50))
  whole = list(_train(process, num_rounds=4, evaluate=evaluate))

  def train(**options):
    return _train(
        process,
        num_rounds=4,
        evaluate=evaluate,
        checkpoints=checkpoints_lib.Checkpoints(tmp_path),
        checkpoint_every=2,
        **options,
    )

  rounds = train()
  # Asking for round 3 saves round 2; round 3 is lost.
  for _ in range(3):
    next(rounds)
  rounds.close()
  assert checkpoints_lib.Checkpoints(tmp_path).rounds() == [2]
  recorder = _Recorder()
  third, fourth = train(release_managers=[recorder])
  assert [key for _, key in recorder.released] == [3, 4]
  assert recorder.released[1][0] is fourth
  for record, expected in ((third, whole[2]), (fourth, whole[3])):
    assert record.round_num == expected.round_num
    _assert_equal(record.state, expected.state)
    _assert_equal(record.metrics, expected.metrics)
    assert record.evaluation == expected.evaluation
    assert record.attacker_weight == expected.attacker_weight
  assert checkpoints_lib.Checkpoints(tmp_path).rounds() == [2, 4]
  assert not list(train())


def test_goes_on_from_the_checkpoint_before_a_torn_one(process, tmp_path):
  warnings = []
  settings = dict(
      num_rounds=4,
      checkpoints=checkpoints_lib.Checkpoints(tmp_path, warn=warnings.append),
      checkpoint_every=1,
  )
  whole = list(_train(process, **settings))
  assert settings['checkpoints'].rounds() == [2, 3, 4]
  (tmp_path / 'round_4' / 'saved_model.pb').write_bytes(b'torn')
  (record,) = _train(process, **settings)
  assert record.round_num == 4
  _assert_equal(record.state, whole[3].state)
  (warning,) = warnings
  assert 'checkpoint of round 4 cannot be read' in warning
  records = list(_train(process, last_checkpoint=2, **settings))
  assert [r.round_num for r in records] == [3, 4]
  _assert_equal(records[-1].state, whole[3].state)
  shutil.rmtree(tmp_path / 'round_4')
  assert [r.round_num for r in _train(process, **settings)] == [4]


def test_round_that_cannot_be_released_is_not_in_a_checkpoint(
    process, tmp_path
):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  recorder = _Recorder(fails_in=2)
  with pytest.raises(OSError, match='full'):
    list(
        _train(
            process,
            checkpoints=checkpoints,
            checkpoint_every=1,
            release_managers=[recorder],
        )
    )
  assert checkpoints.rounds() == [1]
  assert [key for _, key in recorder.released] == [1]


def test_reports_a_model_that_is_not_finite(process):
  kernel = np.full([4, _NUM_CLASSES], np.inf, np.float32)
  bias = np.zeros([_NUM_CLASSES], np.float32)
  broken = process.set_model_weights(
      process.initialize(),
      tff.learning.models.ModelWeights((kernel, bias), ()),
  )
  evaluate = evaluation.build_evaluation(_make_model(), _make_examples(1, 20))
  records = list(
      _train(
          process, num_rounds=2, initial_state=broken, evaluate=evaluate
      )
  )
  assert [r.model_is_finite for r in records] == [False, False]
  assert [r.evaluation['accuracy'] for r in records] == [0.0, 0.0]


def test_checks_the_mirror_each_round(process):
  with mock.patch.object(model_mirror, 'check_model') as check:
    records = list(_train(process, num_rounds=2))
    assert [c.args[0] for c in check.call_args_list] == [
        r.state for r in records
    ]
    check.side_effect = ValueError('mirror')
    with pytest.raises(ValueError, match='mirror'):
      next(_train(process))


@pytest.mark.parametrize(
    'options, kind, message',
    [
        (dict(num_rounds=0), ValueError, 'num_rounds must be at least 1'),
        (dict(num_rounds=2.0), TypeError, 'num_rounds must be an int'),
        (dict(evaluate_every=0), ValueError, 'evaluate_every must be at least'),
        (dict(first_round=0), ValueError, 'first_round must be at least 1'),
        (dict(checkpoint_every=0), ValueError, 'checkpoint_every must be at'),
        (dict(checkpoints='a'), TypeError, 'Checkpoints or None; found str'),
        (dict(release_managers=[3]), TypeError, 'ReleaseManagers; found int'),
        (dict(first_round=2), ValueError, 'first_round 2 needs the initial_'),
        (dict(evaluate=3), TypeError, 'evaluate must be a function or None'),
        (dict(process=None), TypeError, 'LearningProcess; found NoneType'),
    ],
)
def test_rejects_other_arguments_at_once(process, options, kind, message):
  with pytest.raises(kind, match=message):
    _train(**{'process': process, **options})


def test_rejects_two_states_to_go_on_from(process, tmp_path):
  with pytest.raises(ValueError, match='initial_state must be None with'):
    _train(
        process,
        initial_state=process.initialize(),
        checkpoints=checkpoints_lib.Checkpoints(tmp_path),
    )
