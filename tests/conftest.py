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
      choices=['in_process', 'native'],
      default='in_process',
      help='the execution context that computations run in',
  )


@pytest.fixture(scope='session', autouse=True)
def default_execution_context(request):
  """Runs computations in the context that `--context` names.

  Importing TFF takes many seconds, so nothing happens unless a collected test
  module has imported it.
  """
  if 'tensorflow_federated' not in sys.modules:
    return
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.runtime import execution_context

  if request.config.getoption('--context') == 'native':
    execution_context.set_native_execution_context()
  else:
    execution_context.set_in_process_execution_context()
