"""Client updates as flat vectors, and rules on a table of such vectors."""

import abc
import collections
import numbers
import secrets
from typing import Any, Callable, Dict, Optional, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import row_gather

# An update with a larger entry counts as non-finite: squared norms of what is
# left stay far from the largest float32 for up to 1e8 coordinates.
MAX_FINITE_MAGNITUDE = 1e15

_FLOAT_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)

# Takes updates `[N, d]` float32 and finite `[N]` bool, and returns a vector
# `[d]` float32 and an `OrderedDict` of measurements. A rule that counts rounds
# takes the number of the round, a scalar int64, as well.
Rule = Callable[..., Tuple[tf.Tensor, Dict[str, Any]]]


def flatten(struct: Any) -> tf.Tensor:
  """Casts and concatenates the tensors of a structure.

  Args:
    struct: A tensor or a nested structure of float tensors, with d coordinates
      in all.

  Returns:
    A `[d]` float32 tensor, in the order of `tf.nest.flatten`. Values beyond the
    range of float32 become infinite.
  """
  return tf.concat(
      [
          tf.reshape(tf.cast(tensor, tf.float32), [-1])
          for tensor in tf.nest.flatten(struct)
      ],
      axis=0,
  )


def unflatten(vector: tf.Tensor, like: Any) -> Any:
  """Splits a vector into a structure of tensors, the inverse of `flatten`.

  Args:
    vector: A `[d]` tensor.
    like: A tensor, a `tf.TensorSpec`, or a nested structure of them, with
      static shapes that have d coordinates in all.

  Returns:
    A structure like `like`; each tensor has the shape and dtype it has there.
  """
  specs = tf.nest.flatten(like)
  parts = tf.split(vector, [spec.shape.num_elements() for spec in specs])
  tensors = [
      tf.cast(tf.reshape(part, spec.shape), spec.dtype)
      for part, spec in zip(parts, specs)
  ]
  return tf.nest.pack_sequence_as(like, tensors)


def is_finite_update(flat: tf.Tensor) -> tf.Tensor:
  """Tells whether an update can take part in an aggregate.

  Args:
    flat: A `[d]` float32 tensor.

  Returns:
    A scalar bool: all entries are finite and of magnitude below
    `MAX_FINITE_MAGNITUDE` (1e15).
  """
  # A comparison with NaN is false, so that NaN is not finite either.
  return tf.reduce_all(tf.abs(flat) < MAX_FINITE_MAGNITUDE)


def fingerprint(flat: tf.Tensor, seed: int) -> tf.Tensor:
  """Keyed 64-bit hash by which a client finds its row in a table.

  Multilinear hashing modulo 2^64: different rows collide with a probability of
  at most 2^-33 whatever they are, as long as the seed is secret.

  Args:
    flat: A `[d]` float32 tensor.
    seed: See `check_seed`.

  Returns:
    A scalar int64.
  """
  factors = tf.random.stateless_uniform(
      [flat.shape[0]], [seed, 0], None, None, tf.int64, alg='philox'
  )
  bits = tf.cast(tf.bitcast(flat, tf.int32), tf.int64)
  return tf.reduce_sum(factors * bits)


