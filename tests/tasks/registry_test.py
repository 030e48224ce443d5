"""Tests for registry."""

import subprocess
import sys

import pytest

import tasks
from tasks import loading
from tasks import registry


def test_options_are_checked_without_tensorflow():
  program = """
import sys
import tasks
from tasks import registry
registry.check_options('mnist5k', num_clients=30, alpha=1)
try:
  registry.check_options('mnist5k', num_clients=0)
except ValueError:
  print([m for m in sys.modules if 'tensorflow' in m or 'sklearn' in m])
"""
  result = subprocess.run(
      [sys.executable, '-c', program],
      check=True,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.stdout == '[]\n'


@pytest.mark.parametrize('name', registry.TASKS)
def test_every_option_is_described_and_its_default_is_allowed(name):
  spec = registry.TASKS[name]
  assert set(spec.defaults) <= set(registry.OPTIONS)
  registry.check_options(name, **spec.defaults)
  # Without the option there is one model.
  assert 'model' in spec.defaults or len(spec.models) == 1


def test_every_model_is_offered():
  assert set(registry.OPTIONS['model'].choices) == set(loading.MODEL_BUILDERS)


@pytest.mark.parametrize(
    'options, kind, message',
    [
        ({'num_clients': 10.0}, TypeError, 'num_clients` must be an int'),
        ({'num_clients': None}, TypeError, 'num_clients` must be an int'),
        ({'alpha': '0.5'}, TypeError, "`alpha` must be a number; found '0.5'"),
        ({'model': 3}, TypeError, '`model` must be a string; found 3'),
        ({'data_dir': 3}, TypeError, '`data_dir` must be a string; found 3'),
        ({'num_clients': 0}, ValueError, 'num_clients` must be >= 1; found 0'),
        ({'seed': -1}, ValueError, '`seed` must be >= 0 and <= .*; found -1'),
        ({'seed': 10**26}, ValueError, '`seed` must be .*; found 1000000'),
        ({'num_clients': 10**12}, ValueError, 'num_clients` must fit into 32'),
        ({'rounds': 2**31}, ValueError, '`rounds` must fit into 32 bits'),
        ({'client_learning_rate': 1e39}, ValueError, 'fit .* found 1e.39'),
        ({'client_learning_rate': 1e-39}, ValueError, 'fit .* found 1e-39'),
        ({'alpha': 1e-9}, ValueError, r'>= 0.0001 and <= 1e\+06; found 1e-09'),
        ({'alpha': float('nan')}, ValueError, '`alpha` must be .*found nan'),
        ({'client_learning_rate': 0.0}, ValueError, 'must be > 0; found 0.0'),
        ({'model': 'rnn'}, ValueError, "be one of .*cnn, .*; found 'rnn'"),
        (
            {'model': 'resnet20'},
            ValueError,
            "`model` of task 'mnist5k' must be one of mlp, cnn; found 'resnet",
        ),
        ({'partition': ''}, ValueError, "dirichlet, iid, shards; found ''"),
        ({'cohort_size': 51}, ValueError, '`cohort_size` is 51 .* 50 clients'),
        ({'num_clients': 9}, ValueError, '`cohort_size` is 20 .* 9 clients'),
        ({'name': 'mnist'}, ValueError, "unknown task 'mnist'.*mnist5k"),
        ({'alhpa': 1}, ValueError, "'mnist5k'.*'alhpa'.*alpha.*data_dir"),
    ],
)
def test_wrong_option_raises(options, kind, message):
  with pytest.raises(kind, match=message) as error:
    tasks.load_task(**{'name': 'mnist5k', **options})
  assert '\n' not in str(error.value)


def test_a_natural_partition_has_all_clients_by_default():
  registry.check_options('femnist', cohort_size=1000)
  with pytest.raises(ValueError, match='there are only 10 clients'):
    registry.check_options('femnist', num_clients=10)
  with pytest.raises(ValueError, match='must be one of 10, 62; found 26'):
    registry.check_options('femnist', classes=26)
