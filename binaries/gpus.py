"""What `nvidia-smi` says about the GPUs: which there are, how busy they are."""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
import statistics
import subprocess
import threading
from typing import Dict, List, Tuple

_SECONDS_BETWEEN_QUESTIONS = 2.0
_TIMEOUT_SECONDS = 10.0
# How long the end of a run waits for an answer.
_STOP_TIMEOUT_SECONDS = 1.0

# Percents busy and MiB of memory in the answers, by index and name.
_Answers = Dict[Tuple[int, str], List[Tuple[int, int]]]


def visible_gpus() -> List[str]:
  """What CUDA_VISIBLE_DEVICES lists, or would if it listed every GPU."""
  listed = os.environ.get('CUDA_VISIBLE_DEVICES')
  if listed is None:
    return [uuid for (uuid,) in _query('uuid') if uuid.startswith('GPU-')]
  return [name.strip() for name in listed.split(',') if name.strip()]


@contextlib.contextmanager
def monitored(tell: Callable[[str], None]) -> Iterator[None]:
  """Tells at the end, in a line, how busy the visible GPUs were meanwhile.

  A thread asks `nvidia-smi`; it neither delays the run nor fails it. Answers
  are of the whole GPU, other programs on it included. A GPU that it tells
  nothing about, as of one that is split into instances, is left out. Indices
  are taken for CUDA's, which they are if all GPUs are equal or
  CUDA_DEVICE_ORDER is PCI_BUS_ID.
  """
  answers: _Answers = collections.defaultdict(list)
  stop = threading.Event()
  thread = threading.Thread(target=_ask, args=(answers, stop), daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join(_STOP_TIMEOUT_SECONDS)
    if answers:
      tell('; '.join(_describe(*gpu, a) for gpu, a in sorted(answers.items())))


def _ask(answers: _Answers, stop: threading.Event) -> None:
  is_limited = 'CUDA_VISIBLE_DEVICES' in os.environ
  chosen = [f'--id={",".join(visible_gpus())}'] if is_limited else []
  while not stop.wait(_SECONDS_BETWEEN_QUESTIONS):
    for index, name, busy, memory in _query(
        'index', 'name', 'utilization.gpu', 'memory.used', options=chosen
    ):
      # A number may be missing, as in '[N/A]'.
      if index.isdigit() and busy.isdigit() and memory.isdigit():
        answers[int(index), name].append((int(busy), int(memory)))


def _describe(index: int, name: str, answers: List[Tuple[int, int]]) -> str:
  # Of the last second or less each, depending on the model.
  busy, memory = zip(*answers)
  return (
      f'GPU {index} ({name}): busy {statistics.fmean(busy):.0f} % of the time,'
      f' at most {max(memory):,} MiB of memory'
  )


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
