"""Hold-outs of models of PyTorch, Keras 3 and JAX, and of functions.

```python
holdout = fedaot.holdouts.from_torch(
    model,
    (x, y),  # about 100 clean examples
    learning_rate=0.1,
    batch_size=20,
    num_steps=8,  # batches that a typical client trains on in a round
)
```

The norm of an honest update is bounded by what training on the hold-out gives,
so these options of every function must be a typical client's; with fewer steps,
honest updates are cut short:

*   `learning_rate`, `batch_size` and `num_steps`, the number of batches in a
    round, of stochastic gradient descent with `momentum` (default 0); or
*   `train`, the clients' own training.

Every function returns a `fedaot.HoldOut` and raises TypeError or ValueError if
one of them is missing or out of range, or if the data are empty. Arrays are
those of the whole model: of `state_dict()` in PyTorch (or of `parameters()`
alone), of `get_weights()` in Keras, the leaves of the parameters in JAX. A
framework is imported when its hold-out is made.
"""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np

from fedaot import checks
from fedaot import holdout as holdout_lib

Arrays = Sequence[np.ndarray]


class _SGDHoldOut:
  """Trains by stochastic gradient descent on arrays, or as `train` does."""

  def __init__(
      self,
      loss_and_gradient,
      data,
      train,
      *,
      learning_rate=None,
      batch_size=None,
      num_steps=None,
      momentum=0.0,
  ):
    self._x, self._y = data
    self.num_examples = len(self._y)
    if not self.num_examples or len(self._x) != self.num_examples:
      raise ValueError(
          'data must be a pair of as many examples as labels, at least one;'
          f' found {len(self._x)} and {self.num_examples}.'
      )
    if train is None:
      checks.check_number('learning_rate', learning_rate, above=0)
      checks.check_int('batch_size', batch_size, minimum=1)
      checks.check_int('num_steps', num_steps, minimum=1)
      checks.check_number('momentum', momentum, minimum=0, below=1)
    self._loss_and_gradient = loss_and_gradient
    self._train = train
    self._learning_rate, self._momentum = learning_rate, momentum
    self._batch_size, self._num_steps = batch_size, num_steps

  def train(self, model: Arrays, positions: np.ndarray) -> List[np.ndarray]:
    """See `fedaot.HoldOut`."""
    if self._train is not None:
      return self._train(model, self._x[positions], self._y[positions])
    trained = [np.array(array) for array in model]
    velocity = [np.zeros_like(array) for array in trained]
    batch_size = min(self._batch_size, len(positions))
    for step in range(self._num_steps):
      places = step * batch_size + np.arange(batch_size)
      batch = positions[places % len(positions)]
      _, gradient = self._loss_and_gradient(
          trained, self._x[batch], self._y[batch], True
      )
      for array, v, g in zip(trained, velocity, gradient):
        if array.dtype.kind == 'f':  # Counters stay as they are.
          v *= self._momentum
          v += g
          array -= array.dtype.type(self._learning_rate) * v
    return trained

  def loss_and_gradient(
      self, model: Arrays, positions: np.ndarray
  ) -> Tuple[float, List[np.ndarray]]:
    """See `fedaot.HoldOut`."""
    return self._loss_and_gradient(
        model, self._x[positions], self._y[positions], False
    )


def from_functions(
    loss_and_gradient: Callable[..., Tuple[float, Arrays]],
    data: Tuple[Any, Any],
    *,
    train: Optional[Callable[[Arrays, Any, Any], Arrays]] = None,
    **training: Any,
) -> holdout_lib.HoldOut:
  """A hold-out of functions of arrays, for NumPy and any other framework.

  Args:
    loss_and_gradient: `loss_and_gradient(arrays, x, y)` returns the mean loss
      and its gradient, an array for each.
    data: A pair (x, y), each indexed by an array of positions.
    train: `train(arrays, x, y)` returns the arrays after a client's training.
    **training: See the module.
  """
  return _SGDHoldOut(
      lambda arrays, x, y, is_training: loss_and_gradient(arrays, x, y),
      data,
      train,
      **training,
  )


def from_torch(
    model: Any,
    data: Tuple[Any, Any],
    *,
    loss: Optional[Callable[[Any, Any], Any]] = None,
    train: Optional[Callable[[Any, Any, Any], Any]] = None,
    **training: Any,
) -> holdout_lib.HoldOut:
  """A hold-out of a PyTorch module.

  Args:
    model: The `torch.nn.Module` that is trained; one of its own, as its
      parameters are overwritten.
    data: A pair of tensors or arrays (x, y).
    loss: `loss(outputs, y)` is the mean over the batch; None for cross entropy.
    train: `train(model, x, y)` trains the module in place as a client does.
    **training: See the module.
  """
  import torch  # pylint: disable=g-import-not-at-top

  loss = loss or torch.nn.functional.cross_entropy
  x, y = data
  data = torch.as_tensor(x), torch.as_tensor(y)

  def load(arrays):
    """Sets the module; its tensors, an entry for each of the arrays."""
    tensors, shapes = {}, [array.shape for array in arrays]
    for tensors in (model.state_dict(), dict(model.named_parameters())):
      if [tuple(tensor.shape) for tensor in tensors.values()] == shapes:
        break
    else:
      raise ValueError(
          'The arrays must be those of state_dict() or of parameters(), in'
          f' that order; found the shapes {shapes}.'
      )
    with torch.no_grad():
      for tensor, array in zip(tensors.values(), arrays):
        # A copy: PyTorch takes neither read-only arrays nor foreign bytes.
        tensor.copy_(torch.from_numpy(np.array(array, dtype=array.dtype.type)))
    return tensors

  def loss_and_gradient(arrays, x, y, is_training):
    tensors = load(arrays)
    model.train(is_training)
    model.zero_grad()
    device = next(model.parameters()).device
    value = loss(model(x.to(device)), y.to(device))
    value.backward()
    gradients = dict(model.named_parameters(remove_duplicate=False))
    gradients = {name: p.grad for name, p in gradients.items()}
    return value.item(), [
        np.zeros_like(array)
        if gradients.get(name) is None
        else gradients[name].cpu().numpy().copy()
        for name, array in zip(tensors, arrays)
    ]

  def trained(arrays, x, y):
    tensors = load(arrays)
    model.train()
    train(model, x, y)
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors.values()]

  return _SGDHoldOut(loss_and_gradient, data, train and trained, **training)


