"""Keeps the aggregator's mirror of the global model in step with the model.

An aggregator with a hold-out in a stock learning process follows the global
model in its state (`model_aware.ModelAwareFactory.create_process`). The mirror
starts at the hold-out model's initial weights and applies the aggregates with
its own server optimizer, so both must be the process's own.
"""

import collections
from collections.abc import Mapping
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import tensorflow as tf

from fedaot_tff.aggregators import model_aware


def synchronize_model(state: Any) -> Any:
  """Copies the global model into the aggregator's mirror, if there is one.

  To be called on the result of `process.initialize()` where the model does not
  start at the hold-out model's initial weights, as Keras models do not, and
  after each `process.set_model_weights` and `set_hparams`. The server
  optimizer's state and the clients' hyperparameters are copied, too, where
  mirror and process have the same kind of optimizer. Raises TypeError if
  `state` is not the state of a learning process and ValueError if the mirror is
  of another model.
  """
  _check_learning_state(state)

  def synchronize(mirror):
    return collections.OrderedDict(
        mirror,
        **{
            name: tf.nest.pack_sequence_as(mirror[name], original)
            for name, original in _originals(mirror, state).items()
        },
    )

  return state._replace(aggregator=_map_mirrors(synchronize, state.aggregator))


def check_model(state: Any) -> None:
  """Raises ValueError if mirror and global model differ by a single bit.

  So it does if the server optimizer's state or the clients' hyperparameters do,
  of optimizers of the same kind. `state` is that of a learning process, else a
  TypeError, after any round.
  """
  _check_learning_state(state)

  def check(mirror):
    for name, original in _originals(mirror, state).items():
      distance = max(
          (
              float(np.max(np.abs(np.subtract(a, b, dtype=np.float64))))
              for a, b in zip(tf.nest.flatten(mirror[name]), original)
              if np.size(a) and not np.array_equal(a, b, equal_nan=True)
          ),
          default=0.0,
      )
      if distance != 0.0:
        raise ValueError(
            f"The aggregator's mirror differs from {_MIRRORED[name]} by up to"
            f' {distance:.3g}: give its factory the server_optimizer of the'
            ' learning process and its hold-out the client_optimizer, and call'
            ' fedaot_tff.synchronize_model on the state after initialize(),'
            ' set_model_weights() and set_hparams().'
        )
    return mirror

  _map_mirrors(check, state.aggregator)


# What the entries of a mirror are copies of.
_MIRRORED = {
    'weights': 'the global model',
    'non_trainable': "the global model's non-trainable weights",
    'optimizer': "the server optimizer's state",
    'client_hparams': "the clients' hyperparameters",
}


def _check_learning_state(state: Any) -> None:
  for name in ('global_model_weights', 'aggregator', '_replace'):
    if not hasattr(state, name):
      raise TypeError(
          'state must be the state of a learning process, such as'
          f' process.initialize() returns; found {type(state).__name__}.'
      )


def _originals(mirror: Any, state: Any) -> Dict[str, List[np.ndarray]]:
  """What the mirror's entries should be, flat, as far as the process has it."""
  model = state.global_model_weights
  found = dict(weights=model.trainable, non_trainable=model.non_trainable)
  for name, weights in found.items():
    shapes = [_shapes(mirror[name]), _shapes(weights)]
    if shapes[0] != shapes[1]:
      raise ValueError(
          "The aggregator's mirror is of another model than the learning"
          f' process trains: shapes {shapes[0]} and {shapes[1]}.'
      )
  # Other optimizers have other states, and client work may have any.
  for name, part in (
      ('optimizer', state.finalizer),
      ('client_hparams', state.client_work),
  ):
    try:
      tf.nest.assert_same_structure(mirror[name], part)
    except (TypeError, ValueError):
      continue
    if _shapes(mirror[name]) == _shapes(part):
      found[name] = part
  return {
      name: [np.asarray(w) for w in tf.nest.flatten(part)]
      for name, part in found.items()
  }


def _shapes(struct: Any) -> List[Tuple[int, ...]]:
  return [np.shape(w) for w in tf.nest.flatten(struct)]


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
