"""Tests for progress."""

import io

import pytest

from binaries import progress as progress_lib


class _Terminal(io.StringIO):

  def isatty(self):
    return True


class _Log:
  """A progress that is no terminal's, with a clock of its own."""

  def __init__(self, monkeypatch, *arguments, **options):
    self._now = 1000.0
    monkeypatch.setattr('tqdm.std.time', lambda: self._now)
    self.stream = io.StringIO()
    self.progress = progress_lib.Progress(
        *arguments, stream=self.stream, **options
    )

  def advance(self, seconds, *runs):
    for run in runs:
      self._now += seconds
      run.advance('a round')


def test_lines_at_most_every_ten_seconds(monkeypatch):
  log = _Log(monkeypatch, 2, 3)
  with log.progress:
    for number in (1, 2):
      run = log.progress.start_run(f'run {number}')
      log.advance(6, run, run, run)
      run.end('done')
  # The first round is no measure of the pace.
  assert log.stream.getvalue() == (
      'run 1: a round ( 6.00s/round, 00:24 left)\n'
      'run 1: done\n'
      'run 2: a round ( 6.00s/round, 00:12 left)\n'
      'run 2: a round ( 6.00s/round, 00:00 left)\n'
      'run 2: done\n'
  )


def test_runs_side_by_side_of_which_one_ends_early(monkeypatch):
  log = _Log(monkeypatch, 2, 3)
  first, second = map(log.progress.start_run, ('run 1', 'run 2'))
  log.advance(5, first, second)
  first.end('failed')
  log.advance(10, second)
  # Of run 1 nothing is left, of run 2 a round.
  assert log.stream.getvalue().endswith(
      'run 1: failed\nrun 2: a round ( 7.50s/round, 00:07 left)\n'
  )


def test_earlier_rounds_are_no_measure_and_not_left(monkeypatch):
  # One of three runs is finished, another is at round 2 of 4.
  log = _Log(monkeypatch, 3, 4, num_finished=1)
  run = log.progress.start_run('run 2')
  run.skip(2)
  log.advance(10, run, run)
  assert log.stream.getvalue().endswith('(10.00s/round, 00:40 left)\n')


def test_repeated_rounds_do_not_make_fewer_left(monkeypatch):
  log = _Log(monkeypatch, 2, 4)
  run = log.progress.start_run('run 1')
  run.skip(3)
  log.advance(10, run, run, run)
  run = log.progress.start_run('run 2')
  log.advance(10, run)
  run.skip(1)
  # Three rounds, at a new one in thirty seconds.
  assert log.stream.getvalue().endswith('(30.00s/round, 01:30 left)\n')


def test_terminal_has_a_bar_and_lines_that_stay():
  stream = _Terminal()
  with progress_lib.Progress(2, 4, num_finished=1, stream=stream) as progress:
    run = progress.start_run('run 2')
    for _ in range(4):
      run.advance('a round')
    run.end('done')
  written = stream.getvalue()
  assert '100%|' in written and ' 0%|' not in written
  assert 'run 2: done\n' in written


@pytest.mark.parametrize('kind', [io.StringIO, _Terminal])
@pytest.mark.parametrize('quiet', [False, True])
def test_what_is_told_beside_the_rounds(kind, quiet):
  stream = kind()
  with progress_lib.Progress(2, 3, quiet=quiet, stream=stream) as progress:
    for label in ('run 1', 'run 2'):
      run = progress.start_run(label)
      run.skip(1)
      run.advance('a round')
      run.note('all run on paper')
      run.remark('paper was cheap')
      run.warn('trouble')
      run.end('done')
  written = stream.getvalue()
  if quiet:
    # No bar either.
    assert written == 'run 1: trouble\nrun 2: trouble\n'
  else:
    assert written.count('all run on paper\n') == 1
    for text in ('paper was cheap', 'trouble', 'done'):
      assert written.count(f'run 1: {text}\n') == 1
      assert written.count(f'run 2: {text}\n') == 1
