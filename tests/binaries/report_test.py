"""Tests for report."""

import os

from matplotlib import image
import pytest

from binaries import report
from tests.binaries import programs
from tests.binaries import report_folder


@pytest.fixture(name='folder')
def _make_folder(tmp_path):
  return report_folder.write(
      tmp_path / 'results',
      {(a, b): 0.5 for a in ('mean', 'oracle') for b in ('none', 'flip')},
  )


def test_page_and_files_are_written(folder):
  result = programs.run('binaries.report', folder)
  assert result.returncode == 0, result.stderr
  assert result.stdout == (
      f'See {folder}/report.html and {folder}/report\n'
  )
  assert result.stderr == ''
  assert 'digits, 3 rounds' in (folder / 'report.html').read_text()
  names = (
      'accuracy', 'difference_to_oracle', 'difference_to_best_baseline',
      'learning_curves',
  )
  assert {path.name for path in (folder / 'report').iterdir()} == {
      f'{name}_40_percent.{suffix}'
      for name in names
      for suffix in ('png', 'csv', 'md')
  }
  for path in (folder / 'report').glob('*.png'):
    assert min(image.imread(path).shape[:2]) > 150


def test_what_compare_writes_can_be_reported(tmp_path):
  compared = programs.run_fake(
      'compare',
      f'--output_dir={tmp_path}',
      '--aggregators=mean,krum:num_byzantine=2,fedaot',
      '--attacks=none,sign_flip',
      '--rounds=3',
      '--seeds=0,1',
      '--noreport',
      FAKE_FAILURE='krum:num_byzantine=2',
  )
  assert compared.returncode == 1, compared.stderr
  output = tmp_path / 'elsewhere' / 'page.html'
  result = programs.run('binaries.report', f'--output={output}', tmp_path)
  assert result.returncode == 0, result.stderr
  page = output.read_text()
  assert '8 of 12 runs have a result, 4 failed.' in page
  assert 'ValueError: something is' in page or 'wrong' in page
  assert (output.parent / 'report' / 'runs_without_result.csv').exists()
  assert not (tmp_path / 'report.html').exists()


def _error(*arguments):
  """The one line that the program ends with."""
  result = programs.run('binaries.report', *arguments)
  assert result.returncode == 1
  assert result.stdout == ''
  (line,) = result.stderr.splitlines()
  assert line.startswith('report: ')
  return line


def test_missing_folder_and_too_many_arguments(tmp_path):
  assert 'name the folder of results' in _error()
  assert 'there is no folder' in _error(tmp_path / 'missing')
  assert "unexpected argument 'b'" in _error(tmp_path, 'b')


def test_output_that_cannot_be_written(folder, tmp_path):
  assert 'is a folder' in _error(folder, f'--output={tmp_path}')
  (tmp_path / 'file').write_text('')
  assert 'cannot write to the output folder' in _error(
      folder, f'--output={tmp_path}/file/report.html'
  )


@pytest.mark.skipif(
    not os.path.exists('/dev/full'), reason='needs /dev/full'
)
def test_full_disk(folder):
  (folder / 'report.html').symlink_to('/dev/full')
  assert 'cannot write' in _error(folder)


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['a'], ['--results_dir=a']),
        (['--output=x', 'a'], ['--output=x', '--results_dir=a']),
        (['--output', 'x', 'a'], ['--output', 'x', '--results_dir=a']),
        (['a', '--output', 'x'], ['--results_dir=a', '--output', 'x']),
        (['a', 'b'], ['--results_dir=a', 'b']),
        (['--help'], ['--help']),
        ([], []),
    ],
)
def test_folder_without_a_flag(argv, expected):
  assert report.name_folder(argv) == expected


def test_tensorflow_is_not_needed():
  loaded = programs.loaded_packages('binaries.report', 'binaries.reporting.page')
  assert not any('tensorflow' in name for name in loaded)
