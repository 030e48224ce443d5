"""Aggregators by name. TensorFlow is imported when one is created.

Rules and wrappers are those of `fedaot.rules`, where a new one is put down.
"""

import dataclasses
import inspect
import re
from typing import (
    Any,
    Callable,
    Dict,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

from fedaot import config as config_lib
from fedaot import rules
from fedaot_tff import named_spec


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
  """How to create an aggregator or to wrap one.

  Attributes:
    create: Makes the factory from an `AggregatorContext`, the factory to wrap
      if it is a wrapper, and the options.
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


# Rules and wrappers by the name of their factory, that of their module.
FACTORIES = {
    make.__module__.rpartition('.')[2] + '_factory': make
    for make in (*rules.RULES.values(), *rules.WRAPPERS.values())
}

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


def _rule(make: Callable[..., rules.Rule], **defaults: Any) -> _Entry:
  """The entry of a rule of `fedaot.rules`."""

  def create(context, **options):
    options = _arguments(make, context, {**defaults, **options})
    if make.needs_root:
      from fedaot_tff.aggregators import holdout_rules

      return holdout_rules.root_factory_of(make)(context.holdout, **options)
    from fedaot_tff.aggregators import rule_factory

    return rule_factory.RuleFactory(make(**options))

  return _Entry(
      create,
      _options(make),
      needs_holdout=make.needs_root,
      check=_check(make, make),
  )


def _wrapper(make: Callable[..., rules.Rule]) -> _Entry:
  """The entry of a wrapper of `fedaot.rules`."""

  def create(context, inner, **options):
    from fedaot_tff.aggregators import rule_factory

    return rule_factory.wrapped_factory_of(make)(
        inner, **_arguments(make, context, options)
    )

  return _Entry(create, _options(make), check=_check(make, make.mixing))


def _holdout_finetuned_mean(context):
  from fedaot_tff.aggregators import holdout_rules

  return holdout_rules.holdout_finetuned_mean_factory(context.holdout)


def _options(make):
  """The options of a rule or wrapper that may be given; it checks them."""
  names = inspect.signature(make).parameters
  return {
      name: lambda _, value: value
      for name in names
      if name not in ('seed', 'inner')
  }


def _arguments(make, context, options):
  """Options, with f and the seed of the context."""
  names = inspect.signature(make).parameters
  known = {'num_byzantine': context.num_byzantine, 'seed': context.seed}
  return {**{k: v for k, v in known.items() if k in names}, **options}


def _check(make, construct):
  """What raises ValueError for options that `construct` does not take."""

  def check(**options):
    try:
      construct(**_arguments(make, AggregatorContext(), options))
    except TypeError as error:
      raise ValueError(str(error)) from None

  return check


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
    **{name: _rule(make) for name, make in rules.RULES.items()},
    # The most updates that the guarantee allows, n - f, unless told otherwise.
    'multi_krum': _rule(rules.krum, num_selected=None),
    'holdout_finetuned_mean': _Entry(
        _holdout_finetuned_mean, needs_holdout=True
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

_WRAPPERS = {name: _wrapper(make) for name, make in rules.WRAPPERS.items()}


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
      wrappers.append(_parse(wrapper_text, 'wrapper', _WRAPPERS))
    if text.partition(':')[0] in _WRAPPERS:
      raise ValueError(
          f'wrapper {text!r} needs an aggregator to wrap, as in {text}+mean'
      )
  spec = _parse(text, 'aggregator', _ENTRIES)
  if wrappers and _ENTRIES[spec.name].discard_attackers:
    raise ValueError(f'aggregator {spec.name!r} cannot be wrapped')
  return Aggregator(spec.name, spec.options, tuple(wrappers))


def _parse(text, kind, entries):
  """Parses and checks a name with options."""
  spec = named_spec.parse(
      text,
      kind=kind,
      known={name: entry.options for name, entry in entries.items()},
  )
  check = entries[spec.name].check
  if check is not None:
    try:
      check(**spec.options)
    except ValueError as error:
      raise ValueError(f'{kind} {spec.name!r}: {error}') from None
  return spec
