"""How many Byzantine clients a rule withstands."""

import abc
import collections
import numbers
from typing import Any, Dict, Tuple, Union

import tensorflow as tf

from fedaot_tff.aggregators import flat_updates


def check_num_byzantine(num_byzantine: Union[int, float]) -> Union[int, float]:
  """Checks a number or a fraction of Byzantine clients.

  Args:
    num_byzantine: An int >= 0, a number of clients, or a float in [0, 1), a
      fraction of the cohort; numbers of NumPy will do.

  Returns:
    `num_byzantine` as an int or a float of Python.

  Raises:
    TypeError: If it is not a number.
    ValueError: If it is out of range.
  """
  if isinstance(num_byzantine, bool) or not isinstance(
      num_byzantine, numbers.Real
  ):
    raise TypeError(
        'Expected `num_byzantine` to be an int (clients) or a float '
        f'(fraction of the cohort), found {num_byzantine!r}.'
    )
  if isinstance(num_byzantine, numbers.Integral):
    if num_byzantine < 0:
      raise ValueError(
          'Expected an int `num_byzantine`, a number of clients, to be 0 or '
          f'more, found {num_byzantine!r}.'
      )
  elif not 0.0 <= num_byzantine < 1.0:
    raise ValueError(
        'Expected a float `num_byzantine`, the fraction of the cohort, to be '
        f'at least 0 and below 1, found {num_byzantine!r}; use an int for a '
        'number of clients.'
    )
  is_number = isinstance(num_byzantine, numbers.Integral)
  return (int if is_number else float)(num_byzantine)


def resolve_num_byzantine(
    num_byzantine: Union[int, float], cohort_size: tf.Tensor
) -> tf.Tensor:
  """Turns a number or a fraction of Byzantine clients into a number.

  Args:
    num_byzantine: An int, the number itself, or a float, a fraction.
    cohort_size: A scalar int32.

  Returns:
    A scalar int32; a fraction of the cohort is rounded down.
  """
  if isinstance(num_byzantine, numbers.Integral):
    return tf.constant(num_byzantine, tf.int32)
  # 0.29 * 100 is a little less than 29 in floating point.
  expected = num_byzantine * tf.cast(cohort_size, tf.float64) + 1e-6
  return tf.cast(tf.floor(expected), tf.int32)


class BoundedFactory(flat_updates.GatheringFactory):
  """Base class of the factories whose rule knows how many are Byzantine."""

  def __init__(self, num_byzantine: Union[int, float]):
    """Initializes `BoundedFactory`.

    Args:
      num_byzantine: f, how many Byzantine clients to withstand: an int >= 0, or
        a float in [0, 1), the fraction of each round's cohort, rounded down.

    Raises:
      TypeError: If `num_byzantine` is not a number.
      ValueError: If `num_byzantine` is out of its range.
    """
    self._num_byzantine = check_num_byzantine(num_byzantine)

  @abc.abstractmethod
  def bounded_rule(
      self,
      updates: tf.Tensor,
      is_finite: tf.Tensor,
      num_byzantine: tf.Tensor,
      *round_number: tf.Tensor,
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Aggregates a table of updates.

    Args:
      updates: See `GatheringFactory.rule`.
      is_finite: See `GatheringFactory.rule`.
      num_byzantine: A scalar int32, f of this round.
      *round_number: See `GatheringFactory.rule`.

    Returns:
      The aggregate, a `[d]` float32 tensor, and the measurements but for those
      that `rule` adds.
    """

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, *round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `bounded_rule`; see `GatheringFactory.rule`.

    Args:
      updates: See `GatheringFactory.rule`.
      is_finite: See `GatheringFactory.rule`.
      *round_number: See `GatheringFactory.rule`.

    Returns:
      The aggregate, a `[d]` float32 tensor, and an `OrderedDict` of
      measurements: those of `bounded_rule`, then `num_byzantine`, int32, f of
      this round, and `num_non_finite`, int32, the number of updates left out.
    """
    num_byzantine = resolve_num_byzantine(
        self._num_byzantine, tf.shape(updates)[0]
    )
    update, measurements = self.bounded_rule(
        updates, is_finite, num_byzantine, *round_number
    )
    return update, collections.OrderedDict(
        measurements,
        num_byzantine=num_byzantine,
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
    )
