"""How busy the GPUs are while a run goes on.

`nvidia-smi` is asked every few seconds, in a thread that neither delays the run
nor fails it. What it tells is of the whole GPU, other programs on it included.

This module imports neither TensorFlow nor NumPy.
"""

import dataclasses
import threading
from typing import Dict, List, Optional

from binaries import nvidia_smi

_FIELDS = ('index', 'uuid', 'name', 'utilization.gpu', 'memory.used')
# How long the end of a run waits for the thread, which ends at once unless the
# driver does not let go of `nvidia-smi`.
_STOP_TIMEOUT_SECONDS = 1.0


@dataclasses.dataclass
class GpuUse:
  """What a GPU did.

  Attributes:
    index: Its number in `nvidia-smi`.
    name: Its model.
    peak_memory: The most memory that was in use when it was asked, in MiB.
    num_samples: How often it was asked.
    sum_utilization: The sum of the answers, each the percentage of the last
      second or less, depending on the model, in which something ran on it.
  """

  index: int
  name: str
  peak_memory: int = 0
  num_samples: int = 0
  sum_utilization: int = 0

  @property
  def utilization(self) -> float:
    """The mean of the answers, in percent."""
    return self.sum_utilization / self.num_samples

  def describe(self) -> str:
    """Returns utilization and memory in words."""
    return (
        f'GPU {self.index} ({self.name}): busy {self.utilization:.0f} % of the'
        f' time, at most {self.peak_memory:,} MiB of memory'
    )


class GpuMonitor:
  """Measures, as a context manager, the GPUs that this process may use.

  These are all, or those that CUDA_VISIBLE_DEVICES lists by index or UUID.
  Indices are taken for those of `nvidia-smi`, which CUDA's are if all GPUs are
  equal or CUDA_DEVICE_ORDER is PCI_BUS_ID. A GPU that `nvidia-smi` tells
  nothing about, such as one that is split into instances, is left out.
  """

  def __init__(
      self, *, seconds_between_polls: float = 2.0, timeout_seconds: float = 10.0
  ):
    """Initializes `GpuMonitor`.

    Args:
      seconds_between_polls: How long to wait from one answer to the next
        question. The first comes after half of it.
      timeout_seconds: How long to wait for an answer.
    """
    self._seconds_between_polls = seconds_between_polls
    self._timeout_seconds = timeout_seconds
    self._uses: Dict[str, GpuUse] = {}
    self._stop = threading.Event()
    self._thread: Optional[threading.Thread] = None

  @property
  def uses(self) -> List[GpuUse]:
    """The GPUs there are answers about, by index."""
    return sorted(self._uses.values(), key=lambda use: use.index)

  def describe(self) -> Optional[str]:
    """Returns a line on all GPUs; None if there are no answers."""
    return '; '.join(use.describe() for use in self.uses) or None

  def __enter__(self) -> 'GpuMonitor':
    if nvidia_smi.is_installed():
      self._thread = threading.Thread(
          target=self._poll, name='gpu_monitor', daemon=True
      )
      self._thread.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._stop.set()
    if self._thread is not None:
      self._thread.join(_STOP_TIMEOUT_SECONDS)

  def _poll(self) -> None:
    """Asks again and again, until it is told to stop."""
    wait = self._seconds_between_polls / 2
    while not self._stop.wait(wait):
      rows = nvidia_smi.query(
          *_FIELDS,
          timeout_seconds=self._timeout_seconds,
          is_cancelled=self._stop.is_set,
      )
      for row in _visible(rows):
        self._add(*row)
      wait = self._seconds_between_polls

  def _add(
      self, index: str, uuid: str, name: str, utilization: str, memory: str
  ) -> None:
    """Adds an answer, unless a number in it is missing, as in '[N/A]'."""
    try:
      number, percentage, mebibytes = map(int, (index, utilization, memory))
    except ValueError:
      return
    use = self._uses.setdefault(uuid, GpuUse(number, name))
    use.num_samples += 1
    use.sum_utilization += percentage
    use.peak_memory = max(use.peak_memory, mebibytes)


def _visible(rows: List[List[str]]) -> List[List[str]]:
  """The rows of the GPUs that CUDA shows to this process."""
  listed = nvidia_smi.listed_devices()
  if listed is None:
    return rows
  visible = []
  for device in listed:
    # The beginning of a UUID will do.
    found = [
        row
        for row in rows
        if device == row[0]
        or (device.startswith('GPU-') and row[1].startswith(device))
    ]
    if len(found) != 1:
      # CUDA ignores what comes after a name that it does not know.
      break
    visible += found
  return visible
