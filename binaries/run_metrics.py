"""What is kept of the rounds of a run, and what a run comes to.

`metrics.csv` has a row a round, `weights.csv` one for each client of a round.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import math
import operator
import pathlib
import statistics
from typing import Any, Dict, List, Optional

from binaries import csv_log

FILE_NAME = 'metrics.csv'
WEIGHTS_FILE_NAME = 'weights.csv'

# The standardized statistics of a client.
_STATISTICS = ('z_1', 'z_2', 'z_3', 'z_4')
WEIGHTS_COLUMNS = ('round', 'is_byzantine', 'weight', 'norm', *_STATISTICS)


def _evaluation(name: str) -> Callable[[Any], Any]:
  return lambda record: (record.evaluation or {}).get(name)


def _measurement(name: str) -> Callable[[Any], Any]:
  """One of the aggregator's own, None where it does not measure it."""

  def value(record):
    measurements = record.metrics['aggregator']
    return measurements.get(name) if isinstance(measurements, Mapping) else None

  return value


def _honest_mean(name: str) -> Callable[[Any], float]:
  return lambda record: float(record.metrics['honest_mean'][name])


def _seconds(name: str) -> Callable[[Any], float]:
  return lambda record: round(getattr(record, name), 4)


# The columns and their values of a `training.RoundRecord`. Accuracies, weights
# and areas are fractions of 1; times come last, so that the columns before them
# can be compared.
_VALUES = {
    'round': operator.attrgetter('round_num'),
    'test_accuracy': _evaluation('accuracy'),
    'test_loss': _evaluation('loss'),
    'attack_success_rate': _evaluation('attack_success_rate'),
    'model_is_finite': operator.attrgetter('model_is_finite'),
    'num_attackers': operator.attrgetter('num_attackers'),
    'attacker_weight': operator.attrgetter('attacker_weight'),
    'detection_auroc': operator.attrgetter('detection_auroc'),
    'honest_mean_norm': _honest_mean('norm'),
    'honest_mean_distance': _honest_mean('distance'),
    'effective_clients': _measurement('effective_clients'),
    'num_attenuated': _measurement('num_attenuated'),
    'num_non_finite': _measurement('num_non_finite'),
    'holdout_loss_before': _measurement('holdout_loss_before'),
    'holdout_loss_after': _measurement('holdout_loss_after'),
    'seconds': _seconds('seconds'),
    'evaluation_seconds': _seconds('evaluation_seconds'),
}
COLUMNS = tuple(_VALUES)


class RunLog:
  """Writes each round of a run, or goes on with what is written.

  A release manager as `training.train_rounds` takes them, though not derived
  from TFF's, which takes seconds to import. The first round that is released
  replaces the rows there are of it and of later ones; before, nothing changes.

  Attributes:
    rows: The rows of `metrics.csv` from round 1 on, as `make_row` makes them.
  """

  def __init__(self, folder: pathlib.Path):
    """Reads `metrics.csv`, if it is there; UserError if it is another's."""
    self._folder = folder
    self._logs: Dict[str, csv_log.CsvLog] = {}
    self.rows: List[Dict[str, Any]] = []
    for row in csv_log.read_rows(folder / FILE_NAME, COLUMNS):
      if row['round'] != str(len(self.rows) + 1):
        break
      self.rows.append(parse_row(row))

  async def release(self, value: Any, key: int) -> None:
    """Writes the `RoundRecord` of a round, `key`."""
    # First the weights, so that a round with metrics is complete.
    if value.weights is not None:
      self._append(
          WEIGHTS_FILE_NAME, WEIGHTS_COLUMNS, make_client_rows(value), key
      )
    row = make_row(value)
    self._append(FILE_NAME, COLUMNS, [row], key)
    self.rows[key - 1 :] = [row]

  def sync(self) -> None:
    """Waits until all rows are on the disk."""
    for log in self._logs.values():
      log.sync()

  def close(self) -> None:
    """Closes the files."""
    for log in self._logs.values():
      log.close()

  def _append(
      self,
      name: str,
      columns: Sequence[str],
      rows: Iterable[Mapping[str, Any]],
      round_num: int,
  ) -> None:
    if name not in self._logs:
      path = self._folder / name
      self._logs[name] = csv_log.CsvLog(path, columns, [
          row
          for row in csv_log.read_rows(path, columns)
          if int(row['round']) < round_num
      ])
    for row in rows:
      self._logs[name].append(row)


def make_row(record: Any) -> Dict[str, Any]:
  """The row of a round: the values of `COLUMNS`, None where there is none."""
  return {name: value(record) for name, value in _VALUES.items()}


def parse_row(texts: Mapping[str, str]) -> Dict[str, Any]:
  """What `make_row` returned, from the texts in `metrics.csv` by column."""
  return {name: _parse(text) for name, text in texts.items()}


def make_client_rows(record: Any) -> Iterator[Dict[str, Any]]:
  """The rows of the clients of a `RoundRecord` with weights.

  `is_byzantine` is 0 or 1; `norm` and the standardized statistics `z_1`, ...
  are FedAOT's and None for others.
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
    Accuracy and success rate after the last round; means over the rounds that
    have them of `attacker_weight` and `detection_auroc`, None if none has;
    medians of `relative_deviation`, the distance of the aggregate from the mean
    of the honest updates over the norm of that mean, and of the seconds.
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
