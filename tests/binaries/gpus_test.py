"""Tests for gpus."""

import threading
import time

import pytest

from binaries import gpus
from tests.binaries import programs

# Answers one question after the other, each from a file, and fails where there
# is no file. A file with the number of a question is made when it is asked.
_SCRIPT = """\
#!/bin/sh
[ "$1" = --query-gpu=index,name,utilization.gpu,memory.used ] || exit 1
[ "$2" = --format=csv,noheader,nounits ] || exit 1
cd {folder} || exit 1
echo "$3" > options
i=0
while [ -e asked$i ]; do i=$((i + 1)); done
: > asked$i
[ -e answer$i ] || exit 1
while read -r line; do echo "$line"; done < answer$i
"""
_ANSWERS = tuple(
    f'10, NVIDIA A100-SXM4-40GB, {a100}\n2, NVIDIA H100, {h100}\n'
    for a100, h100 in (
        ('10, 1000', '100, 70000'),
        ('61, 1234', '50, 80000'),
        ('31, 5', '0, 9'),
    )
)


@pytest.fixture(name='folder', autouse=True)
def _folder(monkeypatch, tmp_path):
  """Where programs are looked for."""
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setattr(gpus, '_SECONDS_BETWEEN_QUESTIONS', 0.02)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  return tmp_path


def _install(folder, script):
  program = folder / 'nvidia-smi'
  program.write_text(script)
  program.chmod(0o755)


def _told(folder, *answers):
  """What is told after these answers; None stands for a failure."""
  _install(folder, _SCRIPT.format(folder=folder))
  for i, answer in enumerate(answers):
    if answer is not None:
      (folder / f'answer{i}').write_text(answer)
  told = []
  with gpus.monitored(told.append):
    # A question comes when the answer before it is worked up.
    programs.wait_until((folder / f'asked{len(answers)}').exists)
  return told


def test_mean_utilization_and_peak_memory(folder):
  first, second, third = _ANSWERS
  # What is no answer does not count.
  answers = (None, first, 'Unable to determine\n', second, None, third)
  assert _told(folder, *answers) == [
      'GPU 2 (NVIDIA H100): busy 50 % of the time, at most 80,000 MiB of'
      ' memory; GPU 10 (NVIDIA A100-SXM4-40GB): busy 34 % of the time, at most'
      ' 1,234 MiB of memory'
  ]
  assert (folder / 'options').read_text() == '\n'


def test_only_visible_gpus_are_asked_about(monkeypatch, folder):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2, GPU-aaaa-1')
  assert _told(folder, _ANSWERS[0])
  assert (folder / 'options').read_text() == '--id=2,GPU-aaaa-1\n'


@pytest.mark.parametrize(
    'unknown', ['[N/A], 12', '50, [N/A]', '50', '50 %, 12 MiB']
)
def test_gpu_without_numbers_is_left_out(folder, unknown):
  answer = f'0, T4, {unknown}\n1, T4, 20, 30\n'
  assert _told(folder, answer) == [
      'GPU 1 (T4): busy 20 % of the time, at most 30 MiB of memory'
  ]


def test_hanging_program_neither_delays_nor_fails_the_run(monkeypatch, folder):
  monkeypatch.setattr(gpus, '_TIMEOUT_SECONDS', 1.0)
  monkeypatch.setattr(gpus, '_STOP_TIMEOUT_SECONDS', 0.01)
  _install(folder, f'#!/bin/sh\n: > {folder}/asked\nexec /bin/sleep 100\n')
  before = threading.active_count()
  told = []
  with pytest.raises(KeyError), gpus.monitored(told.append):
    programs.wait_until((folder / 'asked').exists)
    raise KeyError('of the run')
  assert not told
  # It is given up; the thread does not outlive it.
  programs.wait_until(lambda: threading.active_count() == before)


def test_nothing_is_told_without_an_answer(folder):
  assert not _told(folder, None, None)
  (folder / 'nvidia-smi').unlink()
  told = []
  with gpus.monitored(told.append):
    time.sleep(0.05)
  assert not told


_LISTED = 'GPU-aaaa-1\nGPU-cccc-3'


@pytest.mark.parametrize(
    ('visible', 'script', 'expected'),
    [
        ('3, 1', '', ['3', '1']),
        ('GPU-a,', '', ['GPU-a']),
        ('', f"echo '{_LISTED}'", []),
        (None, f"echo '{_LISTED}'", ['GPU-aaaa-1', 'GPU-cccc-3']),
        (None, f"echo '{_LISTED}'; exit 9", []),
        (None, "echo 'No devices\nwere found'", []),
        (None, None, []),
    ],
)
def test_visible_gpus(monkeypatch, folder, visible, script, expected):
  if visible is not None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  if script is not None:
    check = '[ $1 = --query-gpu=uuid ] || exit 1'
    _install(folder, f'#!/bin/sh\n{check}\n{script}')
  assert gpus.visible_gpus() == expected
