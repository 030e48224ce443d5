"""Tests for registry."""

import os
import subprocess
import sys

import pytest

import tasks
from tasks import fashion_mnist
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
  assert set(spec.model_defaults) <= set(spec.models)
  for model, differing in spec.model_defaults.items():
    found = registry.check_options(name, model=model)
    assert {**found, **differing, 'model': model} == found
    # Nothing is said twice.
    assert not set(differing.items()) & set(spec.defaults.items())


def test_defaults_of_the_model_are_before_those_of_the_task():
  spec = registry.TASKS['cifar10']
  rate = spec.model_defaults['cnn']['client_learning_rate']
  assert registry.check_options('cifar10', model='cnn') == {
      **spec.defaults,
      'model': 'cnn',
      'client_learning_rate': rate,
  }
  given = registry.check_options(
      'cifar10', model='cnn', client_learning_rate=0.7, rounds=3
  )
  assert (given['client_learning_rate'], given['rounds']) == (0.7, 3)
  default = registry.check_options('cifar10')
  assert default['client_learning_rate'] != rate


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


@pytest.mark.parametrize('name', ['mnist5k', 'digits', 'breast_cancer'])
def test_as_many_examples_as_are_said_to_be_there(name):
  spec = tasks.registry.TASKS[name]
  sets = spec.read(spec.defaults, iter([0]))
  assert sets.train.size + sets.holdout.size == spec.max_examples


_ONE = {'num_clients': 1, 'cohort_size': 1}
_SHARDS = {'partition': 'shards', 'shards_per_client': 3}


@pytest.mark.parametrize(
    'name, option, maximum, others',
    [
        ('mnist5k', 'num_clients', 390, {}),
        ('mnist5k', 'num_clients', 1300, _SHARDS),
        ('digits', 'num_clients', 130, {}),
        ('digits', 'num_clients', 1300, {'partition': 'iid'}),
        ('digits', 'batch_size', 1400, {}),
        ('breast_cancer', 'num_clients', 80, {}),
        ('breast_cancer', 'holdout_size', 449, {**_ONE, 'partition': 'iid'}),
        ('fashion_mnist', 'holdout_size', 9999, {}),
        ('fashion_mnist', 'num_clients', 500, {'max_examples': 5000}),
        ('pneumonia', 'holdout_size', 523, {}),
        ('cifar10', 'num_clients', 5000, {}),
        ('cifar100', 'num_clients', 500, {}),
        ('cifar100', 'cohort_size', 500, {}),
        ('femnist', 'cohort_size', 3400, {}),
    ],
)
def test_more_than_there_are_data_for_is_refused(name, option, maximum, others):
  registry.check_options(name, **{option: maximum}, **others)
  with pytest.raises(ValueError, match=rf'\b{maximum}\b') as error:
    registry.check_options(name, **{option: maximum + 1}, **others)
  assert '\n' not in str(error.value)


_FILES = {
    'mnist5k': ('mnist_5k.csv.gz', 'its MD5 checksum is'),
    'pneumonia': ('pneumoniamnist.npz', 'its MD5 checksum is'),
    'femnist': ('emnist_all.sqlite', 'file is not a database'),
    'cifar100': ('cifar100.sqlite', 'file is not a database'),
}


@pytest.mark.parametrize('name', _FILES)
def test_unsound_data_file_is_found_before_it_is_loaded(tmp_path, name):
  file, reason = _FILES[name]
  path = tmp_path / file
  path.write_text('no data')
  with pytest.raises(ValueError, match=f'{file}: {reason}'):
    registry.find_data(name, data_dir=str(tmp_path))
  path.unlink()
  # Nobody writes into it; to read it would take for ever.
  os.mkfifo(path)
  with pytest.raises(ValueError, match=f'{file}: it is no file'):
    registry.find_data(name, data_dir=str(tmp_path))


@pytest.mark.parametrize(
    'name', ['femnist', 'cifar10', 'cifar100', 'pneumonia']
)
def test_unobtainable_data_are_told_before_they_are_loaded(tmp_path, name):
  """Without TensorFlow, which takes seconds to load."""
  program = f"""
import sys, urllib.error, urllib.request
from tasks import registry
def urlopen(*_, **__):
  raise urllib.error.URLError('no network')
urllib.request.urlopen = urlopen
try:
  registry.find_data({name!r}, data_dir={str(tmp_path)!r})
except FileNotFoundError as error:
  print([m for m in sys.modules if 'tensorflow' in m], error)
"""
  result = subprocess.run(
      [sys.executable, '-c', program],
      check=True,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.stdout.startswith('[] ') and 'no network' in result.stdout
  assert str(tmp_path) in result.stdout
  assert result.stdout.count('\n') == 1


def test_unobtainable_fashion_mnist_is_told_before_it_is_loaded(
    monkeypatch, tmp_path
):
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', '/no/debian')
  with pytest.raises(FileNotFoundError, match='or /no/debian.*no network'):
    registry.find_data('fashion_mnist', data_dir=str(tmp_path))


@pytest.mark.parametrize(
    'name', ['fashion_mnist', 'pneumonia', 'cifar10', 'femnist', 'cifar100']
)
def test_data_that_are_there_are_found(folders, name):
  registry.find_data(name, data_dir=str(folders[name]))
