"""Tests for runner."""

import types
from unittest import mock

import numpy as np
import pytest

from binaries import experiment as experiment_lib
from binaries import runner as runner_lib
from fedaot_tff.attacks import registry as attacks
from fedaot_tff.learning import fed_avg
from tasks import registry as tasks

_TASK_OPTIONS = {
    'num_clients': 8,
    'cohort_size': 5,
    'rounds': 2,
    'batch_size': 50,
    'client_epochs': 1,
}


def _make_experiment(**settings):
  task_options = {**_TASK_OPTIONS, **settings.pop('task_options', {})}
  return experiment_lib.Experiment(
      **{'aggregator': 'mean', **settings}, task_options=task_options
  )


def _run(runner, experiment):
  """What came of each round, but for the times."""
  return [
      (r.round_num, r.num_attackers, r.evaluation['accuracy'],
       r.evaluation['loss'])
      for r in runner.run(experiment)
  ]


@pytest.fixture(name='runner', scope='module')
def _runner():
  return runner_lib.Runner()


def test_data_attack_shares_the_process_and_update_attack_does_not(runner):
  clean = _run(runner, _make_experiment())
  flipped = _run(runner, _make_experiment(attack='label_flip'))
  assert len(runner._processes) == 1
  reversed_ = _run(runner, _make_experiment(attack='sign_flip'))
  assert len(runner._processes) == 2
  assert [row[:2] for row in clean] == [(1, 0), (2, 0)]
  assert [row[:2] for row in flipped] == [(1, 2), (2, 2)]
  assert clean[-1][3] < min(flipped[-1][3], reversed_[-1][3])
  # Ten classes: a guess is right once in ten times.
  assert clean[-1][2] > 0.2
  # What ran in between leaves no trace.
  assert _run(runner, _make_experiment()) == clean


def test_contexts_agree_but_for_rounding(runner):
  expected = _run(runner, _make_experiment(context='native'))[0]
  assert hasattr(
      runner_lib.tff.framework.get_context_stack().current, 'worker_pid'
  )
  notes = []
  (found, *_) = runner.run(_make_experiment(), note=notes.append)
  (note,) = notes
  assert note.startswith('context: in_process, clients on ')
  assert found.evaluation['loss'] == pytest.approx(expected[3], rel=1e-4)


def _processes(runner, *experiments):
  """The learning processes that experiments are run with."""
  processes = []

  def train_rounds(process, **unused_arguments):
    processes.append(process)
    return iter(())

  with mock.patch.object(
      fed_avg, 'build_attacked_fed_avg', side_effect=lambda *a, **b: object()
  ), mock.patch.object(runner_lib.training, 'train_rounds', train_rounds):
    for experiment in experiments:
      runner.run(experiment)
  return processes


@pytest.mark.parametrize(
    'settings, shared',
    [
        ({'attack': 'label_flip'}, True),
        ({'evaluate_every': 2}, True),
        ({'byzantine_sampling': 'random'}, True),
        ({'attack': 'sign_flip'}, False),
        ({'byzantine_fraction': 0.2}, False),
        ({'aggregator': 'oracle'}, False),
        ({'server_optimizer': 'adam'}, False),
        ({'server_learning_rate': 0.5}, False),
        ({'seed': 3}, False),
        ({'task_options': {'model': 'cnn'}}, False),
        ({'task_options': {'client_learning_rate': 0.01}}, False),
    ],
)
def test_processes_are_shared_where_they_are_equal(settings, shared):
  first, second = _processes(
      runner_lib.Runner(), _make_experiment(), _make_experiment(**settings)
  )
  assert (first is second) == shared


def test_the_holdout_is_trained_on_like_a_client():
  experiment = _make_experiment(
      aggregator='fedaot', task_options={'client_epochs': 3}
  )
  with mock.patch.object(
      fed_avg, 'build_attacked_fed_avg', return_value=None
  ) as build, mock.patch.object(runner_lib.training, 'train_rounds'):
    runner_lib.Runner().run(experiment)
  model, client_optimizer, _ = build.call_args.args
  holdout = build.call_args.kwargs['model_aggregator'].holdout
  assert holdout.model is model
  assert holdout.num_examples == tasks.TASKS['mnist5k'].defaults['holdout_size']
  assert holdout._client_optimizer is client_optimizer
  assert holdout._batch_size == 50
  # 3,900 examples on eight clients, three times, in batches of 50.
  assert 24 <= holdout._num_steps <= 42


@pytest.mark.parametrize(
    ('context', 'has_gpu', 'expected'),
    [
        ('in_process', True, ['GPU 0 sat on its hands']),
        ('in_process', False, []),
        ('native', True, []),
    ],
)
def test_use_of_gpus_is_remarked_at_the_end(context, has_gpu, expected):
  remarks = []
  monitor = mock.MagicMock()
  monitor.return_value.describe.return_value = 'GPU 0 sat on its hands'
  with mock.patch.object(
      runner_lib, '_has_gpu', return_value=has_gpu
  ), mock.patch.object(
      runner_lib.Runner, '_enter_context'
  ), mock.patch.object(
      fed_avg, 'build_attacked_fed_avg'
  ), mock.patch.object(
      runner_lib.training, 'train_rounds', return_value=iter('abc')
  ), mock.patch.object(
      runner_lib.gpu_monitor, 'GpuMonitor', monitor
  ):
    rounds = runner_lib.Runner().run(
        _make_experiment(context=context), remark=remarks.append
    )
    assert next(rounds) == 'a'
    assert not remarks
    assert list(rounds) == ['b', 'c']
  assert remarks == expected
  assert monitor.return_value.__exit__.call_count == len(expected)


def test_missing_data_is_an_error(runner, tmp_path):
  experiment = _make_experiment(task_options={'data_dir': str(tmp_path)})
  with pytest.raises(FileNotFoundError):
    runner.run(experiment)


def test_example_images_show_what_the_attack_presents():
  task = types.SimpleNamespace(
      test={'x': np.zeros([20, 4, 4], np.float32), 'y': np.arange(20) % 2},
      num_classes=2,
  )

  def images(attack):
    return runner_lib._example_images(task, attacks.get_attack(attack))

  assert list(images('none')) == list(images('label_flip')) == ['clean']
  assert images('none')['clean'].shape == (8, 4, 4)
  with_trigger = images('backdoor:size=2')['attack']
  assert with_trigger.shape == (8, 4, 4)
  assert (with_trigger.sum(axis=(1, 2)) == 4).all()
  task.test['x'] = np.zeros([20, 16], np.float32)
  assert not images('backdoor')


def test_run_goes_on_after_a_checkpoint(runner, tmp_path):
  experiment = _make_experiment(attack='backdoor')
  settings = dict(
      checkpoint_folder=tmp_path / 'checkpoints',
      checkpoint_every=1,
      tensorboard_folder=tmp_path / 'tensorboard',
  )
  first, second = runner.run(experiment, **settings)
  (again,) = runner.run(experiment, last_checkpoint=1, **settings)
  assert again.round_num == 2
  assert again.evaluation == second.evaluation != first.evaluation
  assert not list(runner.run(experiment, **settings))
  suffixes = {p.suffix for p in (tmp_path / 'tensorboard').iterdir()}
  assert suffixes == {'.images', '.v2'}
