"""What is kept of the rounds of a run, and what a run comes to.

`metrics.csv` has a row a round, `weights.csv` one for each client of a round.
"""

from collections.abc import Iterator, Mapping
import math
import pathlib
import statistics
from typing import Any, Dict, List, Optional, Sequence

from binaries import csv_log

FILE_NAME = 'metrics.csv'
WEIGHTS_FILE_NAME = 'weights.csv'

# Of the aggregator's own measurements, those that tell something of each run;
# empty where the aggregator does not measure them.
_AGGREGATOR_MEASUREMENTS = (
    'effective_clients',
    'num_attenuated',
    'num_non_finite',
    'holdout_loss_before',
    'holdout_loss_after',
)
# The standardized statistics of a client.
_STATISTICS = ('z_1', 'z_2', 'z_3', 'z_4')
WEIGHTS_COLUMNS = ('round', 'is_byzantine', 'weight', 'norm', *_STATISTICS)
# Times come last, so that the columns before them can be compared.
COLUMNS = (
    'round',
    'test_accuracy',
    'test_loss',
    'attack_success_rate',
    'model_is_finite',
    'num_attackers',
    'attacker_weight',
    'detection_auroc',
    'honest_mean_norm',
    'honest_mean_distance',
    *_AGGREGATOR_MEASUREMENTS,
    'seconds',
    'evaluation_seconds',
)


class RunLog:
  """Writes each round of a run, or goes on with what is written.

  A release manager as `training.train_rounds` takes them, though not derived
  from TFF's, which takes seconds to import. The first round that is released
  replaces the rows there are of it and of later ones.

  The folder is locked: another process cannot open it for writing, too.

  Attributes:
    rows: The rows of `metrics.csv` from round 1 on, as `make_row` makes them.
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
    self._weights_path = folder / WEIGHTS_FILE_NAME
    self._metrics_log = csv_log.CsvLog(
        folder / FILE_NAME, COLUMNS, keep=keep
    )
    self._weights_log: Optional[csv_log.CsvLog] = None
    self._is_positioned = False
    self.rows: List[Dict[str, Any]] = []
    if not keep:
      self._weights_path.unlink(missing_ok=True)
    for row in self._metrics_log.rows():
      if row['round'] != str(len(self.rows) + 1):
        break
      self.rows.append(parse_row(row))

  async def release(self, value: Any, key: int) -> None:
    """Writes a round.

    Args:
      value: A `fedaot_tff.simulation.training.RoundRecord`.
      key: The round.

    Raises:
      OSError: If it cannot be written.
    """
    if not self._is_positioned:
      self._position(key, value.weights is not None)
    # First the weights, so that a round with metrics is complete.
    if self._weights_log is not None:
      for row in make_client_rows(value):
        self._weights_log.append(row)
    row = make_row(value)
    self._metrics_log.append(row)
    self.rows.append(row)

  def sync(self) -> None:
    """Waits until all rows are on the disk.

    Raises:
      OSError: If they cannot be written.
    """
    for log in self._open_logs():
      log.sync()

  def close(self) -> None:
    """Closes the files, which also gives up the lock."""
    for log in self._open_logs():
      log.close()

  def _open_logs(self) -> List[csv_log.CsvLog]:
    return [log for log in (self._weights_log, self._metrics_log) if log]

  def _position(self, first_round: int, has_weights: bool) -> None:
    """Drops the rows of a round and of all that come after it."""
    if has_weights:
      self._weights_log = csv_log.CsvLog(
          self._weights_path, WEIGHTS_COLUMNS, keep=True
      )
    for log in self._open_logs():
      log.keep_while(lambda row: int(row['round']) < first_round)
    del self.rows[first_round - 1 :]
    self._is_positioned = True


def make_row(record: Any) -> Dict[str, Any]:
  """The row of a round.

  Args:
    record: A `fedaot_tff.simulation.training.RoundRecord`.

  Returns:
    The values of `COLUMNS`; None where there is none. Accuracies, weights and
    areas are fractions of 1, times are in seconds.
  """
  evaluation = record.evaluation or {}
  measurements = record.metrics['aggregator']
  if not isinstance(measurements, Mapping):
    measurements = {}
  return {
      'round': record.round_num,
      'test_accuracy': evaluation.get('accuracy'),
      'test_loss': evaluation.get('loss'),
      'attack_success_rate': evaluation.get('attack_success_rate'),
      'model_is_finite': record.model_is_finite,
      'num_attackers': record.num_attackers,
      'attacker_weight': record.attacker_weight,
      'detection_auroc': record.detection_auroc,
      'honest_mean_norm': float(record.metrics['honest_mean']['norm']),
      'honest_mean_distance': float(record.metrics['honest_mean']['distance']),
      **{name: measurements.get(name) for name in _AGGREGATOR_MEASUREMENTS},
      'seconds': round(record.seconds, 4),
      'evaluation_seconds': round(record.evaluation_seconds, 4),
  }


def parse_row(texts: Mapping[str, str]) -> Dict[str, Any]:
  """What `make_row` returned, from the texts in `metrics.csv` by column."""
  return {name: _parse(text) for name, text in texts.items()}


def make_client_rows(record: Any) -> Iterator[Dict[str, Any]]:
  """The rows of the clients of a round.

  Args:
    record: A `fedaot_tff.simulation.training.RoundRecord` with weights.

  Yields:
    The values of `WEIGHTS_COLUMNS`. `is_byzantine` is 0 or 1; `norm` and the
    standardized statistics `z_1`, ... are FedAOT's and None for others.
  """
  measurements = record.metrics['aggregator']
  norms, z = measurements.get('norms'), measurements.get('z')
  for i, is_byzantine in enumerate(record.is_byzantine):
    yield {
        'round': record.round_num,
        'is_byzantine': int(is_byzantine),
        'weight': record.weights[i],
        'norm': None if norms is None else norms[i],
        **dict.fromkeys(_STATISTICS),
        **dict(zip(_STATISTICS, () if z is None else z[i])),
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
  """What a finished run comes to.

  Args:
    rows: The rows of all rounds, as `make_row` makes them.

  Returns:
    `test_accuracy` and `attack_success_rate` after the last round;
    `attacker_weight` and `detection_auroc`, means over the rounds that have
    them, None if there is none; `relative_deviation`, the median over the
    rounds of the distance of the aggregate from the mean of the honest updates
    over the norm of that mean; and `seconds_per_round`, the median of
    `seconds`.
  """
  return {
      'test_accuracy': rows[-1]['test_accuracy'],
      'attack_success_rate': rows[-1]['attack_success_rate'],
      'attacker_weight': _mean(rows, 'attacker_weight'),
      'detection_auroc': _mean(rows, 'detection_auroc'),
      'relative_deviation': _relative_deviation(rows),
      'seconds_per_round': round(
          statistics.median(row['seconds'] for row in rows), 4
      ),
  }


def _parse(text: str) -> Any:
  if not text:
    return None
  if text in ('True', 'False'):
    return text == 'True'
  try:
    return int(text)
  except ValueError:
    return float(text)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> Optional[float]:
  values = [row[name] for row in rows if row[name] is not None]
  return statistics.fmean(values) if values else None


def _relative_deviation(rows: Sequence[Mapping[str, Any]]) -> Optional[float]:
  # The median, as a model that has diverged has rounds without any scale.
  deviations = [
      row['honest_mean_distance'] / row['honest_mean_norm']
      for row in rows
      if row['honest_mean_norm'] > 0
  ]
  deviation = statistics.median(deviations) if deviations else math.nan
  return deviation if math.isfinite(deviation) else None
