"""The CSV files of a run: `metrics.csv` and, with weights, `weights.csv`."""

import pathlib
from typing import Any, Dict, List, Optional

from binaries import csv_log
from binaries import run_metrics


class RunLog:
  """Writes each round of a run, or goes on with what is written.

  A release manager as `training.train_rounds` takes them, though not derived
  from TFF's, which takes seconds to import. The first round that is released
  replaces the rows there are of it and of later ones.

  The folder is locked: another process cannot open it for writing, too.
  """

  def __init__(self, folder: pathlib.Path, *, keep: bool):
    """Opens `metrics.csv`, which is made if there is none.

    Args:
      folder: The folder of the run.
      keep: Whether to keep what is written, or to begin anew.

    Raises:
      UserError: If the file cannot be written, another process writes it, or it
        is to be kept but has other columns.
    """
    self._weights_path = folder / run_metrics.WEIGHTS_FILE_NAME
    self._metrics_log = csv_log.CsvLog(
        folder / run_metrics.FILE_NAME, run_metrics.COLUMNS, keep=keep
    )
    self._weights_log: Optional[csv_log.CsvLog] = None
    self._is_positioned = False
    self._rows = []
    if not keep:
      self._weights_path.unlink(missing_ok=True)
    for row in self._metrics_log.rows():
      if row['round'] != str(len(self._rows) + 1):
        break
      self._rows.append(run_metrics.parse_row(row))

  @property
  def rows(self) -> List[Dict[str, Any]]:
    """The rows of `metrics.csv` from round 1 on, as `make_row` makes them."""
    return list(self._rows)

  async def release(self, value: Any, key: int) -> None:
    """Writes a round.

    Args:
      value: A `fedaot_tff.simulation.training.RoundRecord`.
      key: The round.

    Raises:
      OSError: If it cannot be written.
    """
    if not self._is_positioned:
      self._drop_from(key)
      self._is_positioned = True
    # First the weights, so that a round with metrics is complete.
    if value.weights is not None:
      if self._weights_log is None:
        self._open_weights(keep=False)
      for row in run_metrics.make_client_rows(value):
        self._weights_log.append(row)
    row = run_metrics.make_row(value)
    self._metrics_log.append(row)
    self._rows.append(row)

  def sync(self) -> None:
    """Waits until all rows are on the disk.

    Raises:
      OSError: If they cannot be written.
    """
    for log in (self._weights_log, self._metrics_log):
      if log is not None:
        log.sync()

  def close(self) -> None:
    """Closes the files, which also gives up the lock."""
    if self._weights_log is not None:
      self._weights_log.close()
    self._metrics_log.close()

  def __enter__(self) -> 'RunLog':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _drop_from(self, first_round: int) -> None:
    """Drops the rows of a round and of all that come after it."""

    def is_before(row):
      return int(row['round']) < first_round

    del self._rows[first_round - 1 :]
    self._metrics_log.keep_while(is_before)
    if self._weights_path.exists():
      self._open_weights(keep=True)
      self._weights_log.keep_while(is_before)

  def _open_weights(self, *, keep: bool) -> None:
    self._weights_log = csv_log.CsvLog(
        self._weights_path, run_metrics.WEIGHTS_COLUMNS, keep=keep
    )
