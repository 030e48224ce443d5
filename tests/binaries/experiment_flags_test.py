"""Tests for experiment_flags, as the programs have them."""

import re

from absl.testing import flagsaver
import pytest

from binaries import application
from binaries import compare
from binaries import experiment
from binaries import experiment_flags
from binaries import train
from tests.binaries import programs


@pytest.mark.parametrize('program', ['train', 'compare'])
@pytest.mark.parametrize('argument, code', [('--help', 0), ('--rounds=0', 1)])
def test_help_and_flag_errors_do_without_tensorflow(program, argument, code):
  *_, last = programs.run_source(f"""
import sys
from binaries import application, {program}
sys.argv = ['{program}.py', '{argument}']
try:
  application.run({program}.main)
except SystemExit as end:
  heavy = ('tensorflow', 'tensorflow_federated', 'matplotlib', 'pandas')
  print(end.code, [name for name in heavy if name in sys.modules])
""").splitlines()
  assert last == f'{code} []'


@pytest.mark.parametrize('program', ['train', 'compare'])
def test_help_lists_the_flags_of_the_program(program):
  result = programs.run(f'binaries.{program}', '--help')
  assert (result.returncode, result.stderr) == (0, '')
  axes = (f'{n}s' if program == 'compare' else n for n in experiment.AXES)
  for flag in ('task', 'model', 'rounds', 'context', 'output_dir', *axes):
    assert f'\n  --{flag}: ' in result.stdout
  text = ' '.join(result.stdout.split())
  assert f'python -m binaries.{program} ' in text
  assert re.search(r'Default: [^.]*\b30 \([^)]*\bmnist5k\b', text)
  assert re.search(r'The learning rate [^(]*\(.*\bcifar10 with cnn\b', text)


def _read_error(program, argument) -> str:
  """What a program says to a flag."""
  with flagsaver.flagsaver(), pytest.raises(application.UserError) as error:
    application.parse_flags([program.__name__, argument])
    program.main()
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('program', [train, compare])
@pytest.mark.parametrize(
    'argument, message',
    [
        ('--rounds=ten', 'flag --rounds=ten: '),
        ('--rounds=0', 'option `rounds` must be >= 1; found 0'),
        ('--cohort_size=99', 'cohort_size'),
        ('--num_clients=1000000000000', 'must fit into 32 bits; found 100000'),
        ('--server_learning_rate=1e39', 'must fit into 32 bits; found 1e+39'),
        ('--forged_examples=1e-50', 'must fit into 32 bits; found 1e-50'),
        ('--server_optimizer=lbfgs', 'sgd|adam|yogi'),
        ('--task=no_such_task', 'mnist5k'),
        ('--round=3', 'Did you mean: rounds'),
        ('--holdout_size=4000', '`holdout_size` must be >= 1 and <= 3999;'),
        ('--batch_size=2000000000', '`batch_size` must be >= 1 and <= 4000;'),
        ('--client_epochs=2000000000', 'must be >= 1 and <= 10000; found 20'),
        ('--num_clients=391', '3900 examples cannot give 391 clients at least'),
        ('--output_dir=/proc/self/x', 'cannot write to the output folder'),
    ],
)
def test_error_of_a_common_flag(program, argument, message):
  assert message in _read_error(program, argument)


@pytest.mark.parametrize(
    'program, argument, message',
    [
        (train, '--aggregator=nope', "unknown aggregator 'nope'; known: mean"),
        (train, f'--seed={10**26}', 'option `seed` must be >= 0 and <= 922337'),
        (compare, f'--seeds=0,{10**26}', 'option `seed` must be >= 0 and'),
        (train, '--attack=gaussian_noise:stddev=1e39', 'must fit into 32 bits'),
        (
            compare,
            '--aggregators=fedaot:sketch_dimension=100000000000',
            'must fit into 32 bits',
        ),
        (train, '--attack=nope', "unknown attack 'nope'; known: none, "),
        (train, '--byzantine_fraction=1', 'must be less than 1, found 1.0'),
        (compare, '--aggregators=mean,nope', "unknown aggregator 'nope'; "),
        (compare, '--attacks=', 'attacks is empty'),
        (compare, '--aggregators=mean,krum,mean', "aggregators has 'mean' twi"),
        (compare, '--byzantine_fractions=0.2,x', 'could not convert string to'),
        (compare, '--byzantine_fractions=0.2,1', 'must be less than 1, found'),
        (compare, '--seeds=0,1.5', 'flag --seeds=0,1.5: invalid literal for i'),
        (compare, '--seeds=0,0', 'seeds has 0 twice'),
        (compare, '--seeds=', 'seeds is empty'),
        (compare, '--num_workers=0', 'flag --num_workers=0: '),
    ],
)
def test_error_of_a_flag_of_one_program(program, argument, message):
  assert message in _read_error(program, argument)


def test_flags_make_an_experiment():
  with flagsaver.flagsaver():
    application.parse_flags(['train', '--rounds=3', '--server_optimizer=yogi'])
    made = experiment_flags.make_experiment(seed=4, attack='sign_flip')
  assert made == experiment.Experiment(
      task_options={'rounds': 3},
      server_optimizer='yogi',
      seed=4,
      attack='sign_flip',
  )
