"""Tests for gpu_monitor."""

import threading
import time

import pytest

from binaries import gpu_monitor
from tests.binaries import programs

# Answers one question after the other, each from a file, and fails where there
# is no file. A file with the number of a question is made when it is asked.
_SCRIPT = """\
#!/bin/sh
query=--query-gpu=index,uuid,name,utilization.gpu,memory.used
[ "$*" = "$query --format=csv,noheader,nounits" ] || exit 1
cd {folder} || exit 1
i=0
while [ -e asked$i ]; do i=$((i + 1)); done
: > asked$i
[ -e answer$i ] || exit 1
while read -r line; do echo "$line"; done < answer$i
"""

_FIRST = """\
0, GPU-aaaa-1, NVIDIA A100-SXM4-40GB, 10, 1000
1, GPU-bbbb-2, NVIDIA A100-SXM4-40GB, 0, 3
2, GPU-bbcc-3, NVIDIA H100, 100, 70000
"""
_SECOND = """\
0, GPU-aaaa-1, NVIDIA A100-SXM4-40GB, 61, 1234
1, GPU-bbbb-2, NVIDIA A100-SXM4-40GB, 0, 3
2, GPU-bbcc-3, NVIDIA H100, 50, 80000
"""
_THIRD = """\
0, GPU-aaaa-1, NVIDIA A100-SXM4-40GB, 31, 500
1, GPU-bbbb-2, NVIDIA A100-SXM4-40GB, 1, 4
2, GPU-bbcc-3, NVIDIA H100, 0, 90
"""


@pytest.fixture(name='folder', autouse=True)
def _folder(monkeypatch, tmp_path):
  """Where programs are looked for."""
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  return tmp_path


def _install(folder, script):
  program = folder / 'nvidia-smi'
  program.write_text(script)
  program.chmod(0o755)


def _wait_until(condition):
  deadline = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def _monitor(folder, *answers):
  """The monitor after these answers; None stands for a failure."""
  _install(folder, _SCRIPT.format(folder=folder))
  for i, answer in enumerate(answers):
    if answer is not None:
      (folder / f'answer{i}').write_text(answer)
  with gpu_monitor.GpuMonitor(seconds_between_polls=0.02) as monitor:
    # A question comes when the answer before it is worked up.
    _wait_until((folder / f'asked{len(answers)}').exists)
  return monitor


def _uses(monitor):
  return [(u.index, u.utilization, u.peak_memory) for u in monitor.uses]


def test_mean_utilization_and_peak_memory(folder):
  monitor = _monitor(folder, _FIRST, _SECOND, _THIRD)
  assert _uses(monitor) == [
      (0, pytest.approx(34), 1234),
      (1, pytest.approx(1 / 3), 4),
      (2, pytest.approx(50), 80000),
  ]
  assert monitor.describe() == (
      'GPU 0 (NVIDIA A100-SXM4-40GB): busy 34 % of the time, at most 1,234 MiB'
      ' of memory; '
      'GPU 1 (NVIDIA A100-SXM4-40GB): busy 0 % of the time, at most 4 MiB of'
      ' memory; '
      'GPU 2 (NVIDIA H100): busy 50 % of the time, at most 80,000 MiB of memory'
  )


@pytest.mark.parametrize(
    ('visible', 'expected'),
    [
        ('1', [1]),
        ('2, 0', [0, 2]),
        ('GPU-bbbb-2', [1]),
        ('GPU-bbc,GPU-a', [0, 2]),
        ('GPU-bbcc-3,1', [1, 2]),
        # What comes after an unknown or ambiguous name does not count.
        ('0,-1,1', [0]),
        ('1,7,0', [1]),
        ('0,GPU-bb,1', [0]),
        ('-1', []),
        ('', []),
        ('MIG-aaaa-1', []),
    ],
)
def test_only_visible_gpus_count(monkeypatch, folder, visible, expected):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  monitor = _monitor(folder, _FIRST)
  assert [use.index for use in monitor.uses] == expected
  assert (monitor.describe() is None) == (not expected)


def test_failures_and_nonsense_between_answers_do_not_count(folder):
  monitor = _monitor(
      folder, None, _FIRST, 'Unable to determine the device\n', None, _THIRD
  )
  assert _uses(monitor)[0] == (0, pytest.approx(20.5), 1000)


@pytest.mark.parametrize(
    'unknown',
    [
        '[N/A], 12',
        '50, [N/A]',
        '[Not Supported], [Not Supported]',
        '50',
        'nan, 12',
        '50 %, 12 MiB',
    ],
)
def test_gpu_without_numbers_is_left_out(monkeypatch, folder, unknown):
  answer = f'0, GPU-aaaa-1, T4, {unknown}\n1, GPU-bbbb-2, T4, 20, 30\n'
  assert _uses(_monitor(folder, answer)) == [(1, 20, 30)]
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-aaaa-1')
  (folder / 'asked0').unlink()
  (folder / 'asked1').unlink()
  monitor = _monitor(folder, answer)
  assert not monitor.uses
  assert monitor.describe() is None


def test_failing_program_tells_nothing(folder):
  monitor = _monitor(folder, None, None)
  assert monitor.describe() is None


def test_hanging_program_is_given_up_and_asked_again(folder):
  _install(
      folder,
      f'#!/bin/sh\n[ -e {folder}/first ] && : > {folder}/second\n'
      f': > {folder}/first\nexec /bin/sleep 100\n',
  )
  with gpu_monitor.GpuMonitor(
      seconds_between_polls=0.02, timeout_seconds=0.2
  ) as monitor:
    _wait_until((folder / 'second').exists)
  assert monitor.describe() is None


@pytest.mark.parametrize('fails', [False, True])
def test_run_does_not_wait_for_an_answer(folder, fails):
  _install(
      folder, f'#!/bin/sh\n: > {folder}/asked\nexec /bin/sleep 100\n'
  )
  before = threading.active_count()
  try:
    with gpu_monitor.GpuMonitor(seconds_between_polls=0.02) as monitor:
      _wait_until((folder / 'asked').exists)
      assert threading.active_count() == before + 1
      start = time.monotonic()
      if fails:
        raise KeyError('of the run')
  except KeyError:
    assert fails
  assert time.monotonic() - start < 5
  assert threading.active_count() == before
  assert monitor.describe() is None


def test_run_that_ends_before_the_first_question(folder):
  _install(folder, _SCRIPT.format(folder=folder))
  start = time.monotonic()
  with gpu_monitor.GpuMonitor(seconds_between_polls=100) as monitor:
    pass
  assert time.monotonic() - start < 5
  assert monitor.describe() is None
  assert not (folder / 'asked0').exists()


def test_no_thread_without_the_program():
  before = threading.active_count()
  with gpu_monitor.GpuMonitor(seconds_between_polls=0.02) as monitor:
    assert threading.active_count() == before
  assert monitor.describe() is None


def test_tensorflow_is_not_needed():
  loaded = programs.loaded_packages('binaries.gpu_monitor')
  assert not loaded & {'tensorflow', 'numpy'}
