"""Tests for data_dir."""

import os

import pytest

from tasks import data_dir


@pytest.mark.parametrize(
    'argument, variable, expected',
    [
        (None, None, None),
        (None, '', None),
        (None, '/env', '/env'),
        ('/mine', '/env', '/mine'),
        ('/mine', None, '/mine'),
        ('~/mine', None, os.path.join('/home/me', 'mine')),
        (None, '~/env', os.path.join('/home/me', 'env')),
    ],
)
def test_resolve(monkeypatch, argument, variable, expected):
  monkeypatch.setenv('HOME', '/home/me')
  monkeypatch.delenv('FEDAOT_DATA_DIR', raising=False)
  if variable is not None:
    monkeypatch.setenv('FEDAOT_DATA_DIR', variable)
  assert data_dir.resolve(argument) == expected
