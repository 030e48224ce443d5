"""Tests for pneumonia's file."""

import os
import shutil

import numpy as np
import pytest

from tasks import pneumonia
from tests.tasks import contract_test

_FILE_NAME = 'pneumoniamnist.npz'


def test_examples_come_from_their_splits(load, folders):
  task = load('pneumonia')
  sets = {
      'train': map(np.concatenate, zip(*contract_test.clients(task))),
      'val': task.holdout.values(),
      'test': task.test.values(),
  }
  with np.load(folders['pneumonia'] / _FILE_NAME) as file:
    for split, (x, y) in sets.items():
      labels = {
          (image / np.float32(255)).tobytes(): label
          for image, label in zip(
              file[f'{split}_images'].astype(np.float32),
              file[f'{split}_labels'][:, 0],
          )
      }
      assert [labels[image.tobytes()] for image in x] == y.tolist()


def test_downloads_a_missing_file_once(load, folders, tmp_path, monkeypatch):
  source = folders['pneumonia'] / _FILE_NAME
  monkeypatch.setenv('HOME', os.fspath(tmp_path))
  urls = []

  def download(url, path):
    urls.append(url)
    shutil.copy(source, path)

  monkeypatch.setattr('tasks.data_files.download', download)
  for _ in range(2):
    assert load('pneumonia', data_dir=None).test['y'].size == 40
  assert urls == [pneumonia._URL]
  assert os.listdir(tmp_path / '.cache' / 'fedaot') == [_FILE_NAME]


def test_file_of_another_checksum_is_refused(load, tmp_path):
  (tmp_path / _FILE_NAME).write_bytes(b'truncated')
  with pytest.raises(ValueError, match=f'not {pneumonia._MD5}'):
    load('pneumonia', data_dir=os.fspath(tmp_path))
