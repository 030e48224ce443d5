"""Aggregators by name. TensorFlow is imported when one is created."""

import dataclasses
import importlib
import re
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple
from typing import Union

from fedaot_tff import named_spec
from fedaot import config as config_lib


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


class _Wrapper(NamedTuple):
  """How to wrap an aggregator.

  Attributes:
    create: Makes the factory from an `AggregatorContext`, the factory to wrap
      and the options.
    options: The options and their parsers.
  """

  create: Callable[..., Any]
  options: Mapping[str, named_spec.Parser] = {}


# Stands for all names in a list.
_ALL = 'all'


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


def _rule(
    module_name: str,
    *,
    takes_num_byzantine: bool = False,
    takes_holdout: bool = False,
    takes_seed: bool = False,
) -> Callable[..., Any]:
  """What creates the rule of a module, by its function `<module>_factory`."""

  def create(context, *inner, **options):
    module = importlib.import_module(f'{__package__}.{module_name}')
    arguments = list(inner)
    if takes_holdout:
      arguments.append(context.holdout)
    if takes_num_byzantine:
      arguments.append(options.pop('num_byzantine', context.num_byzantine))
    if takes_seed:
      options['seed'] = context.seed
    return getattr(module, f'{module_name}_factory')(*arguments, **options)

  return create


def _fedaot(context, **constants):
  from fedaot_tff.aggregators import fedaot

  return fedaot.fedaot_factory(
      context.holdout,
      config=config_lib.FedAOTConfig(**constants),
      seed=context.seed,
  )


def _fedaot_no_holdout(context, **constants):
  return _fedaot(context._replace(holdout=None), **constants)


def _frozen(create):
  """FedAOT that keeps its initial weighting: what learning adds to it."""
  return lambda context, **constants: create(
      context, meta_learning_rate=0, **constants
  )


def _multi_krum(context, *inner, **options):
  """Krum that averages n - f updates unless told otherwise."""
  options.setdefault('num_selected', None)
  return _rule('krum', takes_num_byzantine=True)(context, *inner, **options)


_NUM_BYZANTINE = {'num_byzantine': named_spec.parse_count_or_fraction}
_KRUM_OPTIONS = {
    **_NUM_BYZANTINE,
    'num_selected': named_spec.parse_positive_int,
    'neighbors': named_spec.choice_parser('published', 'byzfl'),
}

# The constants of FedAOT that are single numbers.
_CONSTANTS = {
    field.name: (
        named_spec.parse_int
        if isinstance(field.default, int)
        else named_spec.parse_number
    )
    for field in dataclasses.fields(config_lib.FedAOTConfig)
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
    'coordinate_median': _Entry(_rule('coordinate_median')),
    'trimmed_mean': _Entry(
        _rule('trimmed_mean', takes_num_byzantine=True), _NUM_BYZANTINE
    ),
    'krum': _Entry(_rule('krum', takes_num_byzantine=True), _KRUM_OPTIONS),
    'multi_krum': _Entry(_multi_krum, _KRUM_OPTIONS),
    'bulyan': _Entry(_rule('bulyan', takes_num_byzantine=True), _NUM_BYZANTINE),
    'geometric_median': _Entry(
        _rule('geometric_median'),
        {
            'smoothing': named_spec.parse_positive_number,
            'tolerance': named_spec.parse_positive_number,
            'max_iterations': named_spec.parse_positive_int,
        },
    ),
    'centered_clipping': _Entry(
        _rule('centered_clipping'),
        {
            'clipping_radius': named_spec.parse_positive_number,
            'num_iterations': named_spec.parse_positive_int,
        },
    ),
    'minimum_diameter_averaging': _Entry(
        _rule('minimum_diameter_averaging', takes_num_byzantine=True),
        _NUM_BYZANTINE,
    ),
    'dnc': _Entry(
        _rule('divide_and_conquer', takes_num_byzantine=True, takes_seed=True),
        {
            **_NUM_BYZANTINE,
            'num_iterations': named_spec.parse_positive_int,
            'num_sampled': named_spec.parse_positive_int,
            'filter_fraction': named_spec.parse_positive_number,
        },
    ),
    'sign_guard': _Entry(
        _rule('sign_guard', takes_seed=True),
        {
            'lower': named_spec.parse_number,
            'upper': named_spec.parse_positive_number,
            'coordinate_fraction': named_spec.parse_positive_number,
        },
    ),
    'foolsgold': _Entry(
        _rule('foolsgold'), {'confidence': named_spec.parse_positive_number}
    ),
    'flame': _Entry(
        _rule('flame', takes_seed=True),
        {'noise_multiplier': named_spec.parse_number},
    ),
    'fltrust': _Entry(
        _rule('fltrust', takes_holdout=True), needs_holdout=True
    ),
    'holdout_finetuned_mean': _Entry(
        _rule('holdout_finetuned_mean', takes_holdout=True), needs_holdout=True
    ),
    'fedaot': _Entry(
        _fedaot,
        _CONSTANTS,
        needs_holdout=True,
        check=config_lib.FedAOTConfig,
    ),
    'fedaot_no_holdout': _Entry(
        _fedaot_no_holdout, _CONSTANTS, check=config_lib.FedAOTConfig
    ),
    'fedaot_frozen': _Entry(
        _frozen(_fedaot),
        _FROZEN_CONSTANTS,
        needs_holdout=True,
        check=config_lib.FedAOTConfig,
    ),
    'fedaot_no_holdout_frozen': _Entry(
        _frozen(_fedaot_no_holdout),
        _FROZEN_CONSTANTS,
        check=config_lib.FedAOTConfig,
    ),
    'oracle': _Entry(_oracle, discard_attackers=True),
}

