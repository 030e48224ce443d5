"""The server's clean hold-out examples and what FedAOT computes from them."""

import collections
from collections.abc import Mapping
import functools
from typing import Any, NamedTuple, Optional, Tuple

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.aggregators import trained_model

# Larger constants of a graph are sent to the worker on each call, about 11 ms
# a MB; beyond this size that shows.
_LARGE_CONSTANT_BYTES = 5_000_000
# A data set that goes on beyond this does not end.
_MOST_BYTES, _MOST_EXAMPLES = 500_000_000, 100_000


class HoldOutSplit(NamedTuple):
  """Positions of a round's two halves of the hold-out.

  Attributes:
    training: int64 [h1], examples that train the root update.
    evaluation: int64 [h2], examples of the meta-gradient's loss.
  """

  training: tf.Tensor
  evaluation: tf.Tensor


class GlobalModel(NamedTuple):
  """What a hold-out judges, and starts its training from.

  Attributes:
    trainable: The trainable weights, in the structure of an update.
    non_trainable: The other weights.
    client_hparams: Those of the hold-out's client optimizer, an OrderedDict;
      empty for the ones that it was made with.
  """

  trainable: Any
  non_trainable: Any = ()
  client_hparams: Any = collections.OrderedDict()


class HoldOut:
  """A small clean data set at the server, with the model that it judges.

  About 100 examples are meant; they should resemble what the clients hold.

  The server trains on them like a client does, to learn how an honest update
  of this round looks. Its size matters as a bound on the clients' norms, so
  `client_optimizer`, `batch_size` and `num_steps` should be those of a typical
  client (`num_steps` is the number of batches a client trains on).

  Copies share the examples. With a function as `model` it can be pickled.
  """

  def __init__(
      self,
      model: trained_model.Model,
      dataset: Any,
      *,
      client_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
      batch_size: Optional[int] = None,
      num_steps: int = 10,
  ):
    """Initializes `HoldOut`.

    Args:
      model: The model that the learning process trains, just as the process
        is given it: a `tff.learning.models.FunctionalModel`, or a function that
        returns a `tff.learning.models.VariableModel`. TFF's functional models
        from Keras know neither frozen layers nor batch normalization; the
        functions know both.
      dataset: The examples: a `tf.data.Dataset`, batched or not, a pair `(x,
        y)` or a mapping with keys `x` and `y` of arrays with a leading example
        dimension. They match `model.input_spec`.
      client_optimizer: The clients' `tff.learning.optimizers.Optimizer`. None
        (default) takes the one of fedaot_tff's builders, and SGD with learning
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
    if client_optimizer is not None:
      checks.check_kind(
          'client_optimizer',
          client_optimizer,
          tff.learning.optimizers.Optimizer,
      )
    self._model = model
    self._x, self._y, dataset_batch_size = _to_arrays(
        self._trained.input_spec, dataset
    )
    if batch_size is None:
      batch_size = dataset_batch_size or 20
    self._batch_size = checks.check_int('batch_size', batch_size, minimum=1)
    self._num_steps = checks.check_int('num_steps', num_steps, minimum=1)
    self._client_optimizer = client_optimizer
    self._clients_own_optimizer = client_optimizer
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
    variables = []

    def record(create, **options):
      variables.append(create(**options))
      return variables[-1]

    with tf.Graph().as_default(), tf.variable_creator_scope(record):
      model = self.initial_model()
      self._weight_types = tuple(
          [(tuple(w.shape), w.dtype.name) for w in weights]
          for weights in (model.trainable, model.non_trainable)
      )
      try:
        loss = self.loss(model, tf.range(self.num_examples))
        if model.non_trainable:
          # Batch normalization may fail only where it trains.
          self.root_update(model, tf.range(self.num_examples))
        with tf.compat.v1.Session() as session:
          session.run([v.initializer for v in variables])
          value = session.run(loss)
      except tf.errors.OpError as error:
        # Around the kernel's own words stands where the operation was made.
        reason = [
            line
            for line in error.message.splitlines()
            if line.strip() and '{{node' not in line
        ][-1]
        raise ValueError(
            f'The model cannot judge the hold-out examples: {reason}'
        ) from error
      except Exception as error:  # The model is the user's.
        advice = ''
        if self._model_is_functional and self._weight_types[1]:
          advice = (
              ' As TFF makes functional models from Keras, they have no frozen'
              ' layers and no batch normalization: give the function that'
              ' returns the VariableModel instead.'
          )
        raise ValueError(
            'The model cannot be trained on the hold-out examples, as it raises'
            f' {type(error).__name__}.{advice}'
        ) from error
    if not np.all(np.isfinite(value)):
      raise ValueError(
          "The model's loss on the hold-out examples must be finite at its"
          f' initial weights; found {value}. Check the labels.'
      )

  def __deepcopy__(self, memo: Any) -> 'HoldOut':
    return self

  def __getstate__(self) -> Mapping[str, Any]:
    if self._model_is_functional:
      raise TypeError(
          'A hold-out with a FunctionalModel cannot be pickled, as the model is'
          ' made of TensorFlow functions; make it in each process, or give a'
          ' function of a module that returns a VariableModel as its model.'
      )
    return {k: v for k, v in self.__dict__.items() if k != '_trained'}

  @functools.cached_property
  def _trained(self) -> trained_model.TrainedModel:
    return trained_model.trained_model(self._model)

  @property
  def _model_is_functional(self) -> bool:
    return isinstance(self._model, tff.learning.models.FunctionalModel)

  @property
  def model(self) -> trained_model.Model:
    """The model that is trained."""
    return self._model

  @property
  def num_examples(self) -> int:
    """The number of hold-out examples."""
    return tf.nest.flatten(self._y)[0].shape[0]

  def for_clients(
      self, optimizer: tff.learning.optimizers.Optimizer
  ) -> 'HoldOut':
    """This hold-out for clients that train with `optimizer`.

    It is the hold-out's, too, if that was made without one.
    """
    result = object.__new__(HoldOut)
    result.__dict__.update(
        self.__dict__,
        _client_optimizer=self._client_optimizer or optimizer,
        _clients_own_optimizer=optimizer,
    )
    return result

  def initial_model(self) -> GlobalModel:
    """Initial weights, tensors in tuples, and hyperparameters."""
    return GlobalModel(*self._trained.initial_weights(), self.hparams({}))

  def model_type(self, value_type: tff.Type) -> tff.Type:
    """The type of a `GlobalModel` with the weights in `value_type`."""
    hparams = tff.tensorflow.computation(lambda: self.hparams({}))
    return tff.to_type(
        GlobalModel(
            value_type,
            tuple(
                tff.TensorType(np.dtype(dtype), shape)
                for shape, dtype in self._weight_types[1]
            ),
            hparams.type_signature.result,
        )
    )

  def hparams(self, clients: Mapping[str, Any]) -> Any:
    """Its optimizer's hyperparameters, given what the clients' are now.

    What has changed since the clients' optimizer was made changes here, too, a
    learning rate by the same factor.
    """
    built = _hparams(self._clients_own_optimizer)

    def follow(name, own):
      if name not in clients.keys() & built.keys():
        return own
      before, now = built[name], tf.cast(clients[name], own.dtype)
      after = now
      if name == tff.learning.optimizers.LEARNING_RATE_KEY:
        # Equal ones stay so to the last bit.
        is_equal = tf.equal(before, own) | tf.equal(before, 0)
        after = tf.where(is_equal, now, own * (now / before))
      return tf.where(tf.equal(before, now), own, after)

    return collections.OrderedDict(
        (name, follow(name, own))
        for name, own in _hparams(self._client_optimizer).items()
    )

  def check_update_type(self, value_type: tff.Type) -> None:
    """Raises ValueError unless updates look like the model's weights."""
    self._check_weights(0, 'Client updates', value_type)

  def check_non_trainable_type(self, weights_type: tff.Type) -> None:
    """Raises ValueError unless the other weights look like the model's."""
    self._check_weights(1, 'The non-trainable weights', weights_type)

  def _check_weights(self, which: int, name: str, found: tff.Type) -> None:
    expected = self._weight_types[which]
    found = [
        (tuple(t.shape), np.dtype(t.dtype).name)
        for t in tf.nest.flatten(
            tff.types.structure_from_tensor_type_tree(lambda t: t, found)
        )
    ]
    if expected != found:
      raise ValueError(
          f'{name} must look like the {("", "non-")[which]}trainable weights of'
          f' the hold-out model, {expected}; found {found}. Pass the model that'
          ' the learning process trains, and put the aggregator inside of no'
          ' factory that reshapes updates.'
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
    keys = tf.random.stateless_uniform([self.num_examples], seed, alg='philox')
    order = tf.argsort(keys, stable=True)
    if self.num_examples < min_examples:
      return HoldOutSplit(order, order)
    half = (self.num_examples + 1) // 2
    return HoldOutSplit(order[:half], order[half:])

  def root_update(self, model: GlobalModel, examples: tf.Tensor) -> Any:
    """The update of a client that trains on the given examples.

    Args:
      model: Where it starts, and with which hyperparameters.
      examples: int64 [h], positions of the examples.

    Returns:
      Tuple of weights before minus weights after, TFF's client update.
    """
    optimizer = _optimizer_of(self._client_optimizer)
    num_examples = examples.shape[0]
    batch_size = min(self._batch_size, num_examples)
    weights = _tensors(model.trainable)
    specs = tf.nest.map_structure(
        lambda w: tf.TensorSpec(w.shape, w.dtype), weights
    )
    loss_and_gradient = self._trained.bind()

    @tf.function
    def train(weights):
      state = optimizer.initialize(specs)
      if model.client_hparams:
        state = optimizer.set_hparams(state, model.client_hparams)
      trained = weights
      for step in tf.range(self._num_steps):
        positions = (step * batch_size + tf.range(batch_size)) % num_examples
        _, gradients = loss_and_gradient(
            trained,
            _tensors(model.non_trainable),
            *self._gather(tf.gather(examples, positions)),
            training=True,
        )
        state, trained = optimizer.next(state, trained, gradients)
      return tf.nest.map_structure(tf.subtract, weights, trained)

    return train(weights)

  def loss(self, model: GlobalModel, examples: tf.Tensor) -> tf.Tensor:
    """Mean loss of the model on the given examples; a scalar."""
    return self.loss_and_gradient(model, examples)[0]

  @tf.autograph.experimental.do_not_convert
  def loss_and_gradient(
      self, model: GlobalModel, examples: tf.Tensor
  ) -> Tuple[tf.Tensor, Any]:
    """The loss and its gradient, a tuple, in the trainable weights."""
    return self._trained.bind()(
        _tensors(model.trainable),
        _tensors(model.non_trainable),
        *self._gather(examples),
        training=False,
    )

  def _gather(self, examples: tf.Tensor) -> Any:
    # The gather happens in the graph: the examples are constants there.
    return tf.nest.map_structure(
        lambda a: tf.gather(a, examples), (self._x, self._y)
    )


def _tensors(weights: Any) -> Tuple[tf.Tensor, ...]:
  return tuple(tf.convert_to_tensor(w) for w in tf.nest.flatten(weights))


def _optimizer_of(
    optimizer: Optional[tff.learning.optimizers.Optimizer],
) -> tff.learning.optimizers.Optimizer:
  if optimizer is None:
    return tff.learning.optimizers.build_sgdm(learning_rate=0.1)
  return optimizer


def _hparams(optimizer: Optional[tff.learning.optimizers.Optimizer]) -> Any:
  """The hyperparameters that an optimizer starts with, as tensors."""
  optimizer = _optimizer_of(optimizer)
  state = optimizer.initialize(tf.TensorSpec([], tf.float32))
  return collections.OrderedDict(
      (name, tf.convert_to_tensor(value))
      for name, value in optimizer.get_hparams(state).items()
  )


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


def _to_arrays(input_spec: Any, dataset: Any) -> Tuple[Any, Any, Optional[int]]:
  """Arrays x and y of all examples, and the batch size if there was one."""
  spec = _split_element(input_spec)
  batch_size = None
  if isinstance(dataset, tf.data.Dataset):
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
      raise ValueError(
          'The hold-out repeats without end; give a tf.data.Dataset without'
          ' repeat().'
      )
    elements, num_bytes, num_examples, batched = [], 0, 0, False
    for element in dataset.as_numpy_iterator():
      elements.append(_split_element(element))
      leaf = tf.nest.flatten(elements[-1])[0]
      batched = np.ndim(leaf) == tf.nest.flatten(spec)[0].shape.rank
      num_examples += max(1, len(leaf)) if batched else 1
      num_bytes += sum(np.asarray(a).nbytes for a in tf.nest.flatten(element))
      # The cardinality of a repeated data set is lost in filter(), say.
      if num_bytes > _MOST_BYTES or num_examples > _MOST_EXAMPLES:
        raise ValueError(
            'The hold-out repeats without end or is too large: it has more than'
            f' {len(elements) - 1} elements; about 100 examples are meant, give'
            ' dataset.take(...).'
        )
    if not elements:
      raise ValueError('The hold-out has no examples; give at least one.')
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