def from_keras(
    model: Any,
    data: Tuple[Any, Any],
    *,
    loss: Any = None,
    train: Optional[Callable[[Any, Any, Any], Any]] = None,
    **training: Any,
) -> holdout_lib.HoldOut:
  """A hold-out of a Keras 3 model, on any backend.

  Args:
    model: The `keras.Model` that is trained, built; one of its own, as its
      weights are overwritten.
    data: A pair of arrays (x, y).
    loss: A `keras.losses.Loss`; None for sparse categorical cross entropy of
      logits.
    train: `train(model, x, y)` trains the model in place as a client does.
    **training: See the module.
  """
  import keras  # pylint: disable=g-import-not-at-top

  if loss is None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  gradients_of = _KERAS_GRADIENTS[keras.backend.backend()]

  def loss_and_gradient(arrays, x, y, is_training):
    model.set_weights(list(arrays))
    value, gradients = gradients_of(model, loss, x, y, is_training)
    by_variable = {
        id(variable): np.asarray(keras.ops.convert_to_numpy(gradient))
        for variable, gradient in zip(model.trainable_variables, gradients)
        if gradient is not None
    }
    return float(value), [
        by_variable.get(id(variable), np.zeros_like(array))
        for variable, array in zip(model.weights, arrays)
    ]

  def trained(arrays, x, y):
    model.set_weights(list(arrays))
    train(model, x, y)
    return model.get_weights()

  x, y = data
  data = np.asarray(x), np.asarray(y)
  return _SGDHoldOut(loss_and_gradient, data, train and trained, **training)


def _keras_on_torch(model, loss, x, y, is_training):
  model.zero_grad()
  value = loss(y, model(x, training=is_training))
  value.backward()
  return value.item(), [v.value.grad for v in model.trainable_variables]


def _keras_on_tensorflow(model, loss, x, y, is_training):
  import tensorflow as tf  # pylint: disable=g-import-not-at-top

  with tf.GradientTape() as tape:
    value = loss(y, model(x, training=is_training))
  variables = [v.value for v in model.trainable_variables]
  return value, tape.gradient(value, variables)


def _keras_on_jax(model, loss, x, y, is_training):
  import jax  # pylint: disable=g-import-not-at-top

  def of(trainable):
    outputs, _ = model.stateless_call(
        trainable,
        [v.value for v in model.non_trainable_variables],
        x,
        training=is_training,
    )
    return loss(y, outputs)

  return jax.value_and_grad(of)([v.value for v in model.trainable_variables])


_KERAS_GRADIENTS = {
    'torch': _keras_on_torch,
    'tensorflow': _keras_on_tensorflow,
    'jax': _keras_on_jax,
}


def from_jax(
    loss: Callable[[Any, Any, Any], Any],
    parameters: Any,
    data: Tuple[Any, Any],
    *,
    train: Optional[Callable[[Any, Any, Any], Any]] = None,
    **training: Any,
) -> holdout_lib.HoldOut:
  """A hold-out of a JAX function.

  Args:
    loss: `loss(parameters, x, y)`, the mean over the batch.
    parameters: A tree like those that `loss` takes; the arrays are its leaves.
    data: A pair of arrays (x, y).
    train: `train(parameters, x, y)` returns the parameters after a client's
      training.
    **training: See the module.
  """
  import jax  # pylint: disable=g-import-not-at-top

  structure = jax.tree_util.tree_structure(parameters)
  to_tree = lambda arrays: jax.tree_util.tree_unflatten(structure, arrays)
  to_arrays = lambda tree: [
      np.array(leaf) for leaf in jax.tree_util.tree_leaves(tree)
  ]
  value_and_gradient = jax.jit(jax.value_and_grad(loss))

  def loss_and_gradient(arrays, x, y):
    value, gradient = value_and_gradient(to_tree(arrays), x, y)
    return float(value), to_arrays(gradient)

  return from_functions(
      loss_and_gradient,
      (np.asarray(data[0]), np.asarray(data[1])),
      train=train
      and (lambda arrays, x, y: to_arrays(train(to_tree(arrays), x, y))),
      **training,
  )
