"""Sets TFF's execution context once for all tests of a pytest process."""

import os
import signal
import sys

import pytest

# TensorFlow reads it when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')


def pytest_configure():
  # A shell without job control starts background commands with interrupts
  # ignored, and nohup ignores hang-ups; the tests of both need them.
  for number, handler in (
      (signal.SIGINT, signal.default_int_handler),
      (signal.SIGHUP, signal.SIG_DFL),
  ):
    if signal.getsignal(number) is signal.SIG_IGN:
      signal.signal(number, handler)


def pytest_addoption(parser):
  parser.addoption(
      '--context',
      choices=['native', 'in_process'],
      default='native',
      help='the execution context that computations run in',
  )


def pytest_collection_modifyitems(config, items):
  """Leaves out the in-process tests that would show nothing new."""
  if config.getoption('--context') != 'in_process':
    return
  chosen, others = [], []
  for item in items:
    is_new = hasattr(item.module, 'tff') and not item.get_closest_marker(
        'one_context'
    )
    (chosen if is_new else others).append(item)
  config.hook.pytest_deselected(items=others)
  items[:] = chosen


@pytest.fixture(scope='session', autouse=True)
def default_execution_context(request):
  """Runs computations in the context that `--context` names.

  A worker process ends with the session.

  Importing TFF takes many seconds, so nothing happens unless a collected test
  module has imported it.
  """
  if 'tensorflow_federated' not in sys.modules:
    yield
    return
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.simulation import execution_context

  if request.config.getoption('--context') == 'in_process':
    execution_context.set_in_process_execution_context()
  else:
    execution_context.set_native_execution_context()
  yield
  execution_context.shutdown_workers()
