"""Runs the same computations natively and in this process."""

import collections
import functools
from typing import Any, Callable, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import in_process as in_process_lib
from fedaot_tff.runtime import native as native_lib


@functools.lru_cache(maxsize=None)
def native():
  return native_lib.NativeExecutionContext(default_num_clients=2)


@functools.lru_cache(maxsize=None)
def in_process(**options):
  return in_process_lib.InProcessExecutionContext(
      default_num_clients=2, **options
  )


def run_in(context: Any, function: Callable[..., Any], *args: Any) -> Any:
  with tff.framework.get_context_stack().install(context):
    return function(*args)


def run_in_both(function: Callable[..., Any], *args: Any) -> Tuple[Any, Any]:
  """Returns the results of the native and of the in-process context."""
  return (
      run_in(native(), function, *args),
      run_in(in_process(), function, *args),
  )


def assert_same(expected: Any, found: Any, tolerance: float = 0.0):
  """Checks Python types, dtypes, shapes and values of nested results.

  Args:
    expected: The result of the native context.
    found: The result of the in-process context.
    tolerance: How far floating-point numbers may be apart, relative to the
      larger one or to 1.
  """
  assert type(found) is type(expected)
  if isinstance(expected, tf.data.Dataset):
    assert found.element_spec == expected.element_spec
    assert_same(list(expected.as_numpy_iterator()), _elements(found), tolerance)
  elif isinstance(expected, collections.abc.Mapping):
    assert list(found) == list(expected)
    assert_same(list(expected.values()), list(found.values()), tolerance)
  elif isinstance(expected, (list, tuple)):
    assert len(found) == len(expected)
    for expected_item, found_item in zip(expected, found):
      assert_same(expected_item, found_item, tolerance)
  elif hasattr(expected, '__attrs_attrs__'):
    for attribute in expected.__attrs_attrs__:
      assert_same(
          getattr(expected, attribute.name),
          getattr(found, attribute.name),
          tolerance,
      )
  elif isinstance(expected, (np.ndarray, np.generic)):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if tolerance and np.issubdtype(expected.dtype, np.inexact):
      np.testing.assert_allclose(found, expected, tolerance, tolerance)
    else:
      np.testing.assert_array_equal(found, expected)
  else:
    assert found == expected


def _elements(dataset: tf.data.Dataset) -> list:
  return list(dataset.as_numpy_iterator())


def assert_runs_alike(
    function: Callable[..., Any], *args: Any, tolerance: float = 0.0
) -> Any:
  """Checks that both contexts return the same; returns it."""
  expected, found = run_in_both(function, *args)
  assert_same(expected, found, tolerance)
  return found
