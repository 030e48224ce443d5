"""Plays rounds of one aggregator in this process and prints its peak memory.

python -m benchmarks.peak_memory AGGREGATOR NUM_CLIENTS DIMENSION
"""

import pathlib
import re
import sys

from benchmarks import generated_rounds
from fedaot_tff.simulation import execution_context

_ROUNDS = 5


def main(aggregator: str, num_clients: int, dimension: int) -> None:
  """Prints megabytes, 10^6 bytes."""
  execution_context.set_in_process_execution_context()
  play = generated_rounds.make_rounds(
      aggregator, num_clients, dimension
  )
  for _ in range(_ROUNDS):
    play()
  # Not `ru_maxrss`, which begins at what the parent process held.
  status = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  print(int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024 / 1e6)


if __name__ == '__main__':
  main(sys.argv[1], *map(int, sys.argv[2:]))
