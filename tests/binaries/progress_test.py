"""Tests for progress."""

import io

import pytest

from binaries import progress as progress_lib


class _Terminal(io.StringIO):

  def isatty(self):
    return True


@pytest.fixture(name='clock')
def _clock(monkeypatch):
  """A list with the time, which stands still unless a test changes it."""
  now = [100.0]
  monkeypatch.setattr(progress_lib.time, 'monotonic', lambda: now[0])
  return now


def _advance(clock, seconds, *runs):
  for run in runs:
    clock[0] += seconds
    run.advance('a round')


@pytest.mark.parametrize(
    'seconds, num_runs, expected',
    [
        (
            15,
            1,
            'run 1: a round\n'
            'run 1: a round (15.0 s/round, 00:15 left)\n'
            'run 1: a round\n'
            'run 1: done\n',
        ),
        # At most a line every ten seconds.
        (
            6,
            2,
            'run 1: a round (6.0 s/round, 00:24 left)\n'
            'run 1: done (6.0 s/round, 00:18 left)\n'
            'run 2: a round (6.0 s/round, 00:06 left)\n'
            'run 2: done\n',
        ),
    ],
)
def test_lines(clock, seconds, num_runs, expected):
  stream = io.StringIO()
  with progress_lib.Progress(num_runs, 3, stream=stream) as progress:
    for number in range(1, num_runs + 1):
      run = progress.start_run(f'run {number}')
      _advance(clock, seconds, run, run, run)
      run.end('done')
  assert stream.getvalue() == expected


def test_run_that_ends_early_leaves_less_time(clock):
  stream = io.StringIO()
  run = progress_lib.Progress(3, 4, stream=stream).start_run('run 1')
  _advance(clock, 60, run)
  _advance(clock, 5, run)
  run.end('failed')
  # Eight rounds of five seconds; the first round is no measure.
  assert stream.getvalue().endswith(
      '\nrun 1: failed (5.0 s/round, 00:40 left)\n'
  )


def test_runs_side_by_side(clock):
  stream = io.StringIO()
  progress = progress_lib.Progress(2, 3, stream=stream)
  first, second = map(progress.start_run, ('run 1', 'run 2'))
  _advance(clock, 0.5, first, second, first, second)
  first.end('failed')
  _advance(clock, 0.5, second)
  second.end('done')
  # Of run 1 nothing is left, of run 2 a round, half a second a round.
  assert stream.getvalue() == (
      'run 1: failed (2.0 rounds/s, 00:00 left)\nrun 2: done\n'
  )


def test_earlier_rounds_are_not_left(clock):
  stream = io.StringIO()
  # One of three runs is finished, another is at round 2 of 4.
  progress = progress_lib.Progress(3, 4, num_finished=1, stream=stream)
  run = progress.start_run('run 2')
  run.skip(2)
  _advance(clock, 0.5, run, run)
  run.end('done')
  progress.start_run('run 3').end('failed')
  assert stream.getvalue() == (
      'run 2: done (2.0 rounds/s, 00:02 left)\nrun 3: failed\n'
  )


def test_repeated_rounds_do_not_make_fewer_left(clock):
  stream = io.StringIO()
  run = progress_lib.Progress(2, 4, stream=stream).start_run('run 1')
  run.skip(3)
  _advance(clock, 5, run, run, run, run)
  run.end('done')
  assert stream.getvalue().endswith('done (5.0 s/round, 00:20 left)\n')


def test_terminal_has_a_bar_and_lines_that_stay():
  stream = _Terminal()
  with progress_lib.Progress(2, 4, num_finished=1, stream=stream) as progress:
    run = progress.start_run('run 2')
    for _ in range(4):
      run.advance('a round')
    run.end('done')
  written = stream.getvalue()
  assert ' 50%|' in written and ' 0%|' not in written
  assert 'run 2: done\n' in written


@pytest.mark.parametrize(
    'stream, quiet',
    [(io.StringIO(), False), (_Terminal(), False), (io.StringIO(), True),
     (_Terminal(), True)],
)
def test_what_is_told_beside_the_rounds(stream, quiet):
  with progress_lib.Progress(2, 3, quiet=quiet, stream=stream) as progress:
    for label in ('run 1', 'run 2'):
      run = progress.start_run(label)
      run.advance('a round')
      run.note('all run on paper')
      run.remark('paper was cheap')
      run.warn('trouble')
  written = stream.getvalue()
  if quiet:
    # No bar either.
    assert written == 'run 1: trouble\nrun 2: trouble\n'
  else:
    assert written.count('all run on paper\n') == 1
    for text in ('paper was cheap', 'trouble'):
      assert written.count(f'run 1: {text}\n') == 1
      assert written.count(f'run 2: {text}\n') == 1
