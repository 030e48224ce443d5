"""Tests for runner."""

import gc
import json
import types
from unittest import mock

from absl.testing import flagsaver
import numpy as np
import pytest
from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff

from binaries import application
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import runner as runner_lib
from binaries import single_run
from binaries import train
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import registry as attacks
from fedaot_tff.learning import fed_avg
from fedaot_tff.simulation import checkpoints
from tasks import image_models
from tasks import registry as tasks
from tests.binaries import programs

_TASK_OPTIONS = {
    'num_clients': 8,
    'cohort_size': 5,
    'rounds': 2,
    'batch_size': 50,
    'client_epochs': 1,
}
_MEASURES = ('accuracy', 'loss')


def _make_experiment(**settings):
  task_options = {**_TASK_OPTIONS, **settings.pop('task_options', {})}
  return experiment_lib.Experiment(
      **{'aggregator': 'mean', **settings}, task_options=task_options
  )


def _run(runner, experiment):
  """What came of each round, but for the times."""
  return [
      (r.round_num, r.num_attackers, *map(r.evaluation.get, _MEASURES))
      for r in runner.run(experiment)
  ]


@pytest.fixture(name='runner', scope='module')
def _runner():
  context = tff.framework.get_context_stack().current
  yield runner_lib.Runner()
  tff.framework.set_default_context(context)


def test_data_attack_shares_the_process_and_update_attack_does_not(runner):
  with mock.patch.object(
      fed_avg, 'build_attacked_fed_avg', wraps=fed_avg.build_attacked_fed_avg
  ) as build:
    clean = _run(runner, _make_experiment())
    flipped = _run(runner, _make_experiment(attack='label_flip'))
    assert build.call_count == 1
    reversed_ = _run(runner, _make_experiment(attack='sign_flip'))
    assert build.call_count == 2
  assert [row[:2] for row in clean] == [(1, 0), (2, 0)]
  assert [row[:2] for row in flipped] == [(1, 2), (2, 2)]
  assert clean[-1][3] < min(flipped[-1][3], reversed_[-1][3])
  # Ten classes: a guess is right once in ten times.
  assert clean[-1][2] > 0.2
  # What ran in between leaves no trace.
  assert _run(runner, _make_experiment()) == clean


def test_contexts_agree_but_for_rounding(runner):
  note = mock.Mock()
  found, *_ = runner.run(_make_experiment(context='native'), note=note)
  (told,), _ = note.call_args
  assert told.startswith('context: native, on the CPU in a worker process')
  assert 'can read and write files as you' in told
  assert hasattr(
      runner_lib.tff.framework.get_context_stack().current, 'worker_pid'
  )
  expected = _run(runner, _make_experiment())[0]
  again, *_ = runner_lib.Runner().run(_make_experiment(), note=note)
  (told,), _ = note.call_args
  assert told.startswith('context: in_process, clients on ')
  assert again.evaluation['loss'] == expected[3]
  assert found.evaluation['loss'] == pytest.approx(expected[3], rel=1e-4)


def test_program_trains(monkeypatch, runner, tmp_path, capsys):
  monkeypatch.setattr(single_run, 'shared_runner', lambda: runner)
  arguments = [f'--{name}={value}' for name, value in _TASK_OPTIONS.items()]
  with flagsaver.flagsaver():
    application.parse_flags(
        ['train', *arguments, '--aggregator=mean', f'--output_dir={tmp_path}']
    )
    assert train.main() == 0
  assert capsys.readouterr().out.startswith('Test accuracy 0.')
  rows = csv_log.read_rows(tmp_path / 'metrics.csv')
  assert [(r['round'], r['num_attackers']) for r in rows] == [
      ('1', '0'),
      ('2', '0'),
  ]
  *_, accuracy, _ = _run(runner, _make_experiment())[-1]
  assert float(rows[-1]['test_accuracy']) == accuracy
  record = json.loads((tmp_path / 'run.json').read_text())
  assert record['settings'] == _make_experiment().to_dict()


def test_error_before_the_first_run_is_one_line():
  result = programs.finish(
      programs.start(
          [
              '-c',
              """
import sys
from binaries import application
from binaries import runner

def main():
  runner.Runner()
  raise application.UserError('no context')

sys.argv = ['program']
application.run(main)
""",
          ],
          {'TF_CPP_MIN_LOG_LEVEL': '3'},
      )
  )
  assert (result.returncode, result.stderr) == (1, 'program: no context\n')


def test_what_was_compiled_for_others_is_freed(runner):
  def num_functions(**settings):
    _run(runner, _make_experiment(**settings))
    gc.collect()
    return len(eager_context.context().list_function_names())

  krum = dict(aggregator='krum', attack='sign_flip')
  first = num_functions(**krum)
  assert num_functions(**{**krum, 'attack': 'ipm'}) == first
  num_functions()
  assert num_functions(**krum) == first


