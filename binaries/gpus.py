"""What `nvidia-smi` says about the GPUs: which there are, how busy they are.

This module imports neither TensorFlow nor NumPy.
"""

import dataclasses
import os
import subprocess
import threading
from typing import Dict, List, Optional, Sequence

_TIMEOUT_SECONDS = 10.0
# How long the end of a run waits for an answer.
_STOP_TIMEOUT_SECONDS = 1.0


def visible_gpus() -> List[str]:
  """What CUDA_VISIBLE_DEVICES lists, or would if it listed every GPU."""
  listed = os.environ.get('CUDA_VISIBLE_DEVICES')
  if listed is None:
    return [uuid for (uuid,) in _query('uuid') if uuid.startswith('GPU-')]
  return [name.strip() for name in listed.split(',') if name.strip()]


@dataclasses.dataclass
class _Use:
  """What is known of a GPU; the utilization is a sum over the answers."""

  name: str
  num_answers: int = 0
  percent: int = 0
  peak_mebibytes: int = 0


class GpuMonitor:
  """Measures, as a context manager, the GPUs that this process may use.

  A thread asks `nvidia-smi` again and again; it neither delays the run nor
  fails it. The answers are of the whole GPU, other programs on it included. A
  GPU that `nvidia-smi` tells nothing about, such as one that is split into
  instances, is left out. Indices are taken for those of `nvidia-smi`, which
  CUDA's are if all GPUs are equal or CUDA_DEVICE_ORDER is PCI_BUS_ID.
  """

  def __init__(self, *, seconds_between_questions: float = 2.0):
    self._seconds_between_questions = seconds_between_questions
    self._uses: Dict[int, _Use] = {}
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._ask, daemon=True)

  def describe(self) -> Optional[str]:
    """A line on all GPUs, by index; None if there are no answers."""
    return '; '.join(
        f'GPU {index} ({use.name}): busy'
        f' {use.percent / use.num_answers:.0f} % of the time, at most'
        f' {use.peak_mebibytes:,} MiB of memory'
        for index, use in sorted(self._uses.items())
    ) or None

  def __enter__(self) -> 'GpuMonitor':
    self._thread.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._stop.set()
    self._thread.join(_STOP_TIMEOUT_SECONDS)

  def _ask(self) -> None:
    """Asks until it is told to stop."""
    chosen = []
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
      chosen = [f'--id={",".join(visible_gpus())}']
    while not self._stop.wait(self._seconds_between_questions):
      for answer in _query(
          'index', 'name', 'utilization.gpu', 'memory.used', options=chosen
      ):
        self._add(*answer)

  def _add(self, index: str, name: str, percent: str, mebibytes: str) -> None:
    """Adds an answer, unless a number in it is missing, as in '[N/A]'."""
    try:
      numbers = [int(text) for text in (index, percent, mebibytes)]
    except ValueError:
      return
    use = self._uses.setdefault(numbers[0], _Use(name))
    use.num_answers += 1
    # Of the last second or less, depending on the model.
    use.percent += numbers[1]
    use.peak_mebibytes = max(use.peak_mebibytes, numbers[2])


def _query(*fields: str, options: Sequence[str] = ()) -> List[List[str]]:
  """The fields, without units, of each GPU of the machine.

  No GPU if `nvidia-smi` is missing, fails or does not answer in time.
  """
  query = f'--query-gpu={",".join(fields)}'
  try:
    output = subprocess.run(
        ['nvidia-smi', query, '--format=csv,noheader,nounits', *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding='utf-8',
        errors='replace',
        timeout=_TIMEOUT_SECONDS,
        check=True,
    ).stdout
  except (OSError, subprocess.SubprocessError):
    return []
  rows = [[v.strip() for v in line.split(',')] for line in output.splitlines()]
  return [row for row in rows if len(row) == len(fields)]
