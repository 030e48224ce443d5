"""Releases rounds to the log."""

import tensorflow_federated as tff

from fedaot_tff.simulation import round_summary
from fedaot_tff.simulation import training


class LoggingReleaseManager(tff.program.ReleaseManager):
  """Logs the scalars of each round with `tff.program.LoggingReleaseManager`.

  That is at level INFO, which programs on absl show with `--v=0` or above.
  """

  def __init__(self):
    self._manager = tff.program.LoggingReleaseManager()

  async def release(self, value: training.RoundRecord, key: int) -> None:
    """Logs `round_summary.scalars` of the round `key`."""
    await self._manager.release(round_summary.scalars(value), key)
