"""What the programs have in common: start, errors and exit codes.

A program ends with exit code 0 if all went well, with 1 after an error, which
is told in one line on the standard error, and with 130 after Ctrl-C.
"""

import os
import pathlib
import shlex
import signal
import sys
import threading
import traceback
from typing import Callable, Optional, Sequence
import warnings

from absl import app
from absl import flags
from absl import logging

from fedaot_tff.runtime import worker_process

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 128 + signal.SIGINT
_STOP_TIMEOUT_SECONDS = 5.0
_ERROR_FILE = 'error.txt'
_MAX_MESSAGE_LENGTH = 400
# Their messages are written for the user; the name of the type adds nothing.
_PLAIN_ERRORS = (ImportError, OSError, TypeError, ValueError)

_resume_command: Optional[str] = None


class UserError(Exception):
  """An error that is told in one line, without a traceback."""


def run(main: Callable[[], int]) -> None:
  """Parses the flags, runs `main`, which returns the exit code, and exits.

  `main` imports what needs TensorFlow itself, so that flag errors are told at
  once and the libraries find themselves told to be quiet.
  """
  # Not `app.run`: TensorFlow takes its being done for a sign to look for GPUs
  # while it is imported, before it has turned its eager mode on, and then `==`
  # compares the identities of tensors inside of a `tf.function`.
  app.define_help_flags()
  # Where Ctrl-C is ignored, as by nohup, it stays so.
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, _exit_at_once)
  try:
    _parse_flags(sys.argv)
    code = _run(main)
    sys.stdout.flush()
  except BrokenPipeError:
    # Who read the output, `head` say, has gone; Python's flush at exit must
    # not fail over it as well.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = _EXIT_ERROR
  sys.exit(code)


def command(interpreter: str = 'python') -> str:
  """The command line of this program, for a shell."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  program = [sys.argv[0]] if spec is None else ['-m', spec.name]
  return shlex.join([interpreter, *program, *sys.argv[1:]])


def announce_resume(*more_arguments: str) -> None:
  """From now on, Ctrl-C tells that this command goes on, with more arguments.

  The command is for the folder and the Python that the program runs in.
  """
  global _resume_command
  python = os.path.relpath(sys.executable)
  if python.startswith(os.pardir):
    python = sys.executable
  _resume_command = ' '.join([command(python), *more_arguments])


def end_process(code: int) -> None:
  """Ends this process at once, whatever it is at, and its TFF workers."""
  # Not in this thread, which may hold a lock that stopping needs.
  stopping = threading.Thread(target=worker_process.stop_all, daemon=True)
  stopping.start()
  stopping.join(_STOP_TIMEOUT_SECONDS)
  os._exit(code)


def describe_error(error: BaseException) -> str:
  """The error in one line of bounded length."""
  message = _one_line(error)
  if isinstance(error, _PLAIN_ERRORS) and message:
    return message
  return f'{type(error).__name__}: {message}' if message else repr(error)


def describe_missing(error: ModuleNotFoundError) -> str:
  """What to do about a package that is not installed."""
  return f'{error}; install what requirements.txt lists.'


def write_error(folder: pathlib.Path, error: BaseException) -> str:
  """Writes the traceback into a folder and returns the error in one line."""
  path = folder / _ERROR_FILE
  lines = traceback.format_exception(type(error), error, error.__traceback__)
  try:
    path.write_text(''.join(lines), encoding='utf-8')
  except OSError:
    # What made the run fail, a full disk say, may hit this file too.
    return describe_error(error)
  return f'{describe_error(error)} (traceback: {path})'


def remove_error(folder: pathlib.Path) -> None:
  """Removes what `write_error` left in a folder."""
  (folder / _ERROR_FILE).unlink(missing_ok=True)


def _parse_flags(argv: Sequence[str]) -> None:
  """Parses the flags; ends the program if there is no more to do."""
  try:
    _, *more = flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(_fail(f'{_one_line(error)} (--help lists the flags)'))
  except SystemExit:
    # A flag such as --help, for which absl exits with 1.
    sys.exit(0)
  if more:
    sys.exit(
        _fail(f'unexpected argument {more[0]!r} (--help lists the flags)')
    )


def _run(main: Callable[[], int]) -> int:
  """Runs a program whose flags are parsed; returns its exit code."""
  _quiet_libraries()
  try:
    return main()
  except UserError as error:
    return _fail(str(error))
  except ModuleNotFoundError as error:
    return _fail(describe_missing(error))


def _exit_at_once(unused_signal, unused_frame) -> None:
  """Ends the process; handles Ctrl-C.

  A KeyboardInterrupt would get lost in the callbacks that libraries have in the
  garbage collector, and Python would wait for the computation in progress.
  """
  message = f'{_program_name()}: interrupted; what was written is kept.\n'
  if _resume_command is not None:
    message += f'To go on: {_resume_command}\n'
  if os.isatty(2):
    message = f'\n{message}'
  # Not a print: what was interrupted may be one, and it cannot be re-entered.
  os.write(2, message.encode())
  end_process(_EXIT_INTERRUPTED)


def _one_line(error: BaseException) -> str:
  """The error's message, shortened."""
  message = ' '.join(str(error).split())
  rest = message[_MAX_MESSAGE_LENGTH:]
  return f'{message[:_MAX_MESSAGE_LENGTH]} ...' if rest else message


def _fail(message: str) -> int:
  """Tells an error; returns the exit code."""
  print(f'{_program_name()}: {message}', file=sys.stderr)
  return _EXIT_ERROR


def _program_name() -> str:
  return pathlib.Path(sys.argv[0]).stem


def _quiet_libraries() -> None:
  """Keeps what TensorFlow logs about itself from the terminal.

  An environment variable or flag that asks for more is heeded: with --v=1 the
  libraries log what they like.
  """
  if flags.FLAGS['verbosity'].value >= logging.DEBUG:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '0')
    return
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  if flags.FLAGS['verbosity'].using_default_value:
    logging.set_verbosity(logging.ERROR)
  if not sys.warnoptions:
    warnings.simplefilter('ignore')
