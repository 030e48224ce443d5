"""Keeps the aggregator's mirror of the global model in step with the model.

An aggregator with a hold-out in a stock learning process follows the global
model in its state (`model_aware.ModelAwareFactory.create_process`). The mirror
starts at the hold-out model's initial weights and applies the aggregates with
its own server optimizer, so both must be the process's own.
"""

import collections
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from fedaot_tff.aggregators import model_aware


def synchronize_model(state: Any) -> Any:
  """Copies the global model's weights into the aggregator's mirror, if any.

  To be called on the result of `process.initialize()` where the model does not
  start at the hold-out model's initial weights, as Keras models do not, and
  after each `process.set_model_weights`. Raises TypeError if `state` is not the
  state of a learning process and ValueError if the mirror is of another model.
  """
  weights = _global_weights(state)

  def synchronize(mirror):
    _check_shapes(mirror, weights)
    return collections.OrderedDict(
        mirror, weights=tf.nest.pack_sequence_as(mirror['weights'], weights)
    )

  return state._replace(aggregator=_map_mirrors(synchronize, state.aggregator))


def check_model(state: Any) -> None:
  """Raises ValueError if mirror and global model differ by a single bit.

  `state` is that of a learning process, else a TypeError, after any round.
  """
  weights = _global_weights(state)

  def check(mirror):
    _check_shapes(mirror, weights)
    distance = max(
        (
            float(np.max(np.abs(np.subtract(a, b, dtype=np.float64))))
            for a, b in zip(tf.nest.flatten(mirror['weights']), weights)
            if np.size(a) and not np.array_equal(a, b, equal_nan=True)
        ),
        default=0.0,
    )
    if distance != 0.0:
      raise ValueError(
          "The aggregator's mirror of the model differs from the global model"
          f' by up to {distance:.3g}: give its factory the server_optimizer'
          ' of the learning process, and call fedaot_tff.synchronize_model on'
          ' the state after initialize() and set_model_weights().'
      )
    return mirror

  _map_mirrors(check, state.aggregator)


def _global_weights(state: Any) -> Any:
  """The global model's trainable weights, as a flat list of arrays."""
  for name in ('global_model_weights', 'aggregator', '_replace'):
    if not hasattr(state, name):
      raise TypeError(
          'state must be the state of a learning process, such as'
          f' process.initialize() returns; found {type(state).__name__}.'
      )
  return [
      np.asarray(w)
      for w in tf.nest.flatten(state.global_model_weights.trainable)
  ]


def _check_shapes(mirror: Any, weights: Any) -> None:
  mirrored = [np.shape(w) for w in tf.nest.flatten(mirror['weights'])]
  model = [np.shape(w) for w in weights]
  if mirrored != model:
    raise ValueError(
        "The aggregator's mirror is of another model than the learning"
        f' process trains: shapes {mirrored} and {model}.'
    )


def _map_mirrors(fn: Callable[[Any], Any], state: Any) -> Any:
  """Applies `fn` to each mirror in an aggregator's possibly nested state."""
  if isinstance(state, Mapping):
    if model_aware.is_mirrored(state):
      mirror = fn(state[model_aware.MIRROR])
      return collections.OrderedDict(state, **{model_aware.MIRROR: mirror})
    return collections.OrderedDict(
        (name, _map_mirrors(fn, value)) for name, value in state.items()
    )
  if isinstance(state, tuple):
    values = [_map_mirrors(fn, value) for value in state]
    return type(state)(*values) if hasattr(state, '_fields') else tuple(values)
  return state
