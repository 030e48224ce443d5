"""What rounds in turns tell: times net of what is not measured, and ratios."""

from typing import Dict, Optional, Sequence

import numpy as np


def summarize(
    seconds: Sequence[float],
    mean_seconds: Sequence[float],
    generation_seconds: Sequence[float],
    num_clients: Optional[int] = None,
) -> Dict[str, float]:
  """The times of a round and their ratio to the mean's.

  Times are net of the generation in the same turn, when the machine was as
  busy. The ratio is of medians, no median of ratios: a pause of the machine
  spoils one turn of one of the two.

  Args:
    seconds: Of a round in each turn.
    mean_seconds: Of a round with the mean in each turn.
    generation_seconds: Of what both contain and is not measured.
    num_clients: N, None if times a client mean nothing.

  Returns:
    `ms` of a round, `ms_per_client` and the ratio `times_mean`, which is left
    out if the mean's time is not above that of the generation.
  """

  def net_ms(seconds):
    return 1000 * float(np.median(np.subtract(seconds, generation_seconds)))

  figures = {'ms': net_ms(seconds)}
  if num_clients is not None:
    figures['ms_per_client'] = figures['ms'] / num_clients
  mean_ms = net_ms(mean_seconds)
  if mean_ms > 0:
    figures['times_mean'] = figures['ms'] / mean_ms
  return figures
