"""Tests for registry."""

import importlib
import inspect
import subprocess
import sys

import pytest

import tasks
from tasks import registry


def test_options_are_checked_without_heavy_imports():
  program = """
import sys
import tasks
from tasks import registry
registry.check_options('mnist5k', num_clients=30, alpha=1)
try:
  registry.check_options('mnist5k', num_clients=0)
except ValueError:
  print(sorted({'numpy', 'tensorflow'} & set(sys.modules)), list(tasks.TASKS))
"""
  result = subprocess.run(
      [sys.executable, '-c', program],
      check=True,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.stdout == f'[] {list(tasks.TASKS)}\n'


@pytest.mark.parametrize('name', registry.TASKS)
def test_defaults_are_those_of_the_module(name):
  entry = registry.TASKS[name]
  load = importlib.import_module(entry.module).load
  parameters = inspect.signature(load).parameters.values()
  assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
  assert {p.name: p.default for p in parameters} == dict(entry.defaults)


@pytest.mark.parametrize('name', registry.TASKS)
def test_every_option_is_described_and_its_default_is_allowed(name):
  defaults = registry.TASKS[name].defaults
  assert set(defaults) <= set(registry.OPTIONS)
  registry.check_options(name, **defaults)


def test_unknown_task_names_the_known_ones():
  with pytest.raises(ValueError, match="unknown task 'mnist'.*mnist5k"):
    tasks.load_task('mnist')


def test_unknown_option_names_the_known_ones():
  with pytest.raises(ValueError, match="'mnist5k'.*'alhpa'.*alpha.*data_dir"):
    tasks.load_task('mnist5k', alhpa=0.5)


@pytest.mark.parametrize(
    'options',
    [
        {'num_clients': 10.0},
        {'num_clients': True},
        {'num_clients': None},
        {'alpha': '0.5'},
        {'model': 3},
        {'data_dir': 3},
    ],
)
def test_option_of_wrong_kind_raises(options):
  (name,) = options
  with pytest.raises(TypeError, match=f'`{name}` must be of type.*found'):
    tasks.load_task('mnist5k', **options)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'num_clients': 0}, '`num_clients` must be at least 1, found 0'),
        ({'seed': -1}, '`seed` must be at least 0, found -1'),
        ({'alpha': 1e-9}, '`alpha` must be at least 0.0001, found 1e-09'),
        ({'alpha': 1e9}, r'`alpha` must be at most 1e\+06, found'),
        ({'alpha': float('nan')}, '`alpha` must be finite, found nan'),
        ({'client_learning_rate': 0.0}, 'must be above 0, found 0.0'),
        ({'client_learning_rate': float('inf')}, 'must be finite, found inf'),
        (
            {'model': 'rnn'},
            'must be one of mlp, cnn, cnn_dropout, resnet20, resnet18, found'
            " 'rnn'",
        ),
        (
            {'model': 'resnet20'},
            "`model` of task 'mnist5k' must be one of mlp, cnn, found"
            " 'resnet20'",
        ),
        ({'partition': ''}, "must be one of dirichlet, iid, shards, found ''"),
        ({'cohort_size': 51}, '`cohort_size` is 51 .* only 50 clients'),
        ({'num_clients': 9}, '`cohort_size` is 20 .* only 9 clients'),
    ],
)
def test_option_of_wrong_value_raises(options, message):
  with pytest.raises(ValueError, match=message) as error:
    tasks.load_task('mnist5k', **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', registry.TASKS)
def test_models_are_those_of_the_module(name):
  entry = registry.TASKS[name]
  assert bool(entry.models) == ('model' in entry.defaults)
  for model in {*registry.OPTIONS['model'].choices} - {*entry.models}:
    if entry.models:
      load = importlib.import_module(entry.module).load
      with pytest.raises(ValueError, match=f"found '{model}'"):
        load(model=model)
  assert set(entry.models) <= set(registry.OPTIONS['model'].choices)


def test_a_natural_partition_has_all_clients_by_default():
  registry.check_options('femnist', cohort_size=1000)
  with pytest.raises(ValueError, match='there are only 10 clients'):
    registry.check_options('femnist', num_clients=10)
  with pytest.raises(ValueError, match='must be one of 10, 62, found 26'):
    registry.check_options('femnist', classes=26)


def test_alpha_limits_are_those_of_the_partition():
  partition = importlib.import_module('tasks.partition')
  alpha = registry.OPTIONS['alpha']
  assert (alpha.minimum, alpha.maximum) == (
      partition.MIN_ALPHA,
      partition.MAX_ALPHA,
  )
