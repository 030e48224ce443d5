"""`binaries.benchmark` with a runner that only seems to measure.

`python -m tests.binaries.fake_benchmark --aggregators=...` does without
TensorFlow. Times are made up: a round of MeanFactory takes N * d ns, one of
`fedaot` three times as long, of `krum` N^2 * d ns and of the others N * d ns;
generating takes a second. The first repeat is late by ten seconds. What goes
wrong is set by environment variables:

  FAKE_FAILURE=a  measurements of aggregator a fail in the second repeat
  FAKE_CRASH=a    the process is killed in the second repeat of those of a
"""

import os
import signal
import sys
import types

from binaries import application


class FakeRunner:
  """Stands in for `benchmark_runner.Runner`."""

  def __init__(self, *, byzantine_fraction, seed):
    assert 0 <= byzantine_fraction < 1
    assert seed >= 0

  def run(self, aggregator, num_clients, dimension, repeats):
    mean = 1e-9 * num_clients * dimension
    factor = {'fedaot': 3, 'krum': num_clients}.get(aggregator, 1)
    for repeat in range(repeats):
      if repeat == 1:
        if os.environ.get('FAKE_FAILURE') == aggregator:
          raise RuntimeError('something is\nwrong')
        if os.environ.get('FAKE_CRASH') == aggregator:
          os.kill(os.getpid(), signal.SIGKILL)
      late = 10.0 if repeat == 0 else 0.0
      yield types.SimpleNamespace(
          generation=1.0 + late,
          mean=1.0 + late + mean,
          aggregator=1.0 + 2 * late + factor * mean,
          peak_memory_mb=4e-6 * num_clients * dimension,
      )

  def close(self):
    pass


if __name__ == '__main__':
  sys.modules['binaries.benchmark_runner'] = types.SimpleNamespace(
      Runner=FakeRunner
  )
  # pylint: disable-next=g-import-not-at-top
  from binaries import benchmark

  sys.argv[0] = 'benchmark.py'
  application.run(benchmark.main)
