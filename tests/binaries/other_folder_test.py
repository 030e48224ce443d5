"""Tests that a program leaves the folder of another kind alone."""

import pytest

from tests.binaries import programs


def _start(program, folder, *arguments, **environment):
  return programs.start_fake(
      program,
      f'--output_dir={folder}',
      '--rounds=3',
      '--context=native',
      *arguments,
      FAKE_REPORTING='1',
      **environment,
  )


def _contents(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


_COMPARE = ('compare', '--aggregators=mean', '--attacks=none', '--noreport')


@pytest.mark.parametrize(
    'first, second, found',
    [
        (_COMPARE, ('train',), 'a comparison (settings.json)'),
        (_COMPARE, ('train', '--overwrite'), 'a comparison (settings.json)'),
        (('train',), _COMPARE, 'a single run (metrics.csv)'),
    ],
    ids=['train', 'train_overwrite', 'compare'],
)
def test_folder_of_another_kind_is_refused(tmp_path, first, second, found):
  assert programs.finish(_start(first[0], tmp_path, *first[1:])).returncode == 0
  before = _contents(tmp_path)
  result = programs.finish(_start(second[0], tmp_path, *second[1:]))
  assert (result.returncode, result.stdout) == (1, '')
  assert result.stderr == (
      f'{second[0]}: {tmp_path} holds {found}; choose another --output_dir.\n'
  )
  assert _contents(tmp_path) == before


@pytest.mark.parametrize(
    'first, second',
    [
        (_COMPARE, ('train', '--overwrite')),
        (('train', '--aggregator=mean'), _COMPARE),
    ],
    ids=['train', 'compare'],
)
def test_running_program_of_another_kind_is_left_alone(tmp_path, first, second):
  process = _start(first[0], tmp_path, *first[1:], FAKE_ENDLESS='mean')
  try:
    programs.wait_until(lambda: list(tmp_path.rglob('metrics.csv')))
    result = programs.finish(_start(second[0], tmp_path, *second[1:]))
  finally:
    process.kill()
    process.communicate()
  assert result.returncode == 1
  assert result.stderr == (
      f'{second[0]}: another program is writing to {tmp_path}; wait until it'
      ' has ended or choose another --output_dir.\n'
  )
