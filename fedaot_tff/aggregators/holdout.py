"""The server's clean hold-out examples and what FedAOT computes from them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Tuple

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks

# Larger constants of a graph are sent to the worker on each call, about 11 ms
# a MB; beyond this size that shows.
_LARGE_CONSTANT_BYTES = 5_000_000
# A data set that goes on beyond this does not end.
_MOST_BYTES, _MOST_ELEMENTS = 500_000_000, 1_000_000


class HoldOutSplit(NamedTuple):
  """Positions of a round's two halves of the hold-out.

  Attributes:
    training: int64 [h1], examples that train the root update.
    evaluation: int64 [h2], examples of the meta-gradient's loss.
  """

  training: tf.Tensor
  evaluation: tf.Tensor


class HoldOut:
  """A small clean data set at the server, with the model that it judges.

  About 100 examples are meant; they should resemble what the clients hold.

  The server trains on them like a client does, to learn how an honest update
  of this round looks. Its size matters as a bound on the clients' norms, so
  `client_optimizer`, `batch_size` and `num_steps` should be those of a typical
  client (`num_steps` is the number of batches a client trains on).
  """

  def __init__(
      self,
      model: tff.learning.models.FunctionalModel,
      dataset: Any,
      *,
      client_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
      batch_size: Optional[int] = None,
      num_steps: int = 10,
  ):
    """Initializes `HoldOut`.

    Args:
      model: The `tff.learning.models.FunctionalModel` that is trained. A Keras
        model becomes one by `tff.learning.models.functional_model_from_keras`.
      dataset: The examples: a `tf.data.Dataset`, batched or not, a pair `(x,
        y)` or a mapping with keys `x` and `y` of arrays with a leading example
        dimension. They match `model.input_spec`.
      client_optimizer: The clients' `tff.learning.optimizers.Optimizer`. None
        (default) takes the one of `build_fedaot_fed_avg`, and SGD with learning
        rate 0.1 in a stock builder.
      batch_size: The clients' batch size. None (default) takes that of a
        batched `dataset`, else 20.
      num_steps: The number of batches a typical client trains on in a round.

    Raises:
      TypeError: If `model`, `client_optimizer`, `batch_size` or `num_steps` is
        of another kind.
      ValueError: If there is no example, an example is not finite or does not
        match `model.input_spec`, or a number is not positive.
    """
    if not isinstance(model, tff.learning.models.FunctionalModel):
      raise TypeError(
          'model must be a tff.learning.models.FunctionalModel (see'
          ' tff.learning.models.functional_model_from_keras); found'
          f' {type(model).__name__}.'
      )
    if client_optimizer is not None:
      checks.check_kind(
          'client_optimizer',
          client_optimizer,
          tff.learning.optimizers.Optimizer,
      )
    self._model = model
    self._x, self._y, dataset_batch_size = _to_arrays(model, dataset)
    if batch_size is None:
      batch_size = dataset_batch_size or 20
    self._batch_size = checks.check_int('batch_size', batch_size, minimum=1)
    self._num_steps = checks.check_int('num_steps', num_steps, minimum=1)
    self._client_optimizer = client_optimizer
    num_bytes = sum(a.nbytes for a in tf.nest.flatten((self._x, self._y)))
    if num_bytes > _LARGE_CONSTANT_BYTES:
      logging.warning(
          'The hold-out has %.0f MB, which are sent to the executor each round;'
          ' about 100 examples are meant.',
          num_bytes / 1e6,
      )

    self._check_loss()

  def _check_loss(self) -> None:
    """Raises ValueError unless the model takes the examples, labels too."""
    with tf.Graph().as_default():
      weights = self.initial_weights()
      loss = self.loss(weights, tf.range(self.num_examples))
      try:
        with tf.compat.v1.Session() as session:
          session.run(tf.compat.v1.global_variables_initializer())
          value = session.run(loss)
      except tf.errors.InvalidArgumentError as error:
        # Around the kernel's own words stands where the operation was made.
        reason = [
            line
            for line in error.message.splitlines()
            if line.strip() and '{{node' not in line
        ][-1]
        raise ValueError(
            f'The model cannot judge the hold-out examples: {reason}'
        ) from error
    if not np.all(np.isfinite(value)):
      raise ValueError(
          "The model's loss on the hold-out examples must be finite at its"
          f' initial weights; found {value}. Check the labels.'
      )

  @property
  def model(self) -> tff.learning.models.FunctionalModel:
    """The model that is trained."""
    return self._model

  @property
  def num_examples(self) -> int:
    """The number of hold-out examples."""
    return tf.nest.flatten(self._y)[0].shape[0]

  def with_default_client_optimizer(
      self, optimizer: tff.learning.optimizers.Optimizer
  ) -> 'HoldOut':
    """This hold-out, with `optimizer` if it was made without one."""
    return HoldOut(
        self._model,
        (self._x, self._y),
        client_optimizer=self._client_optimizer or optimizer,
        batch_size=self._batch_size,
        num_steps=self._num_steps,
    )

  def initial_weights(self) -> Any:
    """The model's initial trainable weights, as tensors in a tuple."""
    trainable, _ = self._model.initial_weights
    return tuple(tf.convert_to_tensor(w) for w in tf.nest.flatten(trainable))

  def check_update_type(self, value_type: tff.Type) -> None:
    """Raises ValueError unless updates look like the model's weights."""
    expected = [
        (tuple(np.shape(w)), np.asarray(w).dtype.name)
        for w in tf.nest.flatten(self._model.initial_weights[0])
    ]
    found = [
        (tuple(t.shape), np.dtype(t.dtype).name)
        for t in tf.nest.flatten(
            tff.types.structure_from_tensor_type_tree(lambda t: t, value_type)
        )
    ]
    if expected != found:
      raise ValueError(
          'Client updates must look like the trainable weights of the hold-out'
          f' model, {expected}; found {found}. Pass the model that the learning'
          ' process trains, and put the aggregator inside of no factory that'
          ' reshapes updates.'
      )

  def split(self, seed: tf.Tensor, min_examples: int) -> HoldOutSplit:
    """Splits the examples at random in two halves.

    Weighting variables that are judged on the examples which made the root
    update over-fit them; fresh halves each round cure that.

    Args:
      seed: int64 [2], another one each round.
      min_examples: Fewer examples than this are all in both halves.

    Returns:
      A `HoldOutSplit`.
    """
    keys = tf.random.stateless_uniform(
        [self.num_examples], seed, alg='philox'
    )
    order = tf.argsort(keys, stable=True)
    if self.num_examples < min_examples:
      return HoldOutSplit(order, order)
    half = (self.num_examples + 1) // 2
    return HoldOutSplit(order[:half], order[half:])

  def root_update(self, weights: Any, examples: tf.Tensor) -> Any:
    """The update of a client that trains on the given examples.

    Args:
      weights: Tuple of the trainable weights to start from.
      examples: int64 [h], positions of the examples.

    Returns:
      Tuple of weights before minus weights after, TFF's client update.
    """
    optimizer = self._client_optimizer
    if optimizer is None:
      optimizer = tff.learning.optimizers.build_sgdm(learning_rate=0.1)
    num_examples = examples.shape[0]
    batch_size = min(self._batch_size, num_examples)
    specs = tf.nest.map_structure(
        lambda w: tf.TensorSpec(w.shape, w.dtype), weights
    )

    @tf.function
    def train(weights):
      state = optimizer.initialize(specs)
      trained = weights
      for step in tf.range(self._num_steps):
        positions = (step * batch_size + tf.range(batch_size)) % num_examples
        _, gradients = self.loss_and_gradient(
            trained, tf.gather(examples, positions), training=True
        )
        state, trained = optimizer.next(state, trained, gradients)
      return tf.nest.map_structure(tf.subtract, weights, trained)

    return train(weights)

  def loss(
      self, weights: Any, examples: tf.Tensor, *, training: bool = False
  ) -> tf.Tensor:
    """Mean loss of the model with `weights` on the given examples; a scalar."""
    trainable, non_trainable = self._model.initial_weights
    model_weights = (
        tf.nest.pack_sequence_as(trainable, tf.nest.flatten(weights)),
        tf.nest.map_structure(tf.convert_to_tensor, non_trainable),
    )
    # The gather happens in the graph: the examples are constants there.
    x = tf.nest.map_structure(lambda a: tf.gather(a, examples), self._x)
    y = tf.nest.map_structure(lambda a: tf.gather(a, examples), self._y)
    output = self._model.predict_on_batch(model_weights, x, training=training)
    return self._model.loss(output, y)

  @tf.autograph.experimental.do_not_convert
  def loss_and_gradient(
      self, weights: Any, examples: tf.Tensor, *, training: bool = False
  ) -> Tuple[tf.Tensor, Any]:
    """Loss and its gradient in `weights`; an unused weight has gradient 0."""
    with tf.GradientTape() as tape:
      tape.watch(weights)
      loss = self.loss(weights, examples, training=training)
    gradient = tape.gradient(
        loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    # An embedding's gradient is sparse; made dense, it has no static shape.
    dense = tf.nest.map_structure(
        lambda w, g: tf.ensure_shape(tf.convert_to_tensor(g), w.shape),
        weights,
        gradient,
    )
    return loss, dense


def _split_element(element: Any) -> Tuple[Any, Any]:
  """x and y of an example, a mapping or a pair as TFF's models take them."""
  if isinstance(element, Mapping):
    if set(element) != {'x', 'y'}:
      raise ValueError(
          "Hold-out examples must have the keys 'x' and 'y'; found"
          f' {sorted(map(str, element))}.'
      )
    return element['x'], element['y']
  if isinstance(element, (tuple, list)) and len(element) == 2:
    return element[0], element[1]
  raise TypeError(
      "Hold-out examples must be a pair (x, y) or a mapping with keys 'x' and"
      f" 'y'; found {type(element).__name__}."
  )


def _to_arrays(
    model: tff.learning.models.FunctionalModel, dataset: Any
) -> Tuple[Any, Any, Optional[int]]:
  """Arrays x and y of all examples, and the batch size if there was one."""
  spec = _split_element(model.input_spec)
  batch_size = None
  if isinstance(dataset, tf.data.Dataset):
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
      raise ValueError(
          'The hold-out repeats without end; give a tf.data.Dataset without'
          ' repeat().'
      )
    elements, num_bytes = [], 0
    for element in dataset.as_numpy_iterator():
      elements.append(_split_element(element))
      num_bytes += sum(np.asarray(a).nbytes for a in tf.nest.flatten(element))
      # The cardinality of a repeated data set is lost in filter(), say.
      if num_bytes > _MOST_BYTES or len(elements) > _MOST_ELEMENTS:
        raise ValueError(
            'The hold-out repeats without end or is too large: it has more than'
            f' {len(elements) - 1} elements; about 100 examples are meant, give'
            ' dataset.take(...).'
        )
    if not elements:
      raise ValueError('The hold-out has no examples; give at least one.')
    element_rank = np.ndim(tf.nest.flatten(elements[0])[0])
    batched = element_rank == tf.nest.flatten(spec)[0].shape.rank
    if batched:
      batch_size = tf.nest.flatten(elements[0])[0].shape[0]
    combine = np.concatenate if batched else np.stack
    x, y = tf.nest.map_structure(lambda *arrays: combine(arrays), *elements)
  else:
    x, y = (
        np.asarray(element)
        if isinstance(leaf, tf.TensorSpec)
        else tf.nest.map_structure(np.asarray, element)
        for leaf, element in zip(spec, _split_element(dataset))
    )
  return *_check_examples(spec, (x, y)), batch_size


def _check_examples(spec: Any, examples: Any) -> Any:
  """The examples in the spec's dtypes, or an error that says what is wrong."""
  try:
    tf.nest.assert_same_structure(spec, examples)
  except (TypeError, ValueError):
    raise ValueError(
        'Hold-out examples must have the structure of model.input_spec,'
        f' {spec}; found x and y of type'
        f' {" and ".join(type(e).__name__ for e in examples)}.'
    ) from None
  sizes = {a.shape[0] if a.ndim else None for a in tf.nest.flatten(examples)}
  if None in sizes or len(sizes) != 1:
    raise ValueError(
        'Hold-out arrays must have the same leading example dimension; found'
        f' {tf.nest.map_structure(np.shape, examples)}.'
    )
  if sizes == {0}:
    raise ValueError('The hold-out has no examples; give at least one.')

  def check(leaf: tf.TensorSpec, array: np.ndarray) -> np.ndarray:
    if not leaf.shape.is_compatible_with(array.shape):
      raise ValueError(
          f'Hold-out examples must match model.input_spec, {leaf.shape}; found'
          f' shape {array.shape}.'
      )
    if not np.can_cast(array.dtype, leaf.dtype.as_numpy_dtype, 'same_kind'):
      raise ValueError(
          f'Hold-out examples must match model.input_spec, {leaf.dtype.name};'
          f' found {array.dtype.name}.'
      )
    with np.errstate(over='ignore'):
      array = array.astype(leaf.dtype.as_numpy_dtype)
    if array.dtype.kind == 'f' and not np.all(np.isfinite(array)):
      raise ValueError(
          'Hold-out examples must be finite; found'
          f' {np.count_nonzero(~np.isfinite(array))} NaN or infinite entries.'
      )
    return array

  return tf.nest.map_structure(check, spec, examples)
