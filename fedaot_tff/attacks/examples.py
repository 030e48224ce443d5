"""What examples must be, and how attackers choose among theirs."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


def check(dataset: tf.data.Dataset) -> None:
  """ValueError unless examples have x and, in [0, C), a scalar integer y."""
  spec = dataset.element_spec
  if not isinstance(spec, Mapping):
    found, remedy = f'a {type(spec).__name__}', 'map them to an OrderedDict'
  elif not {'x', 'y'} <= set(spec):
    found, remedy = f'the names {list(spec)}', 'rename the components'
  elif not isinstance(spec['y'], tf.TensorSpec):
    found, remedy = f"y of {type(spec['y']).__name__}", 'make it a tensor'
  elif not spec['y'].dtype.is_integer:
    found = f"y of {spec['y'].dtype.name} {spec['y'].shape}"
    remedy = 'take the argmax of one-hot labels, cast others'
  elif not spec['y'].shape.is_compatible_with([]):
    found = f"y of {spec['y'].dtype.name} {spec['y'].shape}"
    remedy = 'unbatch() batches, take the argmax of one-hot labels, squeeze [1]'
  else:
    return
  raise ValueError(
      'Examples must be unbatched, OrderedDict(x=..., y=...) with an integer'
      f' scalar y, the class; found {found}: {remedy}.'
  )


def choose(
    dataset: tf.data.Dataset, fraction: float, generator: np.random.Generator
) -> np.ndarray:
  """Chooses `round(fraction * n)` of n unbatched examples, all equally likely.

  They are counted if the dataset does not know n. Returns bool [n], true for
  the chosen ones; raises ValueError if the dataset never ends.
  """
  num = int(dataset.cardinality())
  if num == tf.data.INFINITE_CARDINALITY:
    raise ValueError('dataset must be finite; found one that never ends.')
  if num == tf.data.UNKNOWN_CARDINALITY:
    # TensorFlow would keep what `reduce` is given, and the data, for ever.
    num = sum(1 for _ in dataset)
  chosen = np.zeros([num], np.bool_)
  chosen[generator.permutation(num)[: round(fraction * num)]] = True
  return chosen
