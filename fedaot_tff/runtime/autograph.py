"""Keeps TensorFlow's AutoGraph out of the temporary folder.

AutoGraph writes the source of each function that it makes to a file there. If
it cannot, it runs the function as it is: a loop over a dataset then adds steps
to the graph until memory ends. A killed process leaves the files behind.
"""

import itertools
import linecache
import sys
import types
from typing import Tuple

from tensorflow.python.autograph.core import config
from tensorflow.python.autograph.pyct import loader

# Nothing here branches on tensors; conversion would cost some tenths of a
# second each time a learning process is built.
_UNCONVERTED = tuple(
    config.DoNotConvert(f'tensorflow_federated.python.learning.{module}')
    for module in ('optimizers.optimizer', 'optimizers.sgdm', 'tensor_utils')
)
_numbers = itertools.count()


def _load_source(
    source: str, delete_on_exit: bool
) -> Tuple[types.ModuleType, str]:
  """Does what AutoGraph's function of this name does, in memory."""
  del delete_on_exit
  name = f'autograph_generated_{next(_numbers)}'
  path = f'<{name}>'
  module = types.ModuleType(name)
  module.__file__ = path
  # Tracebacks and debuggers find the source there.
  linecache.cache[path] = (len(source), None, source.splitlines(True), path)
  exec(compile(source, path, 'exec'), module.__dict__)
  sys.modules[name] = module
  return module, path


def keep_in_memory() -> None:
  """From now on AutoGraph writes no files; repeated calls change nothing."""
  loader.load_source = _load_source
  if config.CONVERSION_RULES[: len(_UNCONVERTED)] != _UNCONVERTED:
    config.CONVERSION_RULES = _UNCONVERTED + config.CONVERSION_RULES
