"""Tests for progress."""

import io
from unittest import mock

from binaries import progress as progress_lib


class _Terminal(io.StringIO):

  def isatty(self):
    return True


class _Clock:
  """Stands in for `time.monotonic`."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def _run(stream, seconds_per_round, *, quiet=False, num_runs=1):
  """Reports runs of three rounds and returns what was written."""
  clock = _Clock()
  with mock.patch.object(progress_lib.time, 'monotonic', clock):
    with progress_lib.Progress(
        num_runs, 3, quiet=quiet, stream=stream
    ) as progress:
      for run in range(1, num_runs + 1):
        progress.start_run(f'run {run}')
        for round_num in range(1, 4):
          clock.now += seconds_per_round
          progress.advance(f'round {round_num}')
        progress.end_run('done')
  return stream.getvalue()


def test_lines_of_slow_rounds():
  assert _run(io.StringIO(), 15) == (
      'run 1: round 1\n'
      'run 1: round 2 (15.0 s/round, 00:15 left)\n'
      'run 1: round 3\n'
      'run 1: done\n'
  )


def test_at_most_a_line_every_ten_seconds():
  assert _run(io.StringIO(), 6, num_runs=2) == (
      'run 1: round 2 (6.0 s/round, 00:24 left)\n'
      'run 1: done (6.0 s/round, 00:18 left)\n'
      'run 2: round 2 (6.0 s/round, 00:06 left)\n'
      'run 2: done\n'
  )


def test_run_that_ends_early_leaves_less_time():
  stream = io.StringIO()
  clock = _Clock()
  with mock.patch.object(progress_lib.time, 'monotonic', clock):
    progress = progress_lib.Progress(3, 4, stream=stream)
    progress.start_run('run 1')
    clock.now += 60
    progress.advance('round 1')
    clock.now += 5
    progress.advance('round 2')
    progress.end_run('failed')
  # Eight rounds of five seconds; the first round is no measure.
  assert stream.getvalue().endswith(
      '\nrun 1: failed (5.0 s/round, 00:40 left)\n'
  )


def test_runs_side_by_side():
  stream = io.StringIO()
  clock = _Clock()
  with mock.patch.object(progress_lib.time, 'monotonic', clock):
    progress = progress_lib.Progress(2, 3, stream=stream)
    progress.start_run('run 1')
    progress.start_run('run 2')
    for _ in range(2):
      for label in ('run 1', 'run 2'):
        progress.select_run(label)
        clock.now += 0.5
        progress.advance('a round')
    progress.select_run('run 1')
    progress.end_run('failed')
    progress.select_run('run 2')
    clock.now += 0.5
    progress.advance('a round')
    progress.end_run('done')
  # Of run 1 nothing is left, of run 2 a round, half a second a round.
  assert stream.getvalue() == (
      'run 1: failed (2.0 rounds/s, 00:00 left)\nrun 2: done\n'
  )


def test_earlier_rounds_are_not_left():
  stream = io.StringIO()
  clock = _Clock()
  with mock.patch.object(progress_lib.time, 'monotonic', clock):
    # One of three runs is finished, another is at round 2 of 4.
    progress = progress_lib.Progress(3, 4, rounds_done=6, stream=stream)
    progress.start_run('run 2', rounds_done=2)
    for _ in range(2):
      clock.now += 0.5
      progress.advance('a round')
    progress.end_run('done')
    progress.start_run('run 3')
    progress.end_run('failed')
  assert stream.getvalue() == (
      'run 2: done (2.0 rounds/s, 00:02 left)\nrun 3: failed\n'
  )


def test_repeated_rounds_do_not_make_fewer_left():
  stream = io.StringIO()
  clock = _Clock()
  with mock.patch.object(progress_lib.time, 'monotonic', clock):
    progress = progress_lib.Progress(2, 4, rounds_done=3, stream=stream)
    progress.start_run('run 1', rounds_done=3)
    for _ in range(4):
      clock.now += 5
      progress.advance('a round')
    progress.end_run('done')
  assert stream.getvalue().endswith('done (5.0 s/round, 00:20 left)\n')


def test_bar_counts_earlier_rounds():
  stream = _Terminal()
  with progress_lib.Progress(2, 4, rounds_done=4, stream=stream) as progress:
    progress.start_run('run 2')
    for _ in range(4):
      progress.advance('a round')
  written = stream.getvalue()
  assert ' 50%|' in written
  assert '%|' in written and ' 0%|' not in written


def test_quiet_reports_problems_only():
  stream = io.StringIO()
  progress = progress_lib.Progress(1, 3, quiet=True, stream=stream)
  progress.start_run('run 1')
  progress.advance('round 1')
  progress.warn('trouble')
  progress.end_run('done')
  assert stream.getvalue() == 'run 1: trouble\n'


def test_terminal_has_a_bar_and_lines_that_stay():
  stream = _Terminal()
  with progress_lib.Progress(1, 3, stream=stream) as progress:
    progress.start_run('run 1')
    for round_num in range(1, 4):
      progress.advance(f'round {round_num}')
    progress.warn('trouble')
    progress.end_run('done')
  written = stream.getvalue()
  assert '%|' in written.replace(' ', '')
  assert 'run 1: trouble\n' in written
  assert 'run 1: done\n' in written


def test_quiet_terminal_has_no_bar():
  assert _run(_Terminal(), 15, quiet=True) == ''


def test_a_remark_is_told_of_each_run():
  stream, terminal, silent = io.StringIO(), _Terminal(), io.StringIO()
  for out, quiet in ((stream, False), (terminal, False), (silent, True)):
    with progress_lib.Progress(2, 3, quiet=quiet, stream=out) as progress:
      for run in ('run 1', 'run 2'):
        progress.start_run(run)
        progress.advance('a round')
        progress.advance('another')
        progress.remark('paper was cheap')
  assert stream.getvalue() == (
      'run 1: paper was cheap\nrun 2: paper was cheap\n'
  )
  for run in ('run 1', 'run 2'):
    assert terminal.getvalue().count(f'{run}: paper was cheap\n') == 1
  assert not silent.getvalue()


def test_a_note_is_told_once():
  stream, terminal, silent = io.StringIO(), _Terminal(), io.StringIO()
  for out, quiet in ((stream, False), (terminal, False), (silent, True)):
    with progress_lib.Progress(2, 3, quiet=quiet, stream=out) as progress:
      for run in ('run 1', 'run 2'):
        progress.start_run(run)
        progress.note('all run on paper')
  assert stream.getvalue() == 'all run on paper\n'
  assert terminal.getvalue().count('all run on paper\n') == 1
  assert not silent.getvalue()
