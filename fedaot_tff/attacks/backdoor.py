"""Backdoor: the attackers teach the model to obey a pixel trigger."""

import collections
from typing import Any, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples


class Backdoor(attack.DataPoisoning):
  """Gives a part of the examples a trigger and the label `target`.

  The trigger is a square of `size` x `size` pixels near the bottom right corner
  (see `trigger_pixels`) whose channels are all set to `value`, in the units of
  the features; of flat features [p] it is the last `size * size` ones. Of an
  attacker's n examples, `round(fraction * n)`, fixed by its seed, are poisoned.
  The attack succeeds with a test example of another class that is taken for
  `target` once it bears the trigger.

  A distributed backdoor cuts the trigger into `num_parts` <= size^2 runs of
  pixels, row by row, whose lengths differ by at most one; the attacker with
  index i trains with part i mod `num_parts`, success is measured with all.

  Knowledge: the attackers' own data, and their numbers if there are parts.
  Sources: Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in
  the Machine Learning Model Supply Chain", 2017, section 4; Bagdasaryan et al.,
  "How To Backdoor Federated Learning", AISTATS 2020; Xie, Huang, Chen and Li,
  "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
  whose parts have gaps and whose updates are scaled as well.
  """

  def __init__(
      self,
      *,
      target: int = 0,
      fraction: float = 0.5,
      size: int = 3,
      value: float = 1.0,
      num_parts: int = 1,
  ):
    self._target = checks.check_int('target', target, minimum=0)
    self._fraction = checks.check_number(
        'fraction', fraction, above=0, maximum=1
    )
    self._size = checks.check_int('size', size, minimum=1)
    self._value = checks.check_number('value', value)
    self._num_parts = checks.check_int(
        'num_parts', num_parts, minimum=1, maximum=self._size**2
    )

  def poison(self, dataset, *, num_classes, attacker_index, seed):
    examples.check(dataset)
    self._check_target(num_classes)
    chosen = examples.choose(
        dataset, self._fraction, np.random.default_rng(seed)
    )
    pixels = trigger_pixels(dataset.element_spec['x'].shape, self._size)
    # Outside the trigger, where the number is negative, this is no part.
    part = pixels * self._num_parts // self._size**2
    is_trigger = part == attacker_index % self._num_parts

    @tf.autograph.experimental.do_not_convert
    def poison_chosen(example, is_chosen):
      x, y = example['x'], example['y']
      triggered = _set_pixels(x, is_trigger, self._value)
      return collections.OrderedDict(
          example,
          x=tf.where(is_chosen, triggered, x),
          y=tf.where(is_chosen, tf.cast(self._target, y.dtype), y),
      )

    return tf.data.Dataset.zip(
        (dataset, tf.data.Dataset.from_tensor_slices(chosen))
    ).map(poison_chosen)

  def success_examples(self, x, y, *, num_classes):
    self._check_target(num_classes)
    is_other = y != self._target
    return (
        self.present(x[is_other]).numpy(),
        np.full_like(y[is_other], self._target),
    )

  def present(self, x: Any) -> tf.Tensor:
    """Features [n, ...] with the whole trigger."""
    return _set_pixels(x, self.trigger(x.shape[1:]), self._value)

  def trigger(self, shape):
    return trigger_pixels(shape, self._size) >= 0

  def _check_target(self, num_classes: int) -> None:
    checks.check_int('target', self._target, minimum=0, maximum=num_classes - 1)


def trigger_pixels(shape: Sequence[int], size: int) -> np.ndarray:
  """Numbers the pixels of the trigger, a square of side `size`.

  From the shape of features, [p], [h, w] or [h, w, channels], to an int of that
  shape: the number of a pixel of the trigger, from 0 at its top left row by row
  to `size**2 - 1`, and -1 outside; alike in all channels.

  Below and to the right of the square are up to h / 12 and w / 12 pixels: of 28
  or 32, convolutions and poolings without padding do not see the last two.
  """
  shape = tf.TensorShape(shape)
  if not shape.is_fully_defined() or shape.rank not in (1, 2, 3):
    raise ValueError(
        'A trigger needs features of known shape [p], [h, w] or [h, w,'
        f' channels]; found {shape}.'
    )
  shape = tuple(shape)
  numbers = np.arange(size**2)
  if len(shape) > 1:
    numbers = numbers.reshape([size, size])
  free = [length - side for length, side in zip(shape, numbers.shape)]
  if min(free) < 0:
    raise ValueError(
        f'A trigger of size {size} does not fit into features of shape'
        f' {list(shape)}; choose a smaller one.'
    )
  after = [
      min(room, length // 12) if numbers.ndim > 1 else 0
      for room, length in zip(free, shape)
  ]
  margins = [(room - end, end) for room, end in zip(free, after)]
  pixels = np.pad(numbers, margins, constant_values=-1)
  if len(shape) == 3:
    pixels = np.repeat(pixels[..., np.newaxis], shape[2], axis=2)
  return pixels


def seen_features(model: tff.learning.models.FunctionalModel) -> np.ndarray:
  """Which features, bool of an example's shape, can change the logits.

  They are those with a derivative other than 0 at the initial weights in one of
  16 examples of noise between 0 and 1, as a constant may leave rectifiers at 0.
  """
  spec, *_ = tf.nest.flatten(model.input_spec)
  noise = np.random.default_rng(0)
  x = noise.uniform(size=[16, *spec.shape[1:]]).astype(
      spec.dtype.as_numpy_dtype
  )

  @tf.function(autograph=False)
  def slopes(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      logits = model.predict_on_batch(
          tf.nest.map_structure(tf.convert_to_tensor, model.initial_weights),
          x,
          training=False,
      )
      # With weights of their own, the logits do not cancel each other.
      weights = noise.uniform(size=logits.shape[-1:]).astype(np.float32)
      value = tf.reduce_sum(logits * weights)
    return tape.gradient(value, x)

  return np.any(slopes(tf.constant(x)).numpy() != 0, axis=0)


def _set_pixels(x: Any, is_trigger: np.ndarray, value: float) -> tf.Tensor:
  """Sets the entries of `is_trigger` in one or many examples."""
  dtype = tf.as_dtype(x.dtype)
  if not dtype.is_floating:
    raise TypeError(f'A trigger needs float features; found {dtype.name}.')
  return tf.where(is_trigger, tf.cast(value, dtype), x)
