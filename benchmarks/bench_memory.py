"""The peak memory of rounds of each aggregator, beyond that of MeanFactory.

Each is measured in the in-process context of a process of its own, as a
process's peak never falls: `python -m benchmarks.bench_memory AGGREGATOR N D`.
`extra_mb` is the peak less that of rounds of MeanFactory: what both have of
TensorFlow and of the updates cancels; the row of `mean` tells how exact that
is. The time in the table is that of the process and means nothing.
"""

import functools
import pathlib
import re
import subprocess
import sys

_ROUNDS = 5


def test_peak(benchmark, aggregator, num_clients, dimension, note):
  benchmark.group = f'memory, N = {num_clients}, d = {dimension}'
  peak = benchmark.pedantic(_peak_mb, (aggregator, num_clients, dimension))
  note(peak_mb=peak, extra_mb=peak - _mean_peak_mb(num_clients, dimension))


def _peak_mb(*arguments):
  """The peak of a process, in 10^6 bytes."""
  command = [sys.executable, '-m', __name__, *map(str, arguments)]
  return float(subprocess.check_output(command))


@functools.lru_cache(maxsize=None)
def _mean_peak_mb(num_clients, dimension):
  return _peak_mb('mean', num_clients, dimension)


def _print_peak_mb(aggregator, num_clients, dimension):
  # pylint: disable=g-import-not-at-top
  from benchmarks import generated_rounds
  from fedaot_tff.runtime import execution_context

  execution_context.set_in_process_execution_context()
  play = generated_rounds.make_rounds(
      aggregator, int(num_clients), int(dimension)
  )
  for _ in range(_ROUNDS):
    play()
  # Not `ru_maxrss`, which begins at what the parent process held.
  status = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  print(int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024 / 1e6)


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit('usage: python -m benchmarks.bench_memory AGGREGATOR N D')
  _print_peak_mb(*sys.argv[1:])
