"""What rounds on Ray cost: seconds, messages, memory, the object store.

`python -m benchmarks.ray_rounds AGGREGATOR N D ACTORS` plays rounds of
`generated_rounds` on actors of this machine and prints a line: the median of
the seconds of a round, the CPU seconds a round of driver and actors without
those of the first, messages to actors a round, and, in 10^6 bytes, what the
peaks of the driver and of the largest actor grew by from the first round on,
the peak of the object store, and what it spilled to disk.
"""

import os
import pathlib
import re
import statistics
import sys
import threading
import time

_ROUNDS = 3
_SECONDS_BETWEEN_LOOKS = 0.05


def _megabytes(pid, name):
  """A line of a process's status."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
  return int(re.search(rf'{name}:\s+(\d+) kB', status)[1]) * 1024 / 1e6


def _cpu_seconds(pid):
  stat = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='utf-8')
  # Those of the user and of the system.
  ticks = stat.rpartition(')')[2].split()[11:13]
  return sum(map(int, ticks)) / os.sysconf('SC_CLK_TCK')


class _Store(threading.Thread):
  """Looks at the object store now and then."""

  def __init__(self, address):
    super().__init__(daemon=True)
    self._address = address
    self.peak = self.spilled = 0.0
    self.start()

  def run(self):
    # pylint: disable-next=g-import-not-at-top
    from ray._private import internal_api

    while True:
      summary = internal_api.memory_summary(self._address, stats_only=True)
      used = re.search(r'Plasma memory usage (\d+) MiB', summary)
      spilled = re.search(r'Spilled (\d+) MiB', summary)
      self.peak = max(self.peak, int(used[1]) * 2**20 / 1e6)
      if spilled:
        self.spilled = int(spilled[1]) * 2**20 / 1e6
      time.sleep(_SECONDS_BETWEEN_LOOKS)


def main(aggregator: str, num_clients: str, dimension: str, num_actors: str):
  # pylint: disable=g-import-not-at-top
  from benchmarks import generated_rounds
  import fedaot_tff
  from fedaot_tff.runtime import ray_cluster

  # As if there were a core for each.
  ray = ray_cluster.connect(num_cpus=int(num_actors))
  context = fedaot_tff.set_ray_execution_context(num_actors=int(num_actors))
  # All are there before the first round.
  while len(context._actors.ready) < int(num_actors):
    context._actors.start()
    time.sleep(0.1)
  pids = [actor['Pid'] for actor in ray._private.state.actors().values()]
  before = {pid: _megabytes(pid, 'VmRSS') for pid in pids}
  play = generated_rounds.make_rounds(
      aggregator, int(num_clients), int(dimension)
  )
  store = _Store(ray.get_runtime_context().gcs_address)
  num_messages = 0
  send = ray.actor.ActorMethod._remote

  def counted(*args, **kwargs):
    nonlocal num_messages
    num_messages += 1
    return send(*args, **kwargs)

  ray.actor.ActorMethod._remote = counted
  seconds, driver_before = [], _megabytes('self', 'VmRSS')
  for round_num in range(_ROUNDS):
    if round_num == 1:
      cpu_before = [_cpu_seconds(pid) for pid in ('self', *pids)]
    start = time.perf_counter()
    play()
    seconds.append(time.perf_counter() - start)
  cpu = [
      (_cpu_seconds(pid) - seconds) / (_ROUNDS - 1)
      for pid, seconds in zip(('self', *pids), cpu_before)
  ]
  grown = [_megabytes(pid, 'VmHWM') - before[pid] for pid in pids]
  print(
      f'{aggregator} N={num_clients} d={dimension} actors={num_actors}:'
      f' {statistics.median(seconds):.2f} s a round (first'
      f' {seconds[0]:.1f}), CPU {cpu[0]:.2f} s and {sum(cpu[1:]):.2f} s of'
      f' actors, {num_messages / _ROUNDS:.0f} messages, driver'
      f' {_megabytes("self", "VmHWM") - driver_before:.0f} MB, actors'
      f' {max(grown):.0f} MB each beyond {max(before.values()):.0f}, store'
      f' {store.peak:.0f} MB, spilled {store.spilled:.0f} MB'
  )


if __name__ == '__main__':
  if len(sys.argv) != 5:
    sys.exit('usage: python -m benchmarks.ray_rounds AGGREGATOR N D ACTORS')
  main(*sys.argv[1:])
