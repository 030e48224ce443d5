"""A tiny softmax regression with synthetic clients, shared by tests."""

import collections
from typing import Any, Callable, List, Optional, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib

NUM_FEATURES, NUM_CLASSES = 4, 3
NUM_CLIENTS = 6
BATCH_SIZE = 5
CLIENT_LEARNING_RATE = 0.3

INPUT_SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, NUM_FEATURES], tf.float32),
    y=tf.TensorSpec([None], tf.int32),
)


def cross_entropy(output, label):
  return tf.nn.sparse_softmax_cross_entropy_with_logits(label, output)


def linear_model(
    kernel, bias, input_spec, loss=cross_entropy
) -> tff.learning.models.FunctionalModel:
  """x kernel + bias; `loss` of output and label is averaged."""

  @tf.function
  def predict(weights, x, training):
    del training
    (kernel, bias), _ = weights
    return tf.matmul(x, kernel) + bias

  def mean_loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(loss(output, label))

  return tff.learning.models.FunctionalModel(
      initial_weights=((np.float32(kernel), np.float32(bias)), ()),
      predict_on_batch_fn=predict,
      loss_fn=mean_loss,
      input_spec=input_spec,
  )


def model() -> tff.learning.models.FunctionalModel:
  """Softmax regression; always with the same initial weights."""
  rng = np.random.default_rng(3)
  kernel = rng.normal(size=[NUM_FEATURES, NUM_CLASSES]) * 0.1
  bias = rng.normal(size=[NUM_CLASSES]) * 0.1
  return linear_model(kernel, bias, INPUT_SPEC)


def keras_model() -> tf.keras.Model:
  """The same as a Keras model without a seed: each one starts elsewhere."""
  return tf.keras.Sequential(
      [tf.keras.layers.Dense(NUM_CLASSES, input_shape=(NUM_FEATURES,))]
  )


def keras_loss() -> tf.keras.losses.Loss:
  return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def keras_model_fn() -> tff.learning.models.VariableModel:
  return tff.learning.models.from_keras_model(
      keras_model(), loss=keras_loss(), input_spec=INPUT_SPEC
  )


def examples(
    num_examples: int, seed: int
) -> 'collections.OrderedDict[str, np.ndarray]':
  """Features and noisy labels that a linear model can learn."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=[num_examples, NUM_FEATURES])
  logits = x[:, :NUM_CLASSES] + 0.5 * rng.normal(
      size=[num_examples, NUM_CLASSES]
  )
  return collections.OrderedDict(
      x=x.astype(np.float32), y=np.argmax(logits, axis=1).astype(np.int32)
  )


def client_datasets(
    round_num: int = 0, num_clients: int = NUM_CLIENTS
) -> List[tf.data.Dataset]:
  """Batched data sets of a round's clients, of different sizes."""
  return [
      tf.data.Dataset.from_tensor_slices(
          examples(8 + 3 * client, seed=100 * round_num + client)
      ).batch(BATCH_SIZE)
      for client in range(num_clients)
  ]


def holdout(
    functional_model: Optional[tff.learning.models.FunctionalModel] = None,
    num_examples: int = 30,
) -> holdout_lib.HoldOut:
  """A hold-out that trains like the clients."""
  return holdout_lib.HoldOut(
      functional_model or model(),
      examples(num_examples, seed=99),
      client_optimizer=client_optimizer(),
      batch_size=BATCH_SIZE,
      num_steps=3,
  )


def client_optimizer() -> tff.learning.optimizers.Optimizer:
  return tff.learning.optimizers.build_sgdm(CLIENT_LEARNING_RATE)


def run(
    process: tff.learning.templates.LearningProcess,
    num_rounds: int,
    state: Any = None,
    client_data_fn: Callable[[int], Any] = client_datasets,
) -> List[Any]:
  """Outputs of `num_rounds` rounds, from `state` or the initial one."""
  state = process.initialize() if state is None else state
  outputs = []
  for round_num in range(num_rounds):
    outputs.append(process.next(state, client_data_fn(round_num)))
    state = outputs[-1].state
  return outputs


def trainable(
    process: tff.learning.templates.LearningProcess, state: Any
) -> List[np.ndarray]:
  """The flat list of trainable weights of a state."""
  return [
      np.asarray(w)
      for w in tf.nest.flatten(process.get_model_weights(state).trainable)
  ]


def assert_bit_identical(found: Any, expected: Any) -> None:
  """Fails unless two structures hold the same bits in the same dtypes."""
  found, expected = tf.nest.flatten(found), tf.nest.flatten(expected)
  assert len(found) == len(expected)
  for a, b in zip(found, expected):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def loss_and_gradient(
    weights: Any, x: np.ndarray, y: np.ndarray
) -> Tuple[float, np.ndarray]:
  """Mean cross entropy and its flat gradient, by hand in float64."""
  kernel, bias = (np.asarray(w, np.float64) for w in weights)
  logits = x @ kernel + bias
  log_sum = np.log(np.sum(np.exp(logits), axis=1))
  labels = np.eye(NUM_CLASSES)[y]
  loss = np.mean(log_sum - np.sum(labels * logits, axis=1))
  residual = (np.exp(logits - log_sum[:, None]) - labels) / len(y)
  gradient = np.concatenate([np.ravel(x.T @ residual), residual.sum(axis=0)])
  return loss, gradient
