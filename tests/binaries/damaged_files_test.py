"""Tests that damaged files are told in a line, whatever the damage."""

import functools
import re
import shutil

import pytest

from tests.binaries import programs


def _run(program, folder, **environment):
  arguments = {
      'train': ['--aggregator=fedaot'],
      'compare': ['--aggregators=mean,fedaot', '--attacks=none', '--noreport'],
  }
  return programs.run_fake(
      program,
      f'--output_dir={folder}',
      '--rounds=3',
      '--context=native',
      *arguments[program],
      FAKE_REPORTING='1',
      **environment,
  )


@pytest.fixture(name='finished', scope='module')
def _make_finished(tmp_path_factory):
  """A finished folder of each program."""
  folders = {}
  for program in ('train', 'compare'):
    folders[program] = tmp_path_factory.mktemp(program)
    assert _run(program, folders[program]).returncode == 0
  return folders


def _put_folder(path):
  path.unlink()
  path.mkdir()


def _change_line(number, change):
  def damage(path):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = change(lines[number])
    path.write_bytes(b''.join(lines))

  return damage


# The last column has a number in every file.
_OF_CSV = {
    'letter': _change_line(2, lambda line: line[:-2] + b'x\n'),
    'nul': _change_line(2, lambda line: line[:-2] + b'\0\n'),
    'bad_utf8': _change_line(2, lambda line: line[:-2] + b'\xff\n'),
    'half_a_line': _change_line(2, lambda line: line[: len(line) // 2] + b'\n'),
    'quote': _change_line(1, lambda line: b'"' + line),
    'header': _change_line(0, lambda line: line[3:]),
    'folder': _put_folder,
}
_MEASURED = {
    # What no parser can tell from what was written.
    'name': _change_line(1, lambda line: line.replace(b'mean', b'meen')),
    'digit': _change_line(1, lambda line: line.replace(b',0.', b',0.1', 1)),
    'emptied': _change_line(
        1, lambda line: re.sub(rb',0\.[^,]+', b',', line, count=1)
    ),
    'copied': _change_line(1, lambda line: line + line),
}
_OF_JSON = {
    'list': lambda path: path.write_text('[]'),
    'nul': lambda path: path.write_bytes(b'\0' + path.read_bytes()),
    'bad_utf8': lambda path: path.write_bytes(b'\xff' + path.read_bytes()),
    'half': lambda path: path.write_text(path.read_text()[:60]),
    'missing': lambda path: path.write_text('{}'),
    'folder': _put_folder,
}
_OF_RECORD = {
    f'list_{name}': functools.partial(
        programs.change_json, change=lambda record, new=new: record.update(new)
    )
    for name, new in (
        ('settings', {'settings': [1]}),
        ('versions', {'versions': ['a']}),
        ('continued', {'continued': {}}),
    )
}
_CASES = [
    pytest.param(program, name, damage, id=f'{program}-{name}-{kind}')
    for program, name, damages in (
        ('train', 'metrics.csv', {**_OF_CSV, 'emptied': _MEASURED['emptied']}),
        ('train', 'weights.csv', {**_OF_CSV, 'gone': lambda p: p.unlink()}),
        ('train', 'run.json', {**_OF_JSON, **_OF_RECORD}),
        ('compare', 'results.csv', {**_OF_CSV, **_MEASURED}),
        ('compare', 'settings.json', _OF_JSON),
    )
    for kind, damage in damages.items()
]


@pytest.mark.parametrize('program, name, damage', _CASES)
def test_damage_is_one_line(tmp_path, finished, program, name, damage):
  folder = tmp_path / 'damaged'
  shutil.copytree(finished[program], folder)
  damage(folder / name)
  before = sorted(folder.rglob('*'))
  result = _run(program, folder)
  assert result.returncode == 1, result
  (line,) = result.stderr.splitlines()
  assert line.startswith(f'{program}: ')
  assert name in line and str(folder) in line
  assert 'Traceback' not in line and 'Error' not in line
  assert sorted(folder.rglob('*')) == before


@pytest.mark.parametrize(
    'name, damage',
    [
        ('metrics.csv', _change_line(1, lambda line: line[:-2] + b'x\n')),
        ('weights.csv', _change_line(1, lambda line: line[:-2] + b'\xff\n')),
        ('run.json', _OF_RECORD['list_settings']),
        ('', lambda path: (shutil.rmtree(path), path.write_text('a file'))),
    ],
    ids=['metrics', 'weights', 'record', 'folder'],
)
def test_damaged_run_does_not_stop_the_others(tmp_path, name, damage):
  assert _run('compare', tmp_path, FAKE_FAILURE='fedaot').returncode == 1
  (tmp_path / 'results.csv').unlink()
  shutil.rmtree(tmp_path / 'runs' / 'mnist5k-mean-none-0.4-0')
  path = tmp_path / 'runs' / 'mnist5k-fedaot-none-0.4-0' / name
  damage(path)
  result = _run('compare', tmp_path)
  assert result.returncode == 1
  assert 'Traceback' not in result.stderr
  (line,) = [l for l in result.stderr.splitlines() if 'failed: ' in l]
  assert line.startswith('2/2 fedaot, none, 40%, seed 0: failed: cannot ')
  assert str(path) in line
  (row,) = programs.read_lines(tmp_path / 'results.csv')[1:]
  assert row.startswith('mnist5k,mean,none,')
