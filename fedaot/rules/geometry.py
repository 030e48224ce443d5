"""Inner products of updates, and what follows from them."""

from typing import Any, Callable, Optional

from fedaot.rules import blocks

# Where the squared distances that count are below this share of the squared
# norms, products about zero would lose more than four of float64's 16 digits.
_WELL_SPREAD = 1e-4


def inner_products(
    read: Callable[[Any, int], Any],
    num_rows: Any,
    dimension: int,
    xp: Any,
    center: Optional[Any] = None,
) -> Any:
  """Inner products of rows about zero, or about one of them.

  Args:
    read: Takes start and width of a block and returns its columns, `[n, b]`.
    num_rows: n.
    dimension: The number of columns.
    xp: The namespace.
    center: The index of a row, `[1]`.

  Returns:
    A symmetric float64 `[n, n]` table.
  """

  def add(products, start, width):
    block = xp.asarray(read(start, width), dtype=xp.float64)
    if center is not None:
      block = block - xp.take(block, center, axis=0)
    return products + xp.matmul(block, xp.transpose(block))

  products = blocks.fold(add, xp.zeros([num_rows, num_rows]), dimension, xp)
  # Rounding must not tell a pair from the same pair the other way round.
  return 0.5 * (products + xp.transpose(products))


def centered_products(
    read: Callable[[Any, int], Any], num_updates: Any, num_rows: Any,
    dimension: int, xp: Any,
) -> Any:
  """Inner products about a point that far rows and offsets cannot spoil.

  About zero an offset that updates share costs the digits that tell them
  apart; then a second pass takes the products about the update in the midst of
  the others. One in the middle of a majority is not far from an honest one,
  and a far row spoils its own products only.

  Args:
    read: See `inner_products`.
    num_updates: How many rows, from the first, are updates.
    num_rows: See `inner_products`.
    dimension: See `inner_products`.
    xp: The namespace.

  Returns:
    A float64 `[num_rows, num_rows]` table of products about some point.
  """
  products = inner_products(read, num_rows, dimension, xp)
  among = squared_distances(products[:num_updates, :num_updates], xp)
  medians = xp.sort(among, axis=1)[:, num_updates // 2]
  center = xp.reshape(xp.argmin(medians), [1])
  spread = xp.take(medians, center, axis=0)[0]
  squared_norm = xp.take(xp.diagonal(products), center, axis=0)[0]
  return xp.cond(
      spread < _WELL_SPREAD * squared_norm,
      lambda: inner_products(read, num_rows, dimension, xp, center),
      lambda: products,
  )


def squared_distances(products: Any, xp: Any) -> Any:
  """Squared distances of every pair, `[n, n]`, from inner products."""
  squares = xp.diagonal(products)
  return xp.maximum(squares[:, None] + squares - 2.0 * products, 0.0)


def median(values: Any, xp: Any) -> Any:
  """The median of a vector, the midpoint of the middle two if it is even."""
  ordered, num = xp.sort(values), xp.size(values)
  return 0.5 * (ordered[(num - 1) // 2] + ordered[num // 2])


def divide(numerator: Any, denominator: Any, xp: Any) -> Any:
  """The quotient; 0 where the denominator is 0."""
  is_zero = xp.equal(denominator, 0.0)
  return xp.where(is_zero, 0.0, numerator / xp.where(is_zero, 1.0, denominator))


def is_first(scores: Any, number: Any, xp: Any) -> Any:
  """Whether a score is one of the `number` smallest; earlier wins a tie."""
  ranks = xp.argsort(xp.argsort(scores, kind='stable'), kind='stable')
  return ranks < number


def mean_of(is_selected: Any, xp: Any) -> Any:
  """The coefficients of the mean of some rows; zero if there are none."""
  selected = xp.asarray(is_selected, dtype=xp.float64)
  return selected / xp.maximum(xp.sum(selected), 1.0)


def clipping_scales(norms: Any, bound: Any, xp: Any) -> Any:
  """What scales rows down to a norm, 1 for those that are no longer."""
  return xp.where(norms > bound, divide(bound, norms, xp), 1.0)


def cosines(cohort: Any) -> Any:
  """Cosines of every two rows, `[n, n]`; 1 for copies, 0 with a zero row."""
  xp, products = cohort.xp, cohort.products_about_zero[:-1, :-1]
  lengths = xp.sqrt(xp.maximum(xp.diagonal(products), 0.0))
  result = divide(products, lengths[:, None] * lengths, xp)
  # Rounding must not tell copies apart.
  return xp.where(result > 1.0 - 1e-12, 1.0, xp.maximum(result, -1.0))
