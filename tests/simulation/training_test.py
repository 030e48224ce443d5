"""Tests for the training loop, with real rounds of a small model."""

import asyncio
import collections
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import registry as aggregators
from fedaot_tff.aggregators import row_gather
from fedaot_tff.attacks import multiples
from fedaot_tff.learning import fed_avg
from fedaot_tff.learning import model_mirror
from fedaot_tff.simulation import checkpoints as checkpoints_lib
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import evaluation
from fedaot_tff.simulation import training
from tests import small_problem

_CLIENT_IDS = [f'client_{i}' for i in range(10)]


def _make_process(model_aggregator, **options):
  return fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=model_aggregator,
      update_poisoning=multiples.SignFlip(scale=1.0),
      **options,
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
  return _make_process(aggregator.create(aggregators.AggregatorContext(seed=1)))


def _make_datasets(examples, seed=0):
  return client_datasets.ClientDatasets(
      tff.simulation.datasets.TestClientData(dict(zip(_CLIENT_IDS, examples))),
      num_classes=small_problem.NUM_CLASSES,
      batch_size=6,
      seed=seed,
  )


def _make_cohorts(*, cohort_size=8, fraction=0.25, seed=0):
  return cohort_lib.CohortSampler(
      _CLIENT_IDS,
      cohort_size=cohort_size,
      byzantine_fraction=fraction,
      seed=seed,
  )


def _train(process, *, seed=0, **options):
  settings = dict(
      cohorts=_make_cohorts(seed=seed),
      datasets=_make_datasets(
          [small_problem.examples(12 + i, seed=100 + i) for i in range(10)],
          seed,
      ),
      num_rounds=3,
  )
  return training.train_rounds(process, **{**settings, **options})


def _make_evaluation():
  return evaluation.build_evaluation(
      small_problem.model(), small_problem.examples(200, seed=1)
  )


def _assert_same_record(found, expected):
  """But for the times."""
  small_problem.assert_bit_identical(found.state, expected.state)
  small_problem.assert_bit_identical(found.metrics, expected.metrics)
  for name in ('round_num', 'evaluation', 'is_byzantine', 'attacker_weight'):
    assert getattr(found, name) == getattr(expected, name)


def test_records(process):
  evaluate = _make_evaluation()
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
    assert record.evaluation == evaluate(record.state.global_model_weights)
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
  # The more equal examples, the longer the way, so that a client's norm tells
  # its number. Sign flipping keeps norms.
  datasets = _make_datasets(
      [
          collections.OrderedDict(
              x=np.ones([6 * n, 4], np.float32), y=np.zeros(6 * n, np.int32)
          )
          for n in range(1, 11)
      ]
  )
  for seed in range(8):
    cohorts = _make_cohorts(cohort_size=10, fraction=0.4, seed=seed)
    (record,) = _train(
        process, cohorts=cohorts, datasets=datasets, num_rounds=1
    )
    cohort = cohorts.sample(1)
    norms = record.metrics['aggregator']['weights']
    by_norm = [cohort.client_ids[i] for i in np.argsort(norms)]
    assert by_norm == _CLIENT_IDS
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
  (record,) = _train(process, cohorts=_make_cohorts(fraction=0.0), num_rounds=1)
  assert record.num_attackers == 0
  assert record.attacker_weight == 0.0
  assert record.detection_auroc is None


@pytest.mark.parametrize(
    'name', ['process', pytest.param('fedaot_process', marks=pytest.mark.slow)]
)
def test_the_seed_fixes_everything(name, request):
  process = request.getfixturevalue(name)
  first, again = list(_train(process)), list(_train(process))
  for record, other in zip(again, first):
    _assert_same_record(record, other)
  *_, other = _train(process, seed=1)
  kernel, other_kernel = (
      r.state.global_model_weights.trainable[0] for r in (first[-1], other)
  )
  assert not np.array_equal(kernel, other_kernel)


class _Recorder:
  """Keeps what is released, or fails in a round."""

  def __init__(self, fails_in=None):
    self.released = []
    self._fails_in = fails_in

  async def release(self, value, key):
    if key == self._fails_in:
      raise OSError('full')
    self.released.append((value, key))


@pytest.mark.parametrize('name', ['fedaot', 'fedaot_no_holdout'])
def test_goes_on_after_a_checkpoint_as_if_uninterrupted(name, tmp_path):
  # Adam has a state of its own. Without a hold-out the aggregator keeps tables
  # of as many rows as the last cohort had clients.
  process = _make_process(
      aggregators.get_aggregator(name).create(
          aggregators.AggregatorContext(
              holdout=small_problem.holdout() if name == 'fedaot' else None,
              seed=1,
          )
      ),
      server_optimizer_fn=tff.learning.optimizers.build_adam(learning_rate=0.1),
  )
  options = dict(num_rounds=4, evaluate=_make_evaluation())
  whole = list(_train(process, **options))
  made = checkpoints_lib.Checkpoints(tmp_path)
  options.update(checkpoints=made, checkpoint_every=2)

  rounds = _train(process, **options)
  # Asking for round 3 saves round 2; round 3 is lost.
  for _ in range(3):
    next(rounds)
  rounds.close()
  assert made.rounds() == [2]
  recorder = _Recorder()
  third, fourth = _train(process, release_managers=[recorder], **options)
  assert [key for _, key in recorder.released] == [3, 4]
  assert recorder.released[1][0] is fourth
  _assert_same_record(third, whole[2])
  _assert_same_record(fourth, whole[3])
  assert made.rounds() == [2, 4]
  assert not list(_train(process, **options))


