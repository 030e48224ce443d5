"""A round's finite updates, as rules see them."""

import functools
import itertools
import math
from typing import Any, Dict, Optional, Sequence

from fedaot.rules import blocks
from fedaot.rules import geometry

# An update with a larger entry counts as non-finite: squared norms of what is
# left stay far from the largest float32 for up to 1e8 coordinates.
MAX_FINITE_MAGNITUDE = 1e15


class Cohort:
  """The finite updates of a round, n rows of which no copy is made.

  Where no update is finite, `stand_in` is the only one. A wrapper's matrix
  makes another cohort of this one, whose rows are sums of these (`mixed`).

  Attributes:
    xp: The namespace.
    size: n.
    num_empty: The clients that have nothing to say; int64.
    num_clients: N, the others, finite or not; int64.
    num_finite: n, or 0 where `stand_in` is the only one.
    dimension: d, an int.
    tensors: The shape of each tensor that an update is made of, and the column
      where it begins.
    round_num: The number of the round, from 0.
  """

  def __init__(
      self,
      table: Any,
      is_finite: Any,
      xp: Any,
      *,
      is_empty: Optional[Any] = None,
      round_num: Any = 0,
      reference: Optional[Any] = None,
      stand_in: Optional[Any] = None,
      shapes: Optional[Sequence[Sequence[int]]] = None,
  ):
    """Initializes `Cohort`.

    Args:
      table: One update a row, with static d.
      is_finite: Bool, a client each; see `is_finite_row`.
      xp: The namespace.
      is_empty: Bool, the clients whose update did not happen; None for none.
      round_num: The number of the round.
      reference: A vector `[d]` that a rule compares updates with: the last
        aggregate, or the server's own update. None for zero.
      stand_in: A vector `[d]`, what the aggregate is to be if no update is
        finite. None for zero.
      shapes: The shapes of the tensors that an update is made of, in order.
        None for a single vector.

    Raises:
      ValueError: If the shapes have not d entries.
    """
    self.xp = xp
    self.dimension = table.shape[1]
    shapes = [tuple(s) for s in shapes or [(self.dimension,)]]
    *begins, end = itertools.accumulate(map(math.prod, shapes), initial=0)
    if end != self.dimension:
      raise ValueError(
          f'shapes must have {self.dimension} entries in all; found {end}.'
      )
    self.tensors = tuple(zip(shapes, begins))
    self.round_num = round_num
    self.num_empty, is_used = 0 * xp.size(table), is_finite
    if is_empty is not None:
      self.num_empty = xp.sum(xp.asarray(is_empty, dtype=xp.int64))
      is_used = is_finite & ~is_empty
    self._is_used = is_used
    self.num_clients = xp.size(table) - self.num_empty
    self.num_finite = xp.sum(xp.asarray(is_used, dtype=xp.int64))
    zero = xp.zeros([self.dimension], dtype=table.dtype)
    self._reference = zero if reference is None else reference
    stand_in = zero if stand_in is None else stand_in
    some = self.num_finite > 0
    self._table = xp.cond(some, lambda: table, lambda: stand_in[None])
    self._rows = xp.cond(
        some,
        lambda: xp.nonzero(is_used)[0],
        lambda: xp.zeros([1], dtype=xp.int64),
    )
    self.size = xp.maximum(self.num_finite, 1)
    self._matrix = None

  def block(self, start: Any, width: int) -> Any:
    """The rows' entries from `start` on, `[n, width]`."""
    columns = self._table[:, start : start + width]
    return self._mix(self.xp.take(columns, self._rows, axis=0))

  def columns(self, indices: Any) -> Any:
    """The rows' entries at some coordinates, `[n, b]`."""
    columns = self.xp.take(self._table, indices, axis=1)
    return self._mix(self.xp.take(columns, self._rows, axis=0))

  def weighted_sum(self, coefficients: Any, of_reference: Any) -> Any:
    """The sum of rows and reference, each times its coefficient, `[d]`."""
    xp = self.xp
    # Rows of no weight are not even read.
    used = xp.nonzero(coefficients)[0]
    factors = xp.take(coefficients, used, axis=0)[None]
    rows = xp.take(self._rows, used, axis=0)

    def entries(start, width):
      block = xp.take(self._table[:, start : start + width], rows, axis=0)
      block = xp.asarray(block, dtype=xp.float64)
      reference = self._reference[start : start + width]
      reference = xp.asarray(reference, dtype=xp.float64)
      return xp.matmul(factors, block)[0] + of_reference * reference

    return blocks.concatenate(entries, self.dimension, self._table.dtype, xp)

  def combined(self, combine: Any) -> Any:
    """The entries that `rule.Decision.combine` makes of columns, `[d]`."""

    def part(combine, begin, size):
      def entries(start, width):
        return combine(self.block(begin + start, width))

      return blocks.concatenate(entries, size, self._table.dtype, self.xp)

    if callable(combine):
      return part(combine, 0, self.dimension)
    parts = [
        part(of_tensor, begin, math.prod(shape))
        for of_tensor, (shape, begin) in zip(combine, self.tensors)
        if 0 not in shape
    ]
    return self.xp.concatenate(parts, axis=0)

  @functools.cached_property
  def _products(self):
    """Inner products about some point of the rows, zero and the reference."""
    return geometry.centered_products(
        self.block,
        lambda start, width: self._reference[start : start + width],
        self.size,
        self.dimension,
        self.xp,
    )

  @property
  def products(self) -> Any:
    """Inner products of rows about zero or a point amid them, `[n, n]`."""
    return self._products[:-2, :-2]

  @functools.cached_property
  def squared_distances(self) -> Any:
    """Squared distances of every two rows, `[n, n]` float64."""
    return geometry.squared_distances(self.products, self.xp)

  @functools.cached_property
  def norms(self) -> Any:
    """The rows' norms, `[n]` float64."""
    squares = geometry.squared_distances(self._products, self.xp)
    return self.xp.sqrt(squares[:-2, -2])

  @functools.cached_property
  def products_about_zero(self) -> Any:
    """Inner products of rows and, last, the reference, `[n + 1, n + 1]`."""
    xp, products = self.xp, self._products
    to_zero = products[-2]
    about_zero = products - (to_zero[:, None] + to_zero) + to_zero[-2]
    keep = xp.concatenate([xp.arange(self.size), [self.size + 1]], axis=0)
    return xp.take(xp.take(about_zero, keep, axis=0), keep, axis=1)

  @functools.cached_property
  def products_about_reference(self) -> Any:
    """Inner products of the rows' differences to the reference, `[n, n]`."""
    to_reference = self._products[-1]
    about = self._products - (to_reference[:, None] + to_reference)
    return (about + to_reference[-1])[:-2, :-2]

  def noise(self, multiplier: float, unit: Any, seed: int) -> Any:
    """Normal numbers of deviation `multiplier * unit`, `[d]`; None for zero."""
    if not multiplier:
      return None
    xp = self.xp
    draw = xp.normal((seed, self.round_num, 0), self.dimension)
    return multiplier * unit * xp.asarray(draw, dtype=xp.float64)

  def of_clients(self, values: Any) -> Any:
    """A value for each client, zero or False for those left out."""
    xp, is_used = self.xp, self._is_used
    places = xp.cumsum(xp.asarray(is_used, dtype=xp.int64)) - 1
    values = xp.take(values, xp.maximum(places, 0), axis=0)
    return xp.where(is_used, values, xp.zeros_like(values))

  def counts(self) -> Dict[str, Any]:
    """The measurements of who was left out."""
    return {
        'num_non_finite': self.num_clients - self.num_finite,
        'num_empty': self.num_empty,
    }

  def clients_of(self, values: Any) -> Any:
    """Of a value for each client those of the rows."""
    return self.xp.take(values, self.xp.nonzero(self._is_used)[0], axis=0)

  def mixed(self, matrix: Any) -> 'Cohort':
    """The cohort of the rows `matrix [m, n] @ rows`, same clients."""
    xp, cohort = self.xp, Cohort.__new__(Cohort)
    cohort.__dict__.update(
        (name, value)
        for name, value in self.__dict__.items()
        if name not in ('norms', 'squared_distances', '_products')
        and not name.startswith('products_about')
    )
    cohort.size = xp.size(matrix)
    cohort._matrix = (
        matrix if self._matrix is None else xp.matmul(matrix, self._matrix)
    )
    # Rows that sum to 1 keep what the products are taken about; what is
    # lacking of 1 is the share of zero.
    share_of_zero = 1.0 - xp.sum(matrix, axis=1)
    zeros = xp.zeros_like(share_of_zero)
    top = xp.concatenate(
        [matrix, xp.stack([share_of_zero, zeros], axis=1)], axis=1
    )
    bottom = xp.concatenate([xp.zeros([2, self.size]), xp.eye(2)], axis=1)
    extended = xp.concatenate([top, bottom], axis=0)
    products = xp.matmul(extended, self._products)
    cohort.__dict__['_products'] = geometry.symmetric(
        xp.matmul(products, xp.transpose(extended)), xp
    )
    return cohort

  def _mix(self, rows):
    if self._matrix is None:
      return rows
    rows = self.xp.asarray(rows, dtype=self.xp.float64)
    return self.xp.matmul(self._matrix, rows)


def is_finite_row(table: Any, xp: Any) -> Any:
  """Bool `[N]`: all entries are finite and below `MAX_FINITE_MAGNITUDE`."""
  # Half precision has no such number: what is finite is below infinity.
  has_limit = MAX_FINITE_MAGNITUDE < float(xp.finfo(table.dtype).max)
  limit = MAX_FINITE_MAGNITUDE if has_limit else xp.inf

  def add(is_finite, start, width):
    # A comparison with NaN is false, so that NaN is not finite either.
    is_small = xp.abs(table[:, start : start + width]) < limit
    return is_finite & xp.all(is_small, axis=1)

  finite = xp.ones([xp.size(table)], dtype=bool)
  return blocks.fold(add, finite, table.shape[1], xp)
