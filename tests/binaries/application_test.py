"""Tests for application."""

import os
import sys
import textwrap

import pytest

from binaries import application
from tests.binaries import programs


def _source(body: str, preamble: str = '') -> str:
  """A program with the given body of `main`."""
  return (
      f'{preamble}\nfrom binaries import application\n\ndef main():\n'
      + textwrap.indent(textwrap.dedent(body), '  ')
      + '\napplication.run(main)\n'
  )


def _run(body: str, *arguments: str, preamble: str = '', **environment: str):
  return programs.finish(
      programs.start(['-c', _source(body, preamble), *arguments], environment)
  )


@pytest.mark.parametrize(
    'body, code, error',
    [
        ('return 0', 0, ''),
        ('return 3', 3, ''),
        ('raise application.UserError("that is wrong.")', 1,
         '-c: that is wrong.\n'),
        ('import no_such_package', 1,
         "-c: No module named 'no_such_package'; install what requirements.txt"
         ' lists.\n'),
    ],
)
def test_exit_code_and_error_of_main(body, code, error):
  result = _run(body)
  assert (result.returncode, result.stdout, result.stderr) == (code, '', error)


def test_programming_error_shows_its_traceback():
  result = _run('return 1 / 0')
  assert result.returncode == 1
  assert 'ZeroDivisionError' in result.stderr
  assert 'Traceback' in result.stderr


@pytest.mark.parametrize(
    'argument, message',
    [
        ('--no_such_flag', "Unknown command line flag 'no_such_flag'"),
        ('--verbosity=loud', 'flag --verbosity=loud: '),
        ('--flagfile=no_such_file', 'no_such_file'),
        ('more', "unexpected argument 'more'"),
    ],
)
def test_flag_error_is_one_line(argument, message):
  result = _run('return 0', argument)
  assert result.returncode == 1
  assert result.stdout == ''
  (line,) = result.stderr.splitlines()
  assert message in line
  assert line.endswith(' (--help lists the flags)')


@pytest.mark.parametrize('flag', ['--help', '--helpfull', '--helpshort'])
def test_help_is_no_error(flag):
  result = _run('return 2', flag)
  assert result.returncode == 0
  assert '[flags]' in result.stdout
  assert result.stderr == ''


def test_interrupt_ends_the_process_even_if_it_is_ignored():
  # What libraries do in garbage collector callbacks loses a KeyboardInterrupt.
  result = _run("""
      import os, signal, time
      class Careless:
        def __del__(self):
          os.kill(os.getpid(), signal.SIGINT)
          time.sleep(30)
      print('before', flush=True)
      careless = Careless()
      del careless
      print('after', flush=True)
      return 0
  """)
  assert result.returncode == 130
  assert result.stdout == 'before\n'
  assert result.stderr == '-c: interrupted; what was written is kept.\n'


def test_interrupt_tells_the_command_that_goes_on():
  result = _run(
      """
      import os, signal
      application.announce_resume('--nooverwrite')
      os.kill(os.getpid(), signal.SIGINT)
      """,
      '--v=0',
  )
  assert result.returncode == 130
  first, second = result.stderr.splitlines()
  assert first == '-c: interrupted; what was written is kept.'
  interpreter, *arguments = second[len('To go on: '):].split()
  assert os.path.samefile(programs.ROOT / interpreter, sys.executable)
  assert arguments == ['-c', '--v=0', '--nooverwrite']


def test_interrupt_that_is_ignored_from_the_start_stays_so():
  result = _run(
      """
      import os
      os.kill(os.getpid(), signal.SIGINT)
      return 0
      """,
      preamble='import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)',
  )
  assert (result.returncode, result.stderr) == (0, '')


def test_reader_that_goes_away_causes_no_traceback():
  with programs.start(
      ['-c', _source('for _ in range(100000): print("line")')], {}
  ) as process:
    assert process.stdout.readline() == 'line\n'
    process.stdout.close()
    assert process.stderr.read() == ''
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize(
    'arguments, environment, level, is_told',
    [
        ((), {}, '3', False),
        (('--v=0',), {}, '3', True),
        (('--v=1',), {}, '0', True),
        ((), {'TF_CPP_MIN_LOG_LEVEL': '1'}, '1', False),
    ],
)
def test_libraries_are_quiet_unless_asked_for_more(
    arguments, environment, level, is_told
):
  result = _run(
      """
      import os, warnings
      from absl import logging
      logging.info('of a library')
      warnings.warn('a warning')
      print(os.environ['TF_CPP_MIN_LOG_LEVEL'])
      return 0
      """,
      *arguments,
      **environment,
  )
  assert result.stdout == f'{level}\n'
  assert ('of a library' in result.stderr) == is_told
  assert is_told or result.stderr == ''


def test_description_is_one_line_of_bounded_length():
  assert application.describe_error(ValueError('a\n  b')) == 'a b'
  assert application.describe_error(KeyError('a')) == "KeyError: 'a'"
  assert application.describe_error(RuntimeError('a')) == 'RuntimeError: a'
  assert application.describe_error(AssertionError()) == 'AssertionError()'
  assert len(application.describe_error(ValueError('a' * 5000))) < 500


def test_error_file_is_written_and_removed(tmp_path):
  try:
    raise ValueError('a\nb')
  except ValueError as error:
    line = application.write_error(tmp_path, error)
  path = tmp_path / 'error.txt'
  assert line == f'a b (traceback: {path})'
  assert 'Traceback' in path.read_text()
  assert 'ValueError: a\nb' in path.read_text()
  application.remove_error(tmp_path)
  assert not path.exists()
  application.remove_error(tmp_path)


def test_error_file_that_cannot_be_written_hides_no_error(tmp_path):
  error = OSError(28, 'No space left on device')
  line = application.write_error(tmp_path / 'missing', error)
  assert line == '[Errno 28] No space left on device'