def median_norm(norms: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes the median of the norms of the finite updates.

  Args:
    norms: A `[N]` float32 tensor.
    is_finite: A `[N]` bool tensor; the other norms may hold anything.

  Returns:
    A scalar float32: the midpoint of the two middle norms if their number is
    even, 0 if there are none.
  """
  ordered = tf.sort(tf.boolean_mask(norms, is_finite))
  # The appended zero is what an empty list has in the middle.
  num_finite = tf.size(ordered)
  ordered = tf.pad(ordered, [[0, 1]])
  lower = ordered[tf.maximum(num_finite - 1, 0) // 2]
  return 0.5 * (lower + ordered[num_finite // 2])


def clipped_mean(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    norms: tf.Tensor,
    bound: tf.Tensor,
    is_selected: tf.Tensor,
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Averages the selected updates, each scaled down to a norm if it is longer.

  Args:
    updates: A `[N, d]` float32 tensor.
    is_finite: A `[N]` bool tensor; the other rows may hold anything.
    norms: A `[N]` float32 tensor, the norms of the finite updates.
    bound: A scalar float32, the largest norm that is left as it is.
    is_selected: A `[N]` bool tensor, true for finite updates only.

  Returns:
    The mean, a `[d]` float32 tensor, zero if no update is selected; and the
    weights `[N]` float32: one over the number of selected updates for those.
  """
  selected = tf.cast(is_selected, tf.float32)
  weights = tf.math.divide_no_nan(selected, tf.reduce_sum(selected))
  factors = tf.where(
      norms > bound, tf.math.divide_no_nan(bound, norms), tf.ones_like(norms)
  )
  # Where NaN is not selected, it must not come in by its norm either.
  scales = tf.where(is_selected, weights * factors, 0.0)
  mean = means_of_rows(updates, is_finite, scales[tf.newaxis])[0]
  return mean * tf.reduce_sum(scales), weights


def means_of_rows(
    updates: tf.Tensor, is_finite: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
  """Averages rows of a table by a matrix product.

  A row i of the result is sum_j counts[i, j] x_j / sum_j counts[i, j], zero if
  no update counts. While it is computed, memory holds a second table and the
  result.

  Args:
    updates: A `[N, d]` float32 tensor.
    is_finite: A `[N]` bool tensor; the other rows may hold anything.
    counts: A `[M, N]` float32 tensor, how often each update counts; zero for
      those that are not finite.

  Returns:
    A `[M, d]` float32 tensor.
  """
  # A count of zero would not keep NaN out of the products.
  finite_updates = tf.where(is_finite[:, tf.newaxis], updates, 0.0)
  return tf.math.divide_no_nan(
      tf.matmul(counts, finite_updates),
      tf.reduce_sum(counts, axis=1, keepdims=True),
  )


def weights_before_means(weights: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
  """Turns weights of `means_of_rows` into weights of the updates themselves.

  Args:
    weights: A `[M]` float32 tensor, the weights of the means.
    counts: A `[M, N]` float32 tensor, as given to `means_of_rows`.

  Returns:
    A `[N]` float32 tensor.
  """
  shares = tf.math.divide_no_nan(weights, tf.reduce_sum(counts, axis=1))
  return tf.linalg.matvec(counts, shares, transpose_a=True)


def check_seed(seed: Optional[int]) -> int:
  """Checks the seed of a rule that draws random numbers.

  Args:
    seed: A nonnegative int below 2^63, or None to draw one at random.

  Returns:
    A seed.

  Raises:
    TypeError: If `seed` is of another kind.
    ValueError: If it is out of range.
  """
  if seed is None:
    return secrets.randbits(63)
  if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
    raise TypeError(f'Expected `seed` to be an int or None, found {seed!r}.')
  if not 0 <= seed < 2**63:
    raise ValueError(f'Expected `seed` to be in [0, 2^63), found {seed!r}.')
  return int(seed)


def check_float_value_type(value_type: tff.Type) -> None:
  """Checks that a type is one of float tensors that can be flattened.

  Args:
    value_type: An unplaced `tff.Type`.

  Raises:
    TypeError: If `value_type` is not a tensor or a possibly nested Python
      container of tensors of static shape and dtype float16, bfloat16, float32
      or float64, or has no coordinate at all.
  """
  row_gather.check_structure_of_tensors(value_type)
  for spec in tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type)):
    if spec.dtype not in _FLOAT_DTYPES:
      raise TypeError(
          'Expected tensors of dtype float16, bfloat16, float32 or float64, '
          f'found {spec} in {value_type.compact_representation()}; cast it.'
      )
  if num_coordinates(value_type) == 0:
    raise TypeError(
        'Expected at least one coordinate, found '
        f'{value_type.compact_representation()}.'
    )


def num_coordinates(value_type: tff.Type) -> int:
  """Returns d, the number of scalars in a structure of static shapes."""
  specs = tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type))
  return sum(spec.shape.num_elements() for spec in specs)


