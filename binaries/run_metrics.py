"""What is kept of the rounds of a run, and what a run comes to.

`metrics.csv` has a row a round, `weights.csv` one for each client of a round.
"""

from collections.abc import Iterator, Mapping
import math
import statistics
from typing import Any, Dict, Optional, Sequence

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
# The name of a column and of the aggregator's measurement [N] that it holds.
_CLIENT_MEASUREMENTS = {'norm': 'norms'}
# The number of columns for the statistics of a client, z_1 and so on.
_MAX_STATISTICS = 4
WEIGHTS_COLUMNS = (
    'round',
    'is_byzantine',
    'weight',
    *_CLIENT_MEASUREMENTS,
    *(f'z_{k}' for k in range(1, _MAX_STATISTICS + 1)),
)
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
  """The row that a line of `metrics.csv` was written from.

  Args:
    texts: The text by the column's name.

  Returns:
    What `make_row` returned.
  """
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
  statistics_of_all = measurements.get('z')
  for i, is_byzantine in enumerate(record.is_byzantine):
    row = dict.fromkeys(WEIGHTS_COLUMNS)
    row.update(
        round=record.round_num,
        is_byzantine=int(is_byzantine),
        weight=record.weights[i],
    )
    for column, name in _CLIENT_MEASUREMENTS.items():
      if name in measurements:
        row[column] = measurements[name][i]
    if statistics_of_all is not None:
      for k, z in enumerate(statistics_of_all[i][:_MAX_STATISTICS], start=1):
        row[f'z_{k}'] = z
    yield row


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
