"""Tests for benchmark_runner."""

import itertools

import pytest

from binaries import benchmark_runner

_MEAN_MB, _KRUM_MB = 100.0, 200.0


class _FakeWorkers:
  """Stands in for `native` and all that is played in its workers.

  Attributes:
    played: What was played, in order: name and process id of the worker.
    alive: The ids of the workers that run.
    most_alive: How many ran at once.
  """

  def __init__(self):
    self.played = []
    self.alive = set()
    self.most_alive = 0
    self.failing = None
    self._pids = itertools.count(1)

  def NativeExecutionContext(self):
    return _FakeContext(self)

  def start(self):
    pid = next(self._pids)
    self.alive.add(pid)
    self.most_alive = max(self.most_alive, len(self.alive))
    return pid

  def peak_memory_mb(self, pid):
    """A base that tells the name, and a megabyte more for each round."""
    (name,) = {n for n, p in self.played if p == pid}
    base = {'mean': _MEAN_MB, 'krum': _KRUM_MB}.get(name, 0.0)
    return base + sum(p == pid for _, p in self.played)


class _FakeContext:
  """Stands in for a `NativeExecutionContext`."""

  def __init__(self, workers):
    self._workers = workers
    self.worker_pid = None

  def play(self, name):
    if name == self._workers.failing:
      raise RuntimeError('the worker died')
    if self.worker_pid is None:
      self.worker_pid = self._workers.start()
    self._workers.played.append((name, self.worker_pid))

  def close(self):
    self._workers.alive.discard(self.worker_pid)
    self.worker_pid = None


@pytest.fixture(name='workers')
def _fake_workers(monkeypatch):
  workers = _FakeWorkers()

  def make_rounds(unused_runner, context, name, unused_n, unused_d):
    return lambda: context.play(name)

  monkeypatch.setattr(benchmark_runner, 'native', workers)
  monkeypatch.setattr(
      benchmark_runner.rounds,
      'Generation',
      lambda context, n, d, seed: lambda: context.play('generation'),
  )
  monkeypatch.setattr(benchmark_runner.Runner, '_make_rounds', make_rounds)
  monkeypatch.setattr(
      benchmark_runner, 'peak_memory_mb', workers.peak_memory_mb
  )
  return workers


def _make_runner(**options):
  return benchmark_runner.Runner(byzantine_fraction=0.1, seed=0, **options)


_ORDER = ['generation', 'mean', 'tff_robust', 'krum']


def _names(played):
  return [name for name, _ in played]


def test_each_has_a_worker_and_they_take_turns(workers):
  runner = _make_runner()
  rounds = runner.run('krum', 10, 100, 2)
  next(rounds)
  # Two rounds of each that do not count, then a repeat.
  warm_up = [name for name in _ORDER for _ in range(2)]
  assert _names(workers.played) == warm_up + _ORDER
  next(rounds)
  assert _names(workers.played[12:]) == _ORDER
  pids = {name: {p for n, p in workers.played if n == name} for name in _ORDER}
  assert all(len(found) == 1 for found in pids.values())
  assert len(set.union(*pids.values())) == len(workers.alive) == 4
  assert not list(rounds)
  # The references are kept for the next aggregator.
  assert len(workers.alive) == 3
  runner.close()
  assert not workers.alive


def test_peaks_are_compared_after_as_many_rounds(workers):
  runner = _make_runner()
  for name, base in (('krum', _KRUM_MB), ('mean', _MEAN_MB)):
    # The kept worker of the mean has played more rounds than the new one.
    repeats = list(runner.run(name, 10, 100, 3))
    assert [repeat.peak_memory_mb for repeat in repeats] == [
        base + rounds for rounds in (3, 4, 5)
    ]
    assert [repeat.mean_peak_memory_mb for repeat in repeats] == [
        _MEAN_MB + rounds for rounds in (3, 4, 5)
    ]
  runner.close()


def test_new_size_needs_new_references(workers):
  runner = _make_runner()
  list(runner.run('krum', 10, 100, 1))
  first = set(workers.alive)
  list(runner.run('krum', 10, 200, 1))
  assert len(workers.alive) == 3
  assert not first & workers.alive
  runner.close()


def test_one_worker_at_a_time_if_all_might_not_fit(workers):
  runner = _make_runner()
  # More than any machine has.
  repeats = list(runner.run('krum', 10**9, 10**9, 2))
  assert workers.most_alive == 1
  assert not workers.alive
  # Each turn has a new worker, and so rounds that do not count.
  turn = [name for name in _ORDER for _ in range(3)]
  assert _names(workers.played) == turn * 2
  assert [repeat.peak_memory_mb for repeat in repeats] == [_KRUM_MB + 3] * 2
  assert [repeat.mean_peak_memory_mb for repeat in repeats] == [
      _MEAN_MB + 3
  ] * 2
  runner.close()


def test_tff_robust_is_left_out_if_asked(workers):
  runner = _make_runner(time_tff_robust=False)
  (repeat,) = runner.run('krum', 10, 100, 1)
  assert repeat.tff_robust is None
  assert 'tff_robust' not in _names(workers.played)
  runner.close()


def test_failure_leaves_no_worker(workers):
  runner = _make_runner()
  list(runner.run('krum', 10, 100, 1))
  workers.failing = 'mean'
  with pytest.raises(RuntimeError, match='the worker died'):
    list(runner.run('krum', 10, 100, 1))
  assert not workers.alive
  workers.failing = None
  (repeat,) = runner.run('krum', 10, 100, 1)
  assert repeat.mean_peak_memory_mb == _MEAN_MB + 3
  runner.close()