_WRAPPERS = {
    'nnm': _Wrapper(
        _rule('nearest_neighbor_mixing', takes_num_byzantine=True),
        _NUM_BYZANTINE,
    ),
    'bucketing': _Wrapper(
        _rule('bucketing', takes_seed=True),
        {'bucket_size': named_spec.parse_positive_int},
    ),
    'median_norm_bounding': _Wrapper(_rule('median_norm_bounding')),
    'arc': _Wrapper(
        _rule('adaptive_clipping', takes_num_byzantine=True), _NUM_BYZANTINE
    ),
}


@dataclasses.dataclass(frozen=True)
class Aggregator:
  """An aggregator of the registry, with options; see `get_aggregator`.

  Attributes:
    name: Its name in the registry, without options and wrappers.
    options: The options that were given.
    wrappers: Names and options of the wrappers around it, the outer ones first.
  """

  name: str
  options: Dict[str, Any]
  wrappers: Tuple[named_spec.NamedSpec, ...] = ()

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
          f'aggregator {self.name!r} needs a hold-out; give the context one'
      )
    factory = _ENTRIES[self.name].create(context, **self.options)
    for name, options in reversed(self.wrappers):
      factory = _WRAPPERS[name].create(context, factory, **options)
    return factory


def aggregator_names() -> Tuple[str, ...]:
  """The names of the known aggregators, without wrappers."""
  return tuple(_ENTRIES)


def wrapper_names() -> Tuple[str, ...]:
  """The names of the known wrappers."""
  return tuple(_WRAPPERS)


def split_list(text: str) -> Tuple[str, ...]:
  """Splits comma-separated aggregators, with or without options.

  Args:
    text: What `get_aggregator` takes, with commas in between; `all` stands for
      all `aggregator_names`.

  Returns:
    An aggregator each, not looked up yet.
  """
  aggregators = []
  for spec in named_spec.split_list(text):
    aggregators.extend(_ENTRIES if spec == _ALL else [spec])
  return tuple(aggregators)


def get_aggregator(text: str) -> Aggregator:
  """Looks an aggregator up. Imports no TensorFlow.

  Args:
    text: A name, or `name:key=value,key=value`, after any number of wrappers of
      the same form, as in `nnm:num_byzantine=3+krum:num_selected=2`. The first
      wrapper sees the updates first.

  Returns:
    An `Aggregator`.

  Raises:
    TypeError: If `text` is not a string.
    ValueError: If name, key or value is not known, or the aggregator cannot be
      wrapped; one line.
  """
  wrappers = []
  if isinstance(text, str):
    # Not the plus sign of a number such as 1e+5.
    *outer, text = re.split(r'\+(?!\d)', text)
    for wrapper_text in outer:
      wrappers.append(
          named_spec.parse(
              wrapper_text,
              kind='wrapper',
              known={name: w.options for name, w in _WRAPPERS.items()},
          )
      )
    if text.partition(':')[0] in _WRAPPERS:
      raise ValueError(
          f'wrapper {text!r} needs an aggregator to wrap, as in {text}+mean'
      )
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
  if wrappers and _ENTRIES[spec.name].discard_attackers:
    raise ValueError(f'aggregator {spec.name!r} cannot be wrapped')
  return Aggregator(spec.name, spec.options, tuple(wrappers))
