"""Rules and wrappers: options and plumbing around their mathematics."""

import functools
import inspect
from typing import (
    Any,
    Callable,
    Dict,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fedaot import checks
from fedaot import namespace
from fedaot.rules import cohort as cohort_lib

# A check takes the name of an option and its value and returns the value.
Check = Callable[[str, Any], Any]
Combine = Callable[[Any], Any]


class Decision(NamedTuple):
  """What a rule decides: coefficients of the rows, or what to make of columns.

  Attributes:
    coefficients: Float64 `[n]`: the aggregate is the sum of the rows, each
      times its coefficient. None if there is `combine`.
    combine: Takes a block of columns `[n, b]` and returns the aggregate's
      entries `[b]`. Or a list of such functions, one for each tensor.
    reference_coefficient: What the reference counts in the sum.
    noise: Added to the aggregate, `[d]`; None for nothing.
    measurements: Scalars by name.
    row_measurements: Vectors `[n]` by name.
  """

  coefficients: Any = None
  combine: Union[None, Combine, Sequence[Combine]] = None
  reference_coefficient: Any = 0.0
  noise: Any = None
  measurements: Mapping[str, Any] = {}
  row_measurements: Mapping[str, Any] = {}


class Rule:
  """An aggregation rule with its options; made by functions of `fedaot.rules`.

  Called with updates, one a row, it returns their aggregate.

  Attributes:
    num_byzantine: f, a number (int) or a fraction of the clients (float); None
      for rules that are not told.
    is_random: Whether rounds draw random numbers: `round_num` counts.
    remembers: Whether the reference is the aggregate of the round before.
    needs_root: Whether the reference is the server's own update; there must be
      one.
  """

  def __init__(self, make: Any, options: Mapping[str, Any]):
    # What a module has under its name, unlike what it wraps: it can be pickled.
    self._make = make
    self._options = dict(options)
    self.num_byzantine = options.get('num_byzantine')
    self.is_random = 'seed' in options
    self.remembers = make.remembers
    self.needs_root = make.needs_root

  def __repr__(self):
    options = ', '.join(f'{k}={v!r}' for k, v in self._options.items())
    return f'{self._make.__name__}({options})'

  def __call__(
      self,
      updates: Union[np.ndarray, Sequence[np.ndarray]],
      **kwargs: Any,
  ) -> np.ndarray:
    """The aggregate alone, `[d]`; arguments as of `measure`."""
    return self.measure(updates, **kwargs)[0]

  def measure(
      self,
      updates: Union[np.ndarray, Sequence[np.ndarray]],
      *,
      num_examples: Optional[Sequence[float]] = None,
      round_num: int = 0,
      reference: Optional[np.ndarray] = None,
      shapes: Optional[Sequence[Sequence[int]]] = None,
  ) -> Tuple[np.ndarray, Dict[str, Any]]:
    """Aggregates arrays and tells how.

    Args:
      updates: One client's update a row: an array `[N, d]` of floats, or a
        sequence of N vectors of d floats.
      num_examples: `[N]`, what each client trained on: one without a positive
        count has nothing to say. None if all have.
      round_num: The number of the round, which random rules draw for.
      reference: A vector `[d]`: the last aggregate for rules that remember it,
        None for zero; the server's own update for those that need one.
      shapes: The shapes of the tensors that updates are made of, in order, for
        rules that look at tensors; None for a single vector.

    Returns:
      The aggregate, `[d]` in the dtype of the updates, and measurements by
      name, as the rule describes them.

    Raises:
      TypeError: If the updates are not floats.
      ValueError: If a shape is wrong, or a reference is missing.
    """
    xp, table = namespace.NUMPY, _as_table(updates)
    if reference is not None:
      reference = np.asarray(reference, dtype=table.dtype)
      if reference.shape != table.shape[1:]:
        raise ValueError(
            f'reference must have the shape {table.shape[1:]} of an update;'
            f' found {reference.shape}.'
        )
    is_empty = None
    if num_examples is not None:
      is_empty = ~(np.asarray(num_examples, float) > 0)
      if is_empty.shape != table.shape[:1]:
        raise ValueError(
            f'num_examples must have an entry for each of {len(table)} updates;'
            f' found the shape {is_empty.shape}.'
        )
    return self.aggregate(
        table,
        cohort_lib.is_finite_row(table, xp),
        xp,
        is_empty=is_empty,
        round_num=round_num,
        reference=reference,
        shapes=shapes,
    )

  def aggregate(
      self,
      table: Any,
      is_finite: Any,
      xp: Any,
      *,
      is_empty: Optional[Any] = None,
      round_num: Any = 0,
      reference: Optional[Any] = None,
      shapes: Optional[Sequence[Sequence[int]]] = None,
  ) -> Tuple[Any, Dict[str, Any]]:
    """As `measure`, on any namespace; see `cohort.Cohort` for arguments."""
    if reference is None and self.needs_root:
      raise ValueError(
          f"reference must be given: the server's own update, for {self}."
      )
    cohort = cohort_lib.Cohort(
        table,
        is_finite,
        xp,
        is_empty=is_empty,
        round_num=round_num,
        reference=reference,
        stand_in=reference if self.remembers else None,
        shapes=shapes,
    )
    decision = self.decide(cohort)
    if decision.combine is None:
      update = cohort.weighted_sum(
          decision.coefficients, decision.reference_coefficient
      )
    else:
      update = cohort.combined(decision.combine)
    if decision.noise is not None:
      update = update + xp.asarray(decision.noise, dtype=table.dtype)
    # Where nobody had anything to say, the model stays as it is: no memory,
    # root update or noise moves it.
    update = xp.where(cohort.num_clients > 0, update, xp.zeros_like(update))
    measurements = dict(decision.measurements)
    rows = dict(decision.row_measurements)
    if decision.coefficients is not None:
      rows['weights'] = decision.coefficients
    for name, values in rows.items():
      measurements[name] = cohort.of_clients(values)
    return update, {**measurements, **cohort.counts()}

  def decide(self, cohort: cohort_lib.Cohort) -> Decision:
    """What the rule makes of a cohort."""
    options, measured = _resolved(self._options, cohort)
    decision = self._make.__wrapped__(cohort, **options)
    return decision._replace(measurements={**measured, **decision.measurements})


class Mixing:
  """What a wrapper does with its options; made by functions of `fedaot.rules`.

  Attributes:
    is_random: See `Rule`.
  """

  def __init__(self, make: Any, options: Mapping[str, Any]):
    self._make = make
    self._options = options
    self.is_random = 'seed' in options

  def __repr__(self):
    options = ''.join(f', {k}={v!r}' for k, v in self._options.items())
    return f'{self._make.__name__}({{}}{options})'

  def matrix(self, cohort: cohort_lib.Cohort) -> Tuple[Any, Dict[str, Any]]:
    """The matrix `[m, n]` by which rows are mixed, and measurements."""
    options, measured = _resolved(self._options, cohort)
    matrix, measurements = self._make.__wrapped__(cohort, **options)
    return matrix, {**measured, **measurements}


class WrappedRule(Rule):
  """A rule that sees sums of the updates instead of the updates."""

  def __init__(self, mixing: Mixing, inner: Rule):
    self._mixing = mixing
    self._inner = inner
    self.num_byzantine = inner.num_byzantine
    self.is_random = mixing.is_random or inner.is_random
    self.remembers = inner.remembers
    self.needs_root = inner.needs_root

  def __repr__(self):
    return repr(self._mixing).format(self._inner)

  def decide(self, cohort: cohort_lib.Cohort) -> Decision:
    """What the inner rule makes of the mixed cohort."""
    matrix, measurements = self._mixing.matrix(cohort)
    inner, xp = self._inner.decide(cohort.mixed(matrix)), cohort.xp
    measurements['inner'] = {**inner.measurements, **inner.row_measurements}
    if inner.coefficients is not None:
      inner = inner._replace(
          coefficients=xp.matmul(inner.coefficients[None], matrix)[0]
      )
    else:

      def mixed(combine):
        return lambda block: combine(
            xp.matmul(matrix, xp.asarray(block, dtype=xp.float64))
        )

      inner = inner._replace(
          combine=mixed(inner.combine)
          if callable(inner.combine)
          else [mixed(combine) for combine in inner.combine or ()]
      )
    return inner._replace(measurements=measurements, row_measurements={})


def rule(
    *,
    remembers: bool = False,
    needs_root: bool = False,
    **option_checks: Check,
) -> Callable[..., Any]:
  """Makes a function of a cohort and options one that returns a `Rule`.

  Args:
    remembers: See `Rule`; the result has it as an attribute, too.
    needs_root: Likewise.
    **option_checks: A check for each option but for `num_byzantine` and `seed`.

  Returns:
    A decorator of a function that takes a `Cohort` and options and returns a
    `Decision`. `num_byzantine` arrives as a number of clients. The function's
    docstring is that of the result, which takes the options only.
  """

  def decorate(function):
    @functools.wraps(function)
    def make(*arguments, **options):
      options = _checked(make.__signature__, option_checks, arguments, options)
      return Rule(make, options)

    make.__signature__ = _without_first(function)
    make.remembers, make.needs_root = remembers, needs_root
    return make

  return decorate


def wrapper(**option_checks: Check) -> Callable[..., Any]:
  """Makes a function of a cohort and options one that wraps a `Rule`.

  Args:
    **option_checks: See `rule`.

  Returns:
    A decorator of a function that takes a `Cohort` and options and returns a
    matrix `[m, n]` and measurements; the inner rule sees `matrix @ updates`.
    Its `num_byzantine` is by default that of the inner rule. An attribute
    `mixing` of the result makes the `Mixing` of options, without a rule.
  """

  def decorate(function):
    signature = _without_first(function)

    def mixing(*arguments, **options):
      return Mixing(
          make, _checked(signature, option_checks, arguments, options)
      )

    @functools.wraps(function)
    def make(inner, *arguments, **options):
      if not isinstance(inner, Rule):
        raise TypeError(
            f'{function.__name__} wraps a rule of fedaot.rules, as in'
            f' {function.__name__}(krum(2)); found {inner!r}.'
        )
      if 'num_byzantine' in signature.parameters and not arguments:
        known = inner.num_byzantine
        if known is not None:
          options = {'num_byzantine': known, **options}
      return WrappedRule(mixing(*arguments, **options), inner)

    make.mixing, make.needs_root = mixing, False
    make.__signature__ = signature.replace(
        parameters=[
            inspect.Parameter('inner', inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *signature.parameters.values(),
        ]
    )
    return make

  return decorate


def optional(check: Check) -> Check:
  """A check that lets None pass."""
  return lambda name, value: None if value is None else check(name, value)


def _without_first(function):
  signature = inspect.signature(function)
  return signature.replace(parameters=list(signature.parameters.values())[1:])


def _checked(signature, option_checks, arguments, options):
  bound = signature.bind(*arguments, **options)
  bound.apply_defaults()
  general = {
      'num_byzantine': lambda name, value: checks.check_num_byzantine(value),
      'seed': lambda name, value: checks.check_seed(value),
  }
  return {
      name: {**general, **option_checks}[name](name, value)
      for name, value in bound.arguments.items()
  }


def _resolved(options, cohort):
  """Options with f as a number of clients, and that as a measurement."""
  num_byzantine = options.get('num_byzantine')
  if num_byzantine is None:
    return options, {}
  xp = cohort.xp
  if isinstance(num_byzantine, float):
    # 0.29 * 100 is a little less than 29 in floating point.
    # Attackers need not be among those who have nothing to say.
    num_clients = cohort.num_clients + cohort.num_empty
    expected = num_byzantine * xp.asarray(num_clients, xp.float64) + 1e-6
    num_byzantine = xp.asarray(xp.floor(expected), xp.int64)
  num_byzantine = xp.asarray(num_byzantine, xp.int64)
  return {**options, 'num_byzantine': num_byzantine}, {
      'num_byzantine': num_byzantine
  }


def _as_table(updates):
  """Checks updates and stacks them, `[N, d]`."""
  if not isinstance(updates, np.ndarray):
    rows = [np.asarray(row) for row in updates]
    shapes = sorted({row.shape for row in rows})
    if len(shapes) != 1:
      raise ValueError(
          'updates must be vectors of one length; found '
          f'{f"the shapes {shapes}" if shapes else "none"}.'
      )
    updates = np.stack(rows)
  if updates.ndim != 2 or updates.shape[1] == 0:
    raise ValueError(
        'updates must be [clients, coordinates], with a coordinate at least;'
        f' found the shape {updates.shape}.'
    )
  if not np.issubdtype(updates.dtype, np.floating):
    raise TypeError(f'updates must be floats; found {updates.dtype}.')
  return updates
