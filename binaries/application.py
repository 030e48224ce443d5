"""What the programs have in common: start, errors and exit codes.

A program ends with exit code 0 if all went well, with 1 after an error, which
is told in one line on the standard error, and with 130 after Ctrl-C.
"""

import logging as std_logging
import os
import pathlib
import shlex
import signal
import sys
import traceback
from typing import Callable, List, Optional
import warnings

from absl import app
from absl import flags
from absl import logging

ERROR_FILE = 'error.txt'
_MAX_MESSAGE_PART = 300
# Their messages are written for the user; the name of the type adds nothing.
_PLAIN_ERRORS = (ImportError, OSError, TypeError, ValueError)

_resume_command: Optional[str] = None


class UserError(Exception):
  """An error that is told in one line, without a traceback."""


def run(main: Callable[..., int], *, max_arguments: int = 0) -> None:
  """Parses the flags, runs `main`, which returns the exit code, and exits.

  `main`, which is given the arguments that are no flags, imports what needs
  TensorFlow itself, so that flag errors are told at once and the libraries find
  themselves told to be quiet.
  """
  # Not `app.run`: TensorFlow takes its being done for a sign to look for GPUs
  # while it is imported, before it has turned its eager mode on, and then `==`
  # compares the identities of tensors inside of a `tf.function`.
  app.define_help_flags()
  # Where Ctrl-C is ignored, as by nohup, it stays so.
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, _exit_at_once)
  for descriptor, name in ((1, 'stdout'), (2, 'stderr')):
    if getattr(sys, name) is None:
      # Closed by the caller; the next file opened would get its descriptor, and
      # what libraries print would end up in a file of results. Child processes
      # inherit it, which `dup2` alone does not see to if the two are equal.
      os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
      os.set_inheritable(descriptor, True)
      setattr(sys, name, open(descriptor, 'w', encoding='utf-8'))
  code = 1
  try:
    arguments = parse_flags(sys.argv, max_arguments)
    _quiet_libraries()
    code = main(*arguments)
    sys.stdout.flush()
  except UserError as error:
    print(f'{_program_name()}: {error}', file=sys.stderr)
  except ModuleNotFoundError as error:
    print(f'{_program_name()}: {describe_missing(error)}', file=sys.stderr)
  except BrokenPipeError:
    # Who read the output, `head` say, has gone.
    _discard_output()
  except OSError as error:
    # What is left in the buffer of the output may be what cannot be written.
    _discard_output()
    print(f'{_program_name()}: {describe_error(error)}', file=sys.stderr)
  sys.exit(code)


def _discard_output() -> None:
  """Keeps Python's flush at exit from failing as well."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_flags(argv: List[str], max_arguments: int = 0) -> List[str]:
  """Parses the flags; returns the other arguments, UserError if it fails."""
  hint = '(--help lists the flags)'
  try:
    _, *arguments = flags.FLAGS(argv)
  except flags.Error as error:
    raise UserError(f'{_one_line(error)} {hint}') from error
  except UnicodeDecodeError as error:
    files = ' '.join(a for a in argv if 'flagfile' in a)
    raise UserError(f'{files} is no text: {_one_line(error)} {hint}') from error
  except SystemExit:
    # A flag such as --help, for which absl exits with 1.
    sys.exit(0)
  if len(arguments) > max_arguments:
    raise UserError(f'unexpected argument {arguments[max_arguments]!r} {hint}')
  return arguments


def command(interpreter: str = 'python') -> str:
  """The command line of this program, for a shell."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  program = [sys.argv[0]] if spec is None else ['-m', spec.name]
  return shlex.join([interpreter, *program, *sys.argv[1:]])


def announce_resume(*more_arguments: str) -> None:
  """From now on, Ctrl-C tells how to go on: this command and more arguments."""
  global _resume_command
  _resume_command = ' '.join([command(sys.executable), *more_arguments])


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
  path = folder / ERROR_FILE
  lines = traceback.format_exception(None, error, error.__traceback__)
  try:
    path.write_text(''.join(lines), encoding='utf-8')
  except OSError:
    # What made the run fail, a full disk say, may hit this file too.
    return describe_error(error)
  return f'{describe_error(error)} (traceback: {path})'


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
  os._exit(128 + signal.SIGINT)


def _one_line(error: BaseException) -> str:
  message = ' '.join(str(error).split())
  if len(message) <= 2 * _MAX_MESSAGE_PART:
    return message
  # An operating system's reason comes last.
  return f'{message[:_MAX_MESSAGE_PART]} ... {message[-_MAX_MESSAGE_PART:]}'


def _program_name() -> str:
  return pathlib.Path(sys.argv[0]).stem


def _quiet_libraries() -> None:
  """Keeps what libraries log about themselves from the terminal, unless --v=1.

  An environment variable or flag that asks for more is heeded.
  """
  verbosity = flags.FLAGS['verbosity']
  is_quiet = verbosity.value < logging.DEBUG
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3' if is_quiet else '0')
  if is_quiet and verbosity.using_default_value:
    logging.set_verbosity(logging.ERROR)
    # TensorFlow warns of functions that are traced again, for every attack say.
    std_logging.getLogger('tensorflow').setLevel(std_logging.ERROR)
  if is_quiet and not sys.warnoptions:
    warnings.simplefilter('ignore')
