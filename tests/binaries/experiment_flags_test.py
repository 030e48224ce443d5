"""Tests for experiment_flags, as the programs have them."""

import re
import subprocess
import sys

from absl.testing import flagsaver
import pytest

from binaries import application
from binaries import compare
from binaries import experiment
from binaries import experiment_flags
from binaries import train
from tests.binaries import programs

_PROGRAMS = ('train', 'compare')


@pytest.mark.parametrize('program', _PROGRAMS)
@pytest.mark.parametrize('argument', ['--help', '--rounds=0', '--attac=none'])
def test_help_and_flag_errors_do_without_tensorflow(program, argument):
  source = f"""
import sys
from binaries import application, {program}
sys.argv = ['{program}.py', '{argument}']
try:
  application.run({program}.main)
finally:
  heavy = ('tensorflow', 'tensorflow_federated', 'matplotlib')
  print('imported:', [name for name in heavy if name in sys.modules])
"""
  result = subprocess.run(
      [sys.executable, '-c', source],
      cwd=programs.ROOT,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.stdout.splitlines()[-1] == 'imported: []'
  assert result.returncode == (0 if argument == '--help' else 1)


@pytest.mark.parametrize(
    'program, flags',
    [
        ('train', ('aggregator', 'attack', 'byzantine_fraction', 'seed')),
        ('compare', ('aggregators', 'attacks', 'byzantine_fractions', 'seeds')),
    ],
)
def test_help_lists_the_flags_of_the_program(program, flags):
  result = programs.run(f'binaries.{program}', '--help')
  assert result.returncode == 0
  common = (
      'task', 'model', 'num_clients', 'partition', 'alpha', 'holdout_size',
      'batch_size', 'client_epochs', 'client_learning_rate', 'cohort_size',
      'server_learning_rate', 'server_optimizer', 'rounds', 'evaluate_every',
      'byzantine_sampling', 'context', 'output_dir',
  )
  for flag in (*common, *flags):
    assert f'\n  --{flag}: ' in result.stdout
  assert '\n  --[no]quiet: ' in result.stdout
  assert f'python -m binaries.{program} ' in result.stdout
  text = ' '.join(result.stdout.split())
  assert re.search(r'Default: [^.]*\b30 \([^)]*\bmnist5k\b', text)


@pytest.mark.parametrize('program', _PROGRAMS)
def test_error_is_one_line(program):
  result = programs.run_fake(program, '--rounds=0')
  assert result.returncode == 1
  assert result.stdout == ''
  assert result.stderr == (
      f'{program}: option `rounds` must be >= 1; found 0.\n'
  )


def _read_error(program, argument, capsys) -> str:
  """What a program says to a flag."""
  with flagsaver.flagsaver():
    try:
      application._parse_flags([program.__name__, argument])
      program.main()
    except application.UserError as error:
      return str(error)
    except SystemExit:
      return capsys.readouterr().err
  raise AssertionError(f'{argument} is accepted.')


@pytest.mark.parametrize('program', [train, compare])
@pytest.mark.parametrize(
    'argument, message',
    [
        ('--rounds=ten', 'flag --rounds=ten: '),
        ('--cohort_size=99', 'cohort_size'),
        ('--alpha=0', 'alpha'),
        ('--server_learning_rate=-1', 'server_learning_rate'),
        ('--server_learning_rate=inf', 'found inf'),
        ('--server_optimizer=lbfgs', 'sgd|adam|yogi'),
        ('--byzantine_sampling=some', 'exact|random'),
        ('--task=no_such_task', 'mnist5k'),
        ('--evaluate_every=0', 'evaluate_every'),
        ('--context=gpu', 'native|in_process'),
        ('--round=3', 'Did you mean: rounds'),
        ('--output_dir=/proc/self/x', 'cannot write to the output folder'),
    ],
)
def test_error_of_a_common_flag(program, argument, message, capsys):
  assert message in _read_error(program, argument, capsys)


@pytest.mark.parametrize(
    'argument, message',
    [
        ('--aggregator=nope', "unknown aggregator 'nope'; known: mean, "),
        ('--aggregator=krum:f=3', "'f'"),
        ('--attack=nope', "unknown attack 'nope'; known: none, "),
        ('--byzantine_fraction=1', 'must be less than 1, found 1.0'),
        ('--seed=-1', 'option `seed` must be >= 0; found -1.'),
    ],
)
def test_error_of_a_flag_of_train(argument, message, capsys):
  assert message in _read_error(train, argument, capsys)


@pytest.mark.parametrize(
    'argument, message',
    [
        ('--aggregators=mean,nope', "unknown aggregator 'nope'; known: mean, "),
        ('--attacks=none,nope', "unknown attack 'nope'; known: none, "),
        ('--attacks=', 'flag --attacks is empty'),
        ('--aggregators=mean,krum,mean', "flag --aggregators has 'mean' twice"),
        ('--byzantine_fractions=0.2,x', 'could not convert string to float'),
        ('--byzantine_fractions=0.2,1', 'must be less than 1, found 1.0'),
        ('--seeds=0,1.5', 'flag --seeds=0,1.5: invalid literal for int()'),
        ('--seeds=0,0', 'flag --seeds has 0 twice'),
        ('--seeds=', 'flag --seeds is empty'),
    ],
)
def test_error_of_a_flag_of_compare(argument, message, capsys):
  assert message in _read_error(compare, argument, capsys)


def test_flags_make_an_experiment():
  with flagsaver.flagsaver():
    application._parse_flags(['train', '--rounds=3', '--server_optimizer=yogi'])
    made = experiment_flags.make_experiment(seed=4, attack='sign_flip')
  assert made == experiment.Experiment(
      task_options={'rounds': 3},
      server_optimizer='yogi',
      seed=4,
      attack='sign_flip',
  )
