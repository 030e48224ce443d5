"""Tests for application."""

import subprocess
import sys
import textwrap

import pytest

from binaries import application
from tests.binaries import programs


def _source(body: str) -> str:
  """A program with the given body of `main`."""
  return (
      'from binaries import application\n'
      'import os, signal, time, warnings\n\n'
      'def main():\n'
      + textwrap.indent(textwrap.dedent(body), '  ')
      + '\nif __name__ == "__main__": application.run(main)\n'
  )


def _run(body: str, *arguments: str, **environment: str):
  return programs.finish(
      programs.start(['-c', _source(body), *arguments], environment)
  )


@pytest.mark.parametrize(
    'body, code, error',
    [
        ('return 3', 3, ''),
        (
            'raise application.UserError("that is wrong.")',
            1,
            '-c: that is wrong.\n',
        ),
        (
            'import no_such_package',
            1,
            "-c: No module named 'no_such_package'; install what"
            ' requirements.txt lists.\n',
        ),
    ],
)
def test_exit_code_and_error_of_main(body, code, error):
  result = _run(body)
  assert (result.returncode, result.stdout, result.stderr) == (code, '', error)


def test_programming_error_shows_its_traceback():
  result = _run('return 1 / 0')
  assert result.returncode == 1
  assert 'Traceback' in result.stderr and 'ZeroDivisionError' in result.stderr


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
  with pytest.raises(application.UserError, match=message) as error:
    application.parse_flags(['program', argument])
  assert str(error.value).endswith(' (--help lists the flags)')
  assert '\n' not in str(error.value)


def test_arguments_without_a_flag():
  argv = ['program', 'a', '--v=-1', 'b']
  assert application.parse_flags(argv, max_arguments=2) == ['a', 'b']
  with pytest.raises(application.UserError, match="unexpected argument 'b'"):
    application.parse_flags(argv, max_arguments=1)


def test_interrupt_ends_the_process_and_tells_how_to_go_on():
  # What libraries do in garbage collector callbacks loses a KeyboardInterrupt.
  result = _run(
      """
      class Careless:
        def __del__(self):
          os.kill(os.getpid(), signal.SIGINT)
          time.sleep(30)
      print('before', flush=True)
      application.announce_resume('--nooverwrite')
      careless = Careless()
      del careless
      print('after', flush=True)
      """,
      '--v=0',
  )
  assert (result.returncode, result.stdout) == (130, 'before\n')
  assert result.stderr == (
      '-c: interrupted; what was written is kept.\n'
      f'To go on: {sys.executable} -c --v=0 --nooverwrite\n'
  )


def test_interrupt_that_is_ignored_from_the_start_stays_so():
  source = _source('os.kill(os.getpid(), signal.SIGINT); return 0')
  ignore = 'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
  assert programs.run_source(ignore + source) == ''


def test_reader_that_goes_away_causes_no_traceback():
  with programs.start(
      ['-c', _source('for _ in range(100000): print("line")')], {}
  ) as process:
    assert process.stdout.readline() == 'line\n'
    process.stdout.close()
    assert process.stderr.read() == ''
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize(
    'redirection, code, error',
    [
        ('>/dev/full', 1, '-c: [Errno 28] No space left on device\n'),
        ('>&-', 0, ''),
        ('>&- 2>&-', 0, ''),
    ],
)
def test_output_that_cannot_be_written(tmp_path, redirection, code, error):
  path = tmp_path / 'result'
  body = f"""
      with open({str(path)!r}, 'wb') as file:
        os.write(file.fileno(), b'kept')
        print('line')
        if file.fileno() in (1, 2):
          return 3
      return 0
      """
  result = subprocess.run(
      [
          'sh',
          '-c',
          f'exec "$@" {redirection}',
          'sh',
          sys.executable,
          '-c',
          _source(body),
      ],
      cwd=programs.ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert (result.returncode, result.stderr) == (code, error)
  assert path.read_text() == 'kept'


def test_binary_flag_file_is_one_line(tmp_path):
  path = tmp_path / 'flags.cfg'
  path.write_bytes(b'--v=0\n\xff\xfe')
  with pytest.raises(application.UserError, match=f'{path} is no text'):
    application.parse_flags(['program', f'--flagfile={path}'])


@pytest.mark.parametrize(
    'argument, environment, level, is_told',
    [
        ('--v=-1', {}, '3', False),
        ('--v=0', {}, '3', True),
        ('--v=1', {}, '0', True),
        ('--v=-1', {'TF_CPP_MIN_LOG_LEVEL': '1'}, '1', False),
    ],
)
def test_libraries_are_quiet_unless_asked_for_more(
    argument, environment, level, is_told
):
  result = _run(
      """
      application.logging.info('of a library')
      warnings.warn('a warning')
      print(os.environ['TF_CPP_MIN_LOG_LEVEL'])
      return 0
      """,
      argument,
      **environment,
  )
  assert result.stdout == f'{level}\n'
  assert ('of a library' in result.stderr) == is_told
  assert is_told or result.stderr == ''


@pytest.mark.parametrize(
    'error, line',
    [
        (ValueError('a\n  b'), 'a b'),
        (KeyError('a'), "KeyError: 'a'"),
        (AssertionError(), 'AssertionError()'),
        (ValueError('a' * 5000 + 'b'), f'{"a" * 300} ... {"a" * 299}b'),
    ],
)
def test_description_is_one_line_of_bounded_length(error, line):
  assert application.describe_error(error) == line


def test_error_file(tmp_path):
  error = ValueError('a\nb')
  path = tmp_path / 'error.txt'
  line = application.write_error(tmp_path, error)
  assert line == f'a b (traceback: {path})'
  assert 'ValueError: a\nb' in path.read_text()
  # Where there can be none, the error is not hidden.
  assert application.write_error(tmp_path / 'missing', error) == 'a b'