def create_gathering_process(
    value_type: tff.Type, rule: Rule, *, counts_rounds: bool = False
) -> tff.templates.AggregationProcess:
  """Creates an unweighted process from a rule on flat updates.

  Each client's update is flattened and gathered once, so that the server holds
  a table of `4 * N * d` bytes, and about four times that while it is filled
  (see `row_gather.federated_gather`). TFF's native executor frees the values of
  a call late: over several rounds with N = 100 and d = 1e6 the worker's peak
  was 17 times `4 * N * d` bytes, where that of a plain mean was 3.4 times.

  Args:
    value_type: The unplaced type of one client's update: a structure of float
      tensors (see `check_float_value_type`).
    rule: Called as `rule(updates, is_finite)` with updates `[N, d]` float32 and
      `is_finite` `[N]` bool from `is_finite_update`; a row that is not finite
      holds whatever the client sent. Returns the aggregate `[d]` float32 and an
      `OrderedDict` of measurements.
    counts_rounds: If True, the state is the number of rounds so far, a scalar
      int64, and the rule is called as `rule(updates, is_finite, round_number)`,
      which is 0 in the first round. If False, the state is empty.

  Returns:
    A `tff.templates.AggregationProcess` whose result has the type `value_type`.

  Raises:
    TypeError: If `value_type` fails `check_float_value_type`.
  """
  check_float_value_type(value_type)
  specs = tff.types.type_to_tf_tensor_specs(value_type)

  @tff.tensorflow.computation(value_type)
  def to_row(value):
    flat = flatten(value)
    return collections.OrderedDict(
        update=flat, is_finite=is_finite_update(flat)
    )

  @tff.tensorflow.computation
  def initial_state():
    return tf.constant(0, tf.int64) if counts_rounds else ()

  @tff.federated_computation
  def initialize():
    return tff.federated_eval(initial_state, tff.SERVER)

  @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
  )
  def next_fn(state, value):
    table = row_gather.federated_gather(tff.federated_map(to_row, value))

    @tff.tensorflow.computation(
        state.type_signature.member, table.type_signature.member
    )
    def apply_rule(state, rows):
      rounds = (state,) if counts_rounds else ()
      vector, measurements = rule(rows['update'], rows['is_finite'], *rounds)
      new_state = state + 1 if counts_rounds else state
      return new_state, unflatten(vector, specs), measurements

    return tff.templates.MeasuredProcessOutput(
        *tff.federated_map(apply_rule, tff.federated_zip((state, table)))
    )

  return tff.templates.AggregationProcess(initialize, next_fn)


class GatheringFactory(tff.aggregators.UnweightedAggregationFactory, abc.ABC):
  """Base class of the factories whose rule sees the table of all updates.

  A wrapper that changes the table before a rule sees it composes with `rule`
  itself, so that updates are gathered once.

  Attributes:
    counts_rounds: Whether `rule` takes the number of the round as well, see
      `create_gathering_process`; False unless a subclass says otherwise.
  """

  counts_rounds = False

  @abc.abstractmethod
  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, *round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Aggregates a table of updates.

    Args:
      updates: A `[N, d]` float32 tensor with static d, one update a row.
      is_finite: A `[N]` bool tensor; the other rows may hold anything.
      *round_number: A scalar int64 if `counts_rounds`, else nothing.

    Returns:
      The aggregate, a `[d]` float32 tensor, and an `OrderedDict` of
      measurements.
    """

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process.

    Args:
      value_type: The unplaced type of an update: a tensor or a structure of
        tensors of static shape and dtype float16, bfloat16, float32 or float64.

    Returns:
      A `tff.templates.AggregationProcess`.

    Raises:
      TypeError: If `value_type` is not as described.
    """
    return create_gathering_process(
        value_type, self.rule, counts_rounds=self.counts_rounds
    )
