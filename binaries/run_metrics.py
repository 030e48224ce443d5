"""What is kept of the rounds of a run, and what a run comes to.

`metrics.csv` has a row a round, `weights.csv` one for each client of a round.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import functools
import math
import pathlib
import statistics
from typing import Any, Dict, Optional

from binaries import application
from binaries import csv_log

FILE_NAME = 'metrics.csv'
WEIGHTS_FILE_NAME = 'weights.csv'

# The standardized statistics of a client.
_STATISTICS = ('z_1', 'z_2', 'z_3', 'z_4')
WEIGHTS_COLUMNS = ('round', 'is_byzantine', 'weight', 'norm', *_STATISTICS)

# The columns, and where a `training.RoundRecord` has their values. Accuracies,
# weights and areas are fractions of 1; times come last, so that the columns
# before them can be compared.
_PATHS = {
    'round': 'round_num',
    'test_accuracy': 'evaluation.accuracy',
    'test_loss': 'evaluation.loss',
    'attack_success_rate': 'evaluation.attack_success_rate',
    'model_is_finite': 'model_is_finite',
    'num_attackers': 'num_attackers',
    'attacker_weight': 'attacker_weight',
    'detection_auroc': 'detection_auroc',
    'honest_mean_norm': 'metrics.honest_mean.norm',
    'honest_mean_distance': 'metrics.honest_mean.distance',
    'effective_clients': 'metrics.aggregator.effective_clients',
    'num_attenuated': 'metrics.aggregator.num_attenuated',
    'num_non_finite': 'metrics.aggregator.num_non_finite',
    'num_empty': 'metrics.aggregator.num_empty',
    'holdout_loss_before': 'metrics.aggregator.holdout_loss_before',
    'holdout_loss_after': 'metrics.aggregator.holdout_loss_after',
    'seconds': 'seconds',
    'evaluation_seconds': 'evaluation_seconds',
}
COLUMNS = tuple(_PATHS)


class RunLog:
  """Writes each round of a run, or goes on with what is written.

  A release manager as `training.train_rounds` takes them, though not derived
  from TFF's, which takes seconds to import. The first round that is released
  replaces the rows there are of it and of later ones; before, nothing changes.
  `rows` are those of `metrics.csv` from round 1 on, as `make_row` makes them.
  """

  def __init__(
      self,
      folder: pathlib.Path,
      settings: Mapping[str, Any],
      earlier: Optional[Mapping[str, Any]] = None,
  ):
    """Reads what a run with the settings `earlier`, None for unknown, left.

    UserError if it is another's or damaged. If they are not `settings`, the run
    may only be begun anew.
    """
    self._folder, self._settings = folder, settings
    self._logs: Dict[str, csv_log.CsvLog] = {}
    self.rows, weights = (
        csv_log.read_rows(folder / name, columns, _parse_row, settings=earlier)
        for name, columns in (
            (FILE_NAME, COLUMNS),
            (WEIGHTS_FILE_NAME, WEIGHTS_COLUMNS),
        )
    )
    # A power failure can cost the last rounds their weights.
    del self.rows[_num_weighed(self.rows, weights, folder) :]

  async def release(self, value: Any, key: int) -> None:
    """Writes the `RoundRecord` of a round, `key`."""
    # First the weights, so that a round with metrics is complete.
    if value.weights is not None:
      clients = make_client_rows(value)
      self._append(WEIGHTS_FILE_NAME, WEIGHTS_COLUMNS, clients, key)
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

  def _append(self, name: str, columns: Sequence[str], rows, round_num: int):
    if name not in self._logs:
      path = self._folder / name
      earlier = csv_log.read_rows(path, columns)
      earlier = [row for row in earlier if int(row['round']) < round_num]
      self._logs[name] = csv_log.CsvLog(path, columns, self._settings, earlier)
    for row in rows:
      self._logs[name].append(row)


def make_row(record: Any) -> Dict[str, Any]:
  """The row of a round: the values of `COLUMNS`, None where there is none."""
  row = {
      name: functools.reduce(_look_up, path.split('.'), record)
      for name, path in _PATHS.items()
  }
  times = {n: round(row[n], 4) for n in ('seconds', 'evaluation_seconds')}
  return {**row, **times}


def make_client_rows(record: Any) -> Iterator[Dict[str, Any]]:
  """The rows of the clients of a `RoundRecord` with weights.

  Norm and standardized statistics are FedAOT's and None for others.
  """
  nothing = [None] * len(record.weights)
  found = {'norms': nothing, 'z': nothing, **record.metrics['aggregator']}
  for is_byzantine, weight, norm, z in zip(
      record.is_byzantine, record.weights, found['norms'], found['z']
  ):
    yield {
        'round': record.round_num,
        'is_byzantine': int(is_byzantine),
        'weight': weight,
        'norm': norm,
        **dict.fromkeys(_STATISTICS),
        **dict(zip(_STATISTICS, () if z is None else z)),
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
  """What a finished run comes to, of the rows of all its rounds.

  Accuracy and success rate are those after the last round, weights and AUROC
  means over the rounds that have them, and the others medians;
  `relative_deviation` is the distance of the aggregate from the mean of the
  honest updates over the norm of that mean.
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


def _look_up(holder: Any, name: str) -> Any:
  """A value as Python's own kind; None where there is none."""
  if isinstance(holder, Mapping):
    value = holder.get(name)
  else:
    value = getattr(holder, name, None)
  return value.item() if hasattr(value, 'item') else value


def _num_weighed(
    rows: Sequence[Mapping[str, Any]],
    weights: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
) -> int:
  """The number of rounds before the first that lacks weights it should have.

  UserError if there are none at all.
  """
  sizes = collections.Counter(row['round'] for row in weights)
  size = max(sizes.values(), default=1)
  for row in rows:
    if row['attacker_weight'] is not None and sizes[row['round']] != size:
      if not sizes:
        raise application.UserError(
            f'{folder / WEIGHTS_FILE_NAME} lacks all rows; restore them, or'
            f' remove {FILE_NAME} beside it to begin anew.'
        )
      return row['round'] - 1
  return len(rows)


def _parse_row(texts: Mapping[str, str]) -> Dict[str, Any]:
  return {name: _parse(text) for name, text in texts.items()}


def _parse(text: str) -> Any:
  if text in ('', 'True', 'False'):
    return {'': None, 'True': True, 'False': False}[text]
  try:
    return int(text)
  except ValueError:
    return float(text)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> Optional[float]:
  values = [row[name] for row in rows if row[name] is not None]
  return statistics.fmean(values) if values else None


def _relative_deviation(rows: Sequence[Mapping[str, Any]]) -> Optional[float]:
  # The median, as a model that has diverged has rounds without any scale.
  deviation = statistics.median(
      [
          row['honest_mean_distance'] / row['honest_mean_norm']
          for row in rows
          if row['honest_mean_norm'] > 0
      ]
      or [math.nan]
  )
  return deviation if math.isfinite(deviation) else None
