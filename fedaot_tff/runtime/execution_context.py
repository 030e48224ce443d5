"""The default execution context: in this process, TFF's worker or on Ray.

```
from fedaot_tff.runtime import execution_context

execution_context.set_in_process_execution_context()
```

`tff.backends.native.set_sync_local_cpp_execution_context`, which
`import tensorflow_federated` calls by itself, leaves its worker process behind
at exit; each function here replaces it and closes the context that an earlier
call set.
"""

from typing import Any, Union

import tensorflow_federated as tff

from fedaot_tff.runtime import autograph
from fedaot_tff.runtime import in_process
from fedaot_tff.runtime import native
from fedaot_tff.runtime import ray_context

_default_context: Union[
    in_process.InProcessExecutionContext, native.NativeExecutionContext, None
] = None


def _set_default_context(context):
  global _default_context
  if _default_context is not None:
    _default_context.close()
  autograph.keep_in_memory()
  tff.framework.set_default_context(context)
  _default_context = context
  return context


def set_in_process_execution_context(
    **options: Any,
) -> in_process.InProcessExecutionContext:
  """Makes a new `InProcessExecutionContext(**options)` TFF's default."""
  return _set_default_context(in_process.InProcessExecutionContext(**options))


def set_ray_execution_context(
    **options: Any,
) -> ray_context.RayExecutionContext:
  """Makes a new `RayExecutionContext(**options)` TFF's default."""
  return _set_default_context(ray_context.RayExecutionContext(**options))


def set_native_execution_context(
    **options: Any,
) -> native.NativeExecutionContext:
  """Makes a new `NativeExecutionContext(**options)` TFF's default.

  The worker process starts with the first computation.
  """
  return _set_default_context(native.NativeExecutionContext(**options))
