"""The rows of `metrics.csv`, a round each, and what a run comes to."""

from collections.abc import Mapping
import math
import statistics
from typing import Any, Dict, Optional, Sequence

FILE_NAME = 'metrics.csv'

# Of the aggregator's own measurements, those that tell something of each run;
# empty where the aggregator does not measure them.
_AGGREGATOR_MEASUREMENTS = (
    'effective_clients',
    'num_attenuated',
    'num_non_finite',
    'holdout_loss_before',
    'holdout_loss_after',
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
