"""Preprocessing of image batches inside a model.

Clients, the hold-out and the test set keep pixels between 0 and 1, which is
what an attack that writes a trigger into images needs; standardisation and
augmentation are part of the model.
"""

from typing import Sequence

import tensorflow as tf
import tensorflow_federated as tff

from tasks import batch_seed

_PADDING = 4


def standardized(
    model: tff.learning.models.FunctionalModel,
    mean: Sequence[float],
    stddev: Sequence[float],
) -> tff.learning.models.FunctionalModel:
  """Returns the model with augmentation, in training, and standardisation.

  `mean` and `stddev` are those of each channel of images `[batch, height,
  width, channels]`. Weights, loss and metrics stay those of `model`.
  """

  @tf.function(autograph=False)
  def predict_on_batch(model_weights, x, training):
    if training:
      x = augmented(x)
    return model.predict_on_batch(
        model_weights, (x - tf.constant(mean)) / tf.constant(stddev), training
    )

  return tff.learning.models.FunctionalModel(
      initial_weights=model.initial_weights,
      predict_on_batch_fn=predict_on_batch,
      loss_fn=model.loss,
      metrics_fns=(
          model.initialize_metrics_state,
          model.update_metrics_state,
          model.finalize_metrics,
      ),
      input_spec=model.input_spec,
  )


def augmented(x: tf.Tensor) -> tf.Tensor:
  """Mirrors images at random and crops them at a random place.

  Every image is padded with 4 zeros on each side, cropped to its size at a
  uniform place and mirrored left to right with probability 1/2 (He et al.,
  "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2). What
  is drawn is a function of the batch, see `tasks.batch_seed`. The shape of an
  image must be known.
  """
  height, width = x.shape[1:3]
  num_images = tf.shape(x)[0]
  place = tf.random.stateless_uniform(
      [num_images, 2],
      batch_seed.from_batch(x, batch_seed.Purpose.CROP),
      maxval=2 * _PADDING + 1,
      dtype=tf.int32,
      alg='philox',
  )
  mirrored = tf.random.stateless_uniform(
      [num_images, 1],
      batch_seed.from_batch(x, batch_seed.Purpose.FLIP),
      alg='philox',
  )
  rows = place[:, :1] + tf.range(height)
  columns = place[:, 1:] + tf.where(
      mirrored < 0.5, tf.range(width)[::-1], tf.range(width)
  )
  border = [_PADDING, _PADDING]
  x = tf.pad(x, [[0, 0], border, border, [0, 0]])
  x = tf.gather(x, rows, axis=1, batch_dims=1)
  return tf.gather(x, columns, axis=2, batch_dims=1)
