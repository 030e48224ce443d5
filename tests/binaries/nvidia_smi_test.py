"""Tests for nvidia_smi."""

import os
import pathlib
import time

import pytest

from binaries import nvidia_smi


@pytest.fixture(name='install')
def _install(monkeypatch, tmp_path):
  """A function that puts a shell script in place of `nvidia-smi`."""
  monkeypatch.setenv('PATH', str(tmp_path))

  def install(script):
    program = tmp_path / 'nvidia-smi'
    program.write_text(f'#!/bin/sh\n{script}\n')
    program.chmod(0o755)

  return install


def _is_running(pid):
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except (FileNotFoundError, ProcessLookupError):
    return False
  return stat.rpartition(') ')[2][0] not in 'ZX'


def test_fields_are_asked_for_and_read(install):
  install(
      '[ "$*" = "--query-gpu=index,name --format=csv,noheader,nounits" ]'
      ' || exit 1\n'
      'echo "0, NVIDIA A100"; echo warned; echo "1, Tesla T4"'
  )
  assert nvidia_smi.is_installed()
  assert nvidia_smi.query('index', 'name', timeout_seconds=60) == [
      ['0', 'NVIDIA A100'], ['1', 'Tesla T4'],
  ]


@pytest.mark.parametrize('script', ['echo 0; exit 9', 'exit 0', 'echo 0,1'])
def test_failure_and_nonsense_are_no_gpus(install, script):
  install(script)
  assert nvidia_smi.query('index', timeout_seconds=60) == []


def test_absence_is_no_gpus(install, tmp_path):
  del install
  assert not nvidia_smi.is_installed()
  assert nvidia_smi.query('index', timeout_seconds=60) == []
  (tmp_path / 'nvidia-smi').write_text('no program')
  (tmp_path / 'nvidia-smi').chmod(0o755)
  assert nvidia_smi.query('index', timeout_seconds=60) == []


@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='no /proc')
@pytest.mark.parametrize('cancelled', [False, True])
def test_hanging_program_is_killed_with_its_children(
    install, tmp_path, cancelled
):
  install(
      f'/bin/sleep 100 & echo $$ $! > {tmp_path}/new;'
      f' /bin/mv {tmp_path}/new {tmp_path}/pids; echo 0; wait'
  )
  pids = tmp_path / 'pids'
  start = time.monotonic()
  assert not nvidia_smi.query(
      'index',
      timeout_seconds=50 if cancelled else 2,
      is_cancelled=lambda: cancelled and pids.exists(),
  )
  assert time.monotonic() - start < 30
  program, child = map(int, pids.read_text().split())
  assert not _is_running(program)
  while _is_running(child):
    assert time.monotonic() - start < 30
    time.sleep(0.01)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [(None, None), ('', []), ('3, 1', ['3', '1']), ('GPU-a,', ['GPU-a'])],
)
def test_listed_devices(monkeypatch, value, expected):
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  if value is not None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', value)
  assert nvidia_smi.listed_devices() == expected
