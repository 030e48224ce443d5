"""Sets TFF's execution context once for all tests of a pytest process."""

import os
import sys

import pytest

# TensorFlow reads it when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')


@pytest.fixture(scope='session', autouse=True)
def native_execution_context():
  """Runs computations on a worker that ends with the session.

  Importing TFF takes many seconds, so nothing happens unless a collected test
  module has imported it.
  """
  if 'tensorflow_federated' not in sys.modules:
    yield
    return
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.simulation import execution_context

  execution_context.set_native_execution_context()
  yield
  execution_context.shutdown_workers()
