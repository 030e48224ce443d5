"""Rules without weights in learning processes that weight their clients."""

import tensorflow_federated as tff


def accept_weights(
    factory: tff.aggregators.UnweightedAggregationFactory, weighted: bool
) -> tff.aggregators.AggregationFactory:
  """Makes a factory accept weights, which it ignores.

  Clients report their weights themselves, so that a Byzantine client could
  claim any.

  Args:
    factory: The factory of a rule without weights.
    weighted: Whether processes that weight their clients are to take it.

  Returns:
    A `tff.aggregators.WeightedAggregationFactory` if `weighted`, otherwise
    `factory`.

  Raises:
    TypeError: If `weighted` is not a bool.
  """
  if not isinstance(weighted, bool):
    raise TypeError(f'Expected `weighted` to be a bool, found {weighted!r}.')
  if weighted:
    return tff.aggregators.as_weighted_aggregator(factory)
  return factory