def _processes(*experiments):
  """The learning processes that one runner runs experiments with."""
  runner = runner_lib.Runner()
  with (
      mock.patch.object(
          fed_avg,
          'build_attacked_fed_avg',
          side_effect=lambda *a, **b: object(),
      ),
      mock.patch.object(runner_lib.training, 'train_rounds') as train_rounds,
  ):
    for experiment in experiments:
      runner.run(experiment)
  return [call.args[0] for call in train_rounds.call_args_list]


@pytest.mark.parametrize(
    'settings, shared',
    [
        ({'attack': 'label_flip'}, True),
        ({'evaluate_every': 2}, True),
        ({'byzantine_fraction': 0.2}, False),
        ({'aggregator': 'oracle'}, False),
        ({'server_optimizer': 'adam'}, False),
        ({'server_learning_rate': 0.5}, False),
        ({'forged_examples': 5.0}, False),
        ({'seed': 3}, False),
        ({'task_options': {'model': 'cnn'}}, False),
    ],
)
def test_processes_are_shared_where_they_are_equal(settings, shared):
  first, second = _processes(_make_experiment(), _make_experiment(**settings))
  assert (first is second) == shared


def test_the_holdout_is_trained_on_like_a_client():
  experiment = _make_experiment(
      aggregator='fedaot', task_options={'client_epochs': 3}
  )
  with (
      mock.patch.object(
          fed_avg, 'build_attacked_fed_avg', return_value=None
      ) as build,
      mock.patch.object(runner_lib.training, 'train_rounds'),
  ):
    runner_lib.Runner().run(experiment)
  model, client_optimizer, _ = build.call_args.args
  holdout = build.call_args.kwargs['model_aggregator'].holdout
  assert holdout.model is model
  assert holdout.num_examples == tasks.TASKS['mnist5k'].defaults['holdout_size']
  assert holdout._client_optimizer is client_optimizer
  assert holdout._batch_size == 50
  # 3,900 examples on eight clients, three times, in batches of 50.
  assert 24 <= holdout._num_steps <= 42


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


class _Cornered(backdoor.Backdoor):
  """Whose trigger is in the very corner."""

  def trigger(self, shape):
    return np.roll(super().trigger(shape), (2, 2), axis=(0, 1))


@pytest.mark.parametrize(
    'size, found', [(2, '0 of the 4'), (3, '1 of the 9'), (5, '9 of the 25')]
)
def test_a_trigger_that_the_model_hardly_sees_is_told(size, found):
  task = types.SimpleNamespace(
      model=image_models.cnn([28, 28, 1], 2),
      test={'x': np.zeros([2, 28, 28, 1], np.float32)},
  )
  attack = types.SimpleNamespace(
      name='backdoor',
      data_poisoning=_Cornered(size=size),
      training_poisoning=None,
  )
  message = f"the model sees {found} values of the trigger of attack 'backdoor'"
  note = mock.Mock()
  if size == 2:
    with pytest.raises(ValueError, match=f'^{message}: give .*[.]$'):
      runner_lib._check_trigger(attack, task, backdoor.seen_features, note)
    return
  runner_lib._check_trigger(attack, task, backdoor.seen_features, note)
  note.assert_called_once_with(
      f'warning: {message}, and may not learn to obey it.'
  )
  note.reset_mock()
  for seen in ('backdoor', 'label_flip', 'edge_case', 'sign_flip', 'none'):
    runner_lib._check_trigger(
        attacks.get_attack(seen), task, backdoor.seen_features, note
    )
  note.assert_not_called()


@pytest.mark.parametrize(
    'attack',
    [
        'noise_backdoor',
        'neurotoxin',
        'optimized_trigger',
        'alternating_minimization',
    ],
)
def test_a_run_checks_its_trigger(runner, attack):
  with mock.patch.object(
      backdoor, 'seen_features', return_value=np.zeros([28, 28, 1], np.bool_)
  ):
    with pytest.raises(ValueError, match='0 of the 9 values of the trigger'):
      # What is seen is kept with the task, which is another one.
      runner.run(_make_experiment(attack=attack, seed=9))


def test_run_goes_on_after_a_checkpoint(runner, tmp_path):
  experiment = _make_experiment(attack='backdoor')
  settings = dict(
      checkpoints=checkpoints.Checkpoints(tmp_path / 'checkpoints'),
      checkpoint_every=1,
      tensorboard_folder=tmp_path / 'tensorboard',
  )
  first, second = runner.run(experiment, **settings)
  assert first.evaluation['attack_success_rate'] >= 0
  (again,) = runner.run(experiment, last_checkpoint=1, **settings)
  assert again.round_num == 2
  assert again.evaluation == second.evaluation != first.evaluation
  assert not list(runner.run(experiment, **settings))
  suffixes = {p.suffix for p in (tmp_path / 'tensorboard').iterdir()}
  assert suffixes == {'.images', '.v2'}