def test_goes_on_from_the_checkpoint_before_a_torn_one(process, tmp_path):
  warnings = []
  settings = dict(
      num_rounds=4,
      checkpoints=checkpoints_lib.Checkpoints(tmp_path, warn=warnings.append),
      checkpoint_every=1,
  )
  whole = list(_train(process, **settings))
  assert settings['checkpoints'].rounds() == [2, 3, 4]
  (tmp_path / 'round_4').write_bytes(b'torn')
  (record,) = _train(process, **settings)
  _assert_same_record(record, whole[3])
  (warning,) = warnings
  assert 'checkpoint of round 4 cannot be read' in warning
  third, fourth = _train(process, last_checkpoint=2, **settings)
  _assert_same_record(third, whole[2])
  _assert_same_record(fourth, whole[3])


def test_round_that_cannot_be_released_is_not_in_a_checkpoint(
    process, tmp_path
):
  made = checkpoints_lib.Checkpoints(tmp_path)
  recorder = _Recorder(fails_in=2)
  with pytest.raises(OSError, match='full'):
    list(
        _train(
            process,
            checkpoints=made,
            checkpoint_every=1,
            release_managers=[recorder],
        )
    )
  assert made.rounds() == [1]
  assert [key for _, key in recorder.released] == [1]


def test_works_where_an_event_loop_runs(process):
  recorder = _Recorder()

  async def train():
    return list(_train(process, num_rounds=1, release_managers=[recorder]))

  (record,) = asyncio.run(train())
  assert recorder.released == [(record, 1)]


def test_reports_a_model_that_is_not_finite(process):
  initial = process.initialize()
  broken = process.set_model_weights(
      initial,
      tf.nest.map_structure(
          lambda w: np.full_like(w, np.nan), initial.global_model_weights
      ),
  )
  with mock.patch.object(
      tff.learning.templates.LearningProcess, 'initialize', lambda _: broken
  ):
    records = list(_train(process, num_rounds=2, evaluate=_make_evaluation()))
  assert [r.model_is_finite for r in records] == [False, False]
  assert [r.evaluation['accuracy'] for r in records] == [0.0, 0.0]


@pytest.mark.parametrize(
    'evaluation_loss, holdout_loss, expected',
    [
        (0.5, 0.5, True),
        (np.nan, 0.5, False),
        (np.inf, 0.5, False),
        (None, np.float32(np.nan), False),
        (None, None, True),
    ],
)
def test_model_with_a_loss_that_is_not_finite_is_not(
    evaluation_loss, holdout_loss, expected
):
  weights = tff.learning.models.ModelWeights([np.ones(2)], [])
  record = training.RoundRecord(
      round_num=1,
      state=mock.Mock(global_model_weights=weights),
      seconds=0.1,
      # Attackers take part in the loss of the clients.
      metrics={
          'client_work': {'train': {'loss': np.nan}},
          'aggregator': (
              ()
              if holdout_loss is None
              else {'holdout_loss_after': holdout_loss, 'num_non_finite': 1}
          ),
      },
      is_byzantine=(True, False),
      evaluation=evaluation_loss and {'accuracy': 1, 'loss': evaluation_loss},
  )
  assert record.model_is_finite is expected


def test_the_mirror_starts_as_the_model_does(process):
  with mock.patch.object(
      model_mirror, 'synchronize_model', side_effect=lambda state: state
  ) as synchronize:
    list(_train(process, num_rounds=2))
  synchronize.assert_called_once()


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
        (dict(num_rounds=0), ValueError, 'num_rounds must be >= 1; found 0'),
        (dict(num_rounds=2.0), TypeError, 'num_rounds must be an int'),
        (dict(evaluate_every=0), ValueError, 'evaluate_every must be >= 1'),
        (dict(checkpoint_every=0), ValueError, 'checkpoint_every must be >= 1'),
        (dict(checkpoints='a'), TypeError, 'checkpoints must .* found str'),
        (dict(release_managers=[3]), TypeError, '`release`; found int'),
        (dict(evaluate=3), TypeError, 'evaluate must .* found int'),
        (dict(process=None), TypeError, 'LearningProcess; found NoneType'),
    ],
)
def test_rejects_other_arguments_at_once(process, options, kind, message):
  with pytest.raises(kind, match=message):
    _train(**{'process': process, **options})
