"""Inner products of updates, and what follows from them."""

from typing import Any, Callable

from fedaot.rules import blocks

# Where the squared distances that count are below this share of the squared
# norms, products about zero would lose more than four of float64's 16 digits.
_WELL_SPREAD = 1e-4
# Norms that differ by a smaller share are the same but for rounding, in float32
# as well: of a cohort that was clipped to one norm none is counted as longer.
_SAME_NORM = 1e-6
# The same for sums of squares in float64.
_SAME_SCORE = 1e-9


def inner_products(
    read: Callable[[Any, int], Any], num_rows: Any, dimension: int, xp: Any
) -> Any:
  """Inner products of rows about zero.

  Args:
    read: Takes start and width of a block and returns its columns, `[n, b]`.
    num_rows: n.
    dimension: The number of columns.
    xp: The namespace.

  Returns:
    A symmetric float64 `[n, n]` table.
  """

  def add(products, start, width):
    block = xp.asarray(read(start, width), dtype=xp.float64)
    return products + xp.matmul(block, xp.transpose(block))

  return symmetric(
      blocks.fold(add, xp.zeros([num_rows, num_rows]), dimension, xp), xp
  )


def symmetric(products, xp):
  """Rounding must not tell a pair from the same pair the other way round."""
  return 0.5 * (products + xp.transpose(products))


def centered_products(
    read: Callable[[Any, int], Any],
    read_reference: Callable[[Any, int], Any],
    num_rows: Any,
    dimension: int,
    xp: Any,
) -> Any:
  """Inner products about a point that far rows and offsets cannot spoil.

  About zero an offset that rows share costs the digits that tell them apart;
  then a second pass takes the products about the row in the midst of the
  others. One in the middle of a majority is not far from an honest one, and a
  far row spoils its own products only.

  Args:
    read: See `inner_products`.
    read_reference: As `read`, for a further vector.
    num_rows: n.
    dimension: See `inner_products`.
    xp: The namespace.

  Returns:
    A symmetric float64 `[n + 2, n + 2]` table: of the rows, zero and the
    further vector, about some point.
  """

  def about(center):
    def add(products, start, width):
      rows = xp.asarray(read(start, width), dtype=xp.float64)
      reference = xp.asarray(read_reference(start, width), dtype=xp.float64)
      extra = xp.stack([xp.zeros_like(reference), reference], axis=0)
      if center is not None:
        point = xp.take(rows, center, axis=0)
        rows, extra = rows - point, extra - point
      among, further = products
      # One large product, and a thin one: rows and extra are not put together.
      return (
          among + xp.matmul(rows, xp.transpose(rows)),
          further
          + xp.concatenate(
              [
                  xp.matmul(rows, xp.transpose(extra)),
                  xp.matmul(extra, xp.transpose(extra)),
              ],
              axis=0,
          ),
      )

    among, further = blocks.fold(
        add,
        (xp.zeros([num_rows, num_rows]), xp.zeros([num_rows + 2, 2])),
        dimension,
        xp,
    )
    top = xp.concatenate([symmetric(among, xp), further[:num_rows]], axis=1)
    return xp.concatenate([top, xp.transpose(further)], axis=0)

  products = about(None)
  among = squared_distances(products[:num_rows, :num_rows], xp)
  medians = xp.sort(among, axis=1)[:, num_rows // 2]
  center = xp.reshape(xp.argmin(medians), [1])
  spread = xp.take(medians, center, axis=0)[0]
  squared_norm = xp.take(xp.diagonal(products), center, axis=0)[0]
  return xp.cond(
      spread < _WELL_SPREAD * squared_norm,
      lambda: about(center),
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
  """Whether a score >= 0 is one of the `number` >= 1 smallest of its row.

  Scores that are equal but for rounding tie, and the earlier wins.
  """
  place = xp.minimum(number, xp.size(scores)) - 1
  last = xp.take(xp.sort(scores, axis=-1), xp.reshape(place, [1]), axis=-1)
  # Infinite scores are not close to the last, but equal to it.
  below = scores < (1.0 - _SAME_SCORE) * last
  tied = ~below & (scores <= (1.0 + _SAME_SCORE) * last)
  num_left = number - xp.sum(
      xp.asarray(below, xp.int64), axis=-1, keepdims=True
  )
  rank = xp.cumsum(xp.asarray(tied, xp.int64), axis=-1)
  return below | (tied & (rank <= num_left))


def mean_of(is_selected: Any, xp: Any) -> Any:
  """The coefficients of the mean of some rows; zero if there are none."""
  selected = xp.asarray(is_selected, dtype=xp.float64)
  return selected / xp.maximum(xp.sum(selected), 1.0)


def clipping_scales(norms: Any, bound: Any, xp: Any) -> Any:
  """What scales rows down to a norm, 1 for those that are no longer."""
  return xp.where(norms > bound, divide(bound, norms, xp), 1.0)


def is_at_most(norms: Any, bound: Any) -> Any:
  """Whether norms are not above a bound, but for rounding."""
  return norms <= (1.0 + _SAME_NORM) * bound


def cosines(cohort: Any) -> Any:
  """Cosines of every two rows, `[n, n]`; 1 for copies, 0 with a zero row."""
  xp, products = cohort.xp, cohort.products_about_zero[:-1, :-1]
  lengths = xp.sqrt(xp.maximum(xp.diagonal(products), 0.0))
  result = divide(products, lengths[:, None] * lengths, xp)
  # Rounding must not tell copies apart.
  return xp.where(result > 1.0 - 1e-12, 1.0, xp.maximum(result, -1.0))
