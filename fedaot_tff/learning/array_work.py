"""Local training of clients whose examples are arrays.

It does what TFF's client work of a functional model does, to the last bit, but
slices batches from arrays where that iterates over a dataset: no input pipeline
is made, sent or run, and the whole of a client's work is a TensorFlow graph
without resources, which the in-process context runs within one function.
"""

import collections
from collections.abc import Mapping
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks


class ArrayWork(tff.templates.MeasuredProcess):
  """A `tff.learning.templates.ClientWorkProcess` on arrays, without a state.

  A client's data is an `OrderedDict` of `x` [n, ...] and `y` [n, ...], as the
  model takes them, and `order` int32 [m]: the positions of the examples in the
  order of training.
  """

  def __init__(self, initialize_fn: tff.Computation, next_fn: tff.Computation):
    super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
    no_hparams = collections.OrderedDict()
    self.get_hparams = tff.tensorflow.computation(lambda _: no_hparams, ())
    self.set_hparams = tff.tensorflow.computation(
        lambda state, _: state, [(), no_hparams]
    )


# Of the processes of a grid, which share model and optimizer.
@functools.lru_cache(maxsize=4)
def build_array_work(
    *,
    model: tff.learning.models.FunctionalModel,
    optimizer: tff.learning.optimizers.Optimizer,
    batch_size: int,
    client_weighting: tff.learning.ClientWeighting,
    metrics_aggregator: Any,
) -> ArrayWork:
  """Like `tff.learning.templates.build_functional_model_delta_client_work`."""
  checks.check_kind('model_fn', model, tff.learning.models.FunctionalModel)
  checks.check_int('batch_size', batch_size, minimum=1)
  spec = model.input_spec
  x_spec, y_spec = spec.values() if isinstance(spec, Mapping) else spec
  data_type = collections.OrderedDict(
      x=_tensor_type(x_spec),
      y=_tensor_type(y_spec),
      order=tff.TensorType(np.int32, [None]),
  )
  weights_type = tff.to_type(
      tff.learning.models.ModelWeights(
          *(
              tuple(tff.TensorType(w.dtype, w.shape) for w in weights)
              for weights in model.initial_weights
          )
      )
  )

  def train(initial_weights, data):
    initial = initial_weights.trainable, initial_weights.non_trainable
    order = data['order']

    def train_on_batch(start, weights, optimizer_state, metrics):
      positions = order[start : start + batch_size]
      y = tf.gather(data['y'], positions)
      trainable, non_trainable = weights
      with tf.GradientTape() as tape:
        tape.watch(trainable)
        output = model.predict_on_batch(
            weights, tf.gather(data['x'], positions), training=True
        )
        loss = model.loss(output=output, label=y)
      optimizer_state, trainable = optimizer.next(
          optimizer_state, trainable, tape.gradient(loss, trainable)
      )
      metrics = model.update_metrics_state(
          metrics,
          batch_output=tff.learning.models.BatchOutput(
              loss=loss, predictions=output, num_examples=tf.size(positions)
          ),
          labels=y,
      )
      return (
          start + batch_size,
          (trainable, non_trainable),
          optimizer_state,
          metrics,
      )

    no_metrics = model.initialize_metrics_state()
    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, initial[0])
    _, (trained, _), _, metrics = tf.while_loop(
        lambda start, *_: start < tf.size(order),
        train_on_batch,
        (tf.constant(0), initial, optimizer.initialize(specs), no_metrics),
        parallel_iterations=1,
    )
    update = tf.nest.map_structure(tf.subtract, initial[0], trained)
    is_finite = tf.reduce_all(
        [tf.reduce_all(tf.math.is_finite(t)) for t in update]
    )

    def keep_if_finite(value):
      return tf.nest.map_structure(
          lambda t: tf.where(is_finite, t, tf.zeros_like(t)), value
      )

    weight = tf.constant(1.0)
    if client_weighting is tff.learning.ClientWeighting.NUM_EXAMPLES:
      weight = tf.cast(tf.size(order), tf.float32)
    result = tff.learning.templates.ClientResult(
        update=keep_if_finite(update), update_weight=keep_if_finite(weight)
    )
    return result, tf.nest.map_structure(
        lambda found, none: tf.where(is_finite, found, none),
        metrics,
        no_metrics,
    )

  train = tff.tensorflow.computation(
      tf.autograph.experimental.do_not_convert(train), [weights_type, data_type]
  )

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(weights_type, tff.CLIENTS),
      tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    result, metrics = tff.federated_map(train, (weights, client_data))
    finalized = metrics_aggregator(model.finalize_metrics)(metrics)
    return tff.templates.MeasuredProcessOutput(
        state,
        result,
        tff.federated_zip(collections.OrderedDict(train=finalized)),
    )

  return ArrayWork(initialize, next_fn)


def _tensor_type(spec: tf.TensorSpec) -> tff.TensorType:
  return tff.TensorType(spec.dtype.as_numpy_dtype, [None, *spec.shape[1:]])
