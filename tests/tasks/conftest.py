"""Small data files, and no network."""

import os
import urllib.error

import pytest

import tasks
from tasks import pneumonia
from tests.tasks import small_files


@pytest.fixture(name='folders', scope='session')
def _folders(tmp_path_factory):
  """The folder with the data files of each task that needs some."""
  folders = {
      name: tmp_path_factory.mktemp(name)
      for name in ('fashion_mnist', 'pneumonia', 'cifar10', 'femnist')
  }
  small_files.write_fashion_mnist(folders['fashion_mnist'])
  folders['cifar100'] = folders['femnist']
  small_files.write_cifar100(folders['cifar100'] / 'cifar100.sqlite')
  small_files.write_emnist(folders['femnist'] / 'emnist_all.sqlite')
  with pytest.MonkeyPatch.context() as monkeypatch:
    small_files.write_cifar10(folders['cifar10'])
    small_files.serve_cifar10(monkeypatch, folders['cifar10'])
    # TensorFlow Datasets prepares the data in a folder of its own there.
    tasks.load_task(
        'cifar10', data_dir=os.fspath(folders['cifar10']), **_SMALL['cifar10']
    )
    checksum = small_files.write_pneumonia(folders['pneumonia'])
    monkeypatch.setattr(pneumonia, '_MD5', checksum)
    yield folders


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
  """Neither the machine's data nor its network decides about a test."""

  def urlopen(*args, **kwargs):
    raise urllib.error.URLError('no\nnetwork')

  monkeypatch.setattr('urllib.request.urlopen', urlopen)
  monkeypatch.delenv('FEDAOT_DATA_DIR', raising=False)


@pytest.fixture(name='load', scope='session')
def _load(folders):
  """Loads a task from its small files, with few clients and hold-out images."""

  def load(name, **options):
    small = {}
    if name in folders:
      small['data_dir'] = os.fspath(folders[name])
    if name in _SMALL:
      small.update(_SMALL[name])
    return tasks.load_task(name, **{**small, **options})

  return load


_SMALL = {
    'fashion_mnist': {'num_clients': 8, 'cohort_size': 2, 'holdout_size': 20},
    'pneumonia': {'num_clients': 8, 'cohort_size': 2, 'holdout_size': 20},
    'cifar10': {'num_clients': 5, 'cohort_size': 2, 'holdout_size': 10},
    'cifar100': {'cohort_size': 2, 'holdout_size': 3},
    'femnist': {'cohort_size': 2, 'holdout_size': 3},
}
