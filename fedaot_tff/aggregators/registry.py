"""Aggregators by name. TensorFlow is imported when one is created."""

import dataclasses
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple
from typing import Union

from fedaot_tff import named_spec
from fedaot_tff.aggregators import fedaot_config


class AggregatorContext(NamedTuple):
  """What an aggregator may need to know of an experiment.

  Attributes:
    holdout: The `fedaot_tff.aggregators.holdout.HoldOut`, None if there is
      none.
    num_byzantine: The attackers that a cohort may hold: a number of clients
      (int) or a fraction of the cohort (float).
    seed: Fixes the random choices of the aggregator; nonnegative.
  """

  holdout: Optional[Any] = None
  num_byzantine: Union[int, float] = 0
  seed: int = 0


class _Entry(NamedTuple):
  """How to create an aggregator.

  Attributes:
    create: Makes the factory from an `AggregatorContext` and the options.
    options: The options and their parsers.
    needs_holdout: See `Aggregator`.
    discard_attackers: See `Aggregator`.
    check: Takes the options and raises ValueError if they make no sense;
      imports no TensorFlow. None if the parsers see to that.
  """

  create: Callable[..., Any]
  options: Mapping[str, named_spec.Parser] = {}
  needs_holdout: bool = False
  discard_attackers: bool = False
  check: Optional[Callable[..., Any]] = None


def _mean(context):
  del context
  import tensorflow_federated as tff

  return tff.aggregators.MeanFactory()


def _oracle(context):
  del context
  import tensorflow_federated as tff

  # Attackers have no weight; a cohort of nothing else has a zero sum.
  return tff.aggregators.MeanFactory(no_nan_division=True)


def _tff_robust(context):
  del context
  import tensorflow_federated as tff

  return tff.learning.robust_aggregator()


def _coordinate_median(context):
  del context
  from fedaot_tff.aggregators import coordinate_median

  return coordinate_median.coordinate_median_factory()


def _krum(context, num_byzantine=None, **options):
  from fedaot_tff.aggregators import krum

  if num_byzantine is None:
    num_byzantine = context.num_byzantine
  return krum.krum_factory(num_byzantine, **options)


def _fedaot(context, **constants):
  from fedaot_tff.aggregators import fedaot

  return fedaot.fedaot_factory(
      context.holdout,
      config=fedaot_config.FedAOTConfig(**constants),
      seed=context.seed,
  )


def _fedaot_no_holdout(context, **constants):
  return _fedaot(context._replace(holdout=None), **constants)


def _frozen(create):
  """FedAOT that keeps its initial weighting: what learning adds to it."""
  return lambda context, **constants: create(
      context, meta_learning_rate=0, **constants
  )


# The constants of FedAOT that are single numbers.
_CONSTANTS = {
    field.name: (
        named_spec.parse_int
        if isinstance(field.default, int)
        else named_spec.parse_number
    )
    for field in dataclasses.fields(fedaot_config.FedAOTConfig)
    if not isinstance(field.default, tuple)
}
_FROZEN_CONSTANTS = {
    name: parser
    for name, parser in _CONSTANTS.items()
    if name != 'meta_learning_rate'
}

_ENTRIES = {
    'mean': _Entry(_mean),
    'tff_robust': _Entry(_tff_robust),
    'coordinate_median': _Entry(_coordinate_median),
    'krum': _Entry(
        _krum,
        {
            'num_byzantine': named_spec.parse_count_or_fraction,
            'num_selected': named_spec.parse_positive_int,
            'neighbors': named_spec.choice_parser('published', 'byzfl'),
        },
    ),
    'fedaot': _Entry(
        _fedaot,
        _CONSTANTS,
        needs_holdout=True,
        check=fedaot_config.FedAOTConfig,
    ),
    'fedaot_no_holdout': _Entry(
        _fedaot_no_holdout, _CONSTANTS, check=fedaot_config.FedAOTConfig
    ),
    'fedaot_frozen': _Entry(
        _frozen(_fedaot),
        _FROZEN_CONSTANTS,
        needs_holdout=True,
        check=fedaot_config.FedAOTConfig,
    ),
    'fedaot_no_holdout_frozen': _Entry(
        _frozen(_fedaot_no_holdout),
        _FROZEN_CONSTANTS,
        check=fedaot_config.FedAOTConfig,
    ),
    'oracle': _Entry(_oracle, discard_attackers=True),
}


@dataclasses.dataclass(frozen=True)
class Aggregator:
  """An aggregator of the registry, with options; see `get_aggregator`.

  Attributes:
    name: Its name in the registry, without options.
    options: The options that were given.
  """

  name: str
  options: Dict[str, Any]

  @property
  def needs_holdout(self) -> bool:
    """Whether `create` needs a hold-out."""
    return _ENTRIES[self.name].needs_holdout

  @property
  def discard_attackers(self) -> bool:
    """Whether `build_attacked_fed_avg` must discard the attackers."""
    return _ENTRIES[self.name].discard_attackers

  def create(self, context: AggregatorContext) -> Any:
    """Creates the aggregator.

    Args:
      context: What it may need to know of the experiment.

    Returns:
      A `tff.aggregators.AggregationFactory`.

    Raises:
      ValueError: If it needs a hold-out and there is none.
    """
    if self.needs_holdout and context.holdout is None:
      raise ValueError(
          f'aggregator {self.name!r} needs a hold-out; give one or use'
          " 'fedaot_no_holdout'"
      )
    return _ENTRIES[self.name].create(context, **self.options)


def aggregator_names() -> Tuple[str, ...]:
  """The names of the known aggregators."""
  return tuple(_ENTRIES)


def get_aggregator(text: str) -> Aggregator:
  """Looks an aggregator up. Imports no TensorFlow.

  Args:
    text: A name, or `name:key=value,key=value`.

  Returns:
    An `Aggregator`.

  Raises:
    TypeError: If `text` is not a string.
    ValueError: If name, key or value is not known; one line.
  """
  spec = named_spec.parse(
      text,
      kind='aggregator',
      known={name: entry.options for name, entry in _ENTRIES.items()},
  )
  check = _ENTRIES[spec.name].check
  if check is not None:
    try:
      check(**spec.options)
    except ValueError as error:
      raise ValueError(f'aggregator {spec.name!r}: {error}') from None
  return Aggregator(spec.name, spec.options)
