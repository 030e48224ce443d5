"""The peak memory of rounds of each aggregator, beyond that of MeanFactory.

Each is measured in a process of its own, as a process's peak never falls, with
the in-process context. `extra_mb` is the peak less that of a process which has
played as many rounds of MeanFactory, so that what both hold of TensorFlow and
of the updates cancels; the row of `mean` tells how exact that is. The time that
is reported is that of the whole process and means nothing.
"""

import functools
import subprocess
import sys


def test_peak(benchmark, aggregator, num_clients, dimension, note):
  benchmark.group = f'memory, N = {num_clients}, d = {dimension}'
  peak = benchmark.pedantic(
      peak_mb, args=(aggregator, num_clients, dimension)
  )
  note(
      peak_mb=peak, extra_mb=peak - _mean_peak_mb(num_clients, dimension)
  )


def peak_mb(aggregator: str, num_clients: int, dimension: int) -> float:
  """The peak of a process that plays rounds, in 10^6 bytes."""
  arguments = (aggregator, str(num_clients), str(dimension))
  done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.peak_memory', *arguments],
      stdout=subprocess.PIPE,
      check=True,
  )
  return float(done.stdout)


@functools.lru_cache(maxsize=None)
def _mean_peak_mb(num_clients, dimension):
  return peak_mb('mean', num_clients, dimension)
