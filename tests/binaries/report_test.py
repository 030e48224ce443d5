"""Tests for report."""

import resource

from absl import flags
from absl.testing import flagsaver
from matplotlib import image
import pytest

from binaries import application
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
  assert result.stdout == (f'See {folder}/report.html and {folder}/report\n')
  assert result.stderr == ''
  assert 'digits, 3 rounds' in (folder / 'report.html').read_text()
  names = (
      'accuracy',
      'difference_to_oracle',
      'difference_to_best_baseline',
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
      '--noreport',
      '--rounds=3',
      '--aggregators=mean,krum,fedaot',
      '--attacks=none',
      '--seeds=0,1',
      FAKE_FAILURE='krum',
      FAKE_REPORTING='1',
  )
  assert compared.returncode == 1, compared.stderr
  output = tmp_path / 'elsewhere' / 'page.html'
  result = programs.run('binaries.report', f'--output={output}', tmp_path)
  assert result.returncode == 0, result.stderr
  page = output.read_text()
  assert '4 of 6 runs have a result, 2 failed.' in page
  assert 'ValueError: something is' in page or 'wrong' in page
  assert (output.parent / 'report' / 'runs_without_result.csv').exists()
  assert not (tmp_path / 'report.html').exists()


def test_wrong_arguments_are_told_in_one_line(tmp_path):
  result = programs.run('binaries.report', tmp_path / 'missing')
  assert (result.returncode, result.stdout) == (1, '')
  assert result.stderr.startswith('report: there is no folder')
  assert result.stderr.count('\n') == 1
  with pytest.raises(application.UserError, match='name the folder of results'):
    report.main()


def _error(folder, output=None):
  """The one line that the program ends with."""
  with flagsaver.flagsaver(), pytest.raises(application.UserError) as error:
    flags.FLAGS(['report', *([f'--output={output}'] if output else [])])
    report.main(folder)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_output_that_cannot_be_written(folder, tmp_path):
  assert 'is no file; name one' in _error(folder, tmp_path)
  results = folder / 'results.csv'
  before = results.read_text()
  assert 'does not end in .html; name a page' in _error(folder, results)
  assert results.read_text() == before
  (tmp_path / 'file').write_text('')
  assert 'cannot write to the output folder' in _error(
      folder, f'{tmp_path}/file/report.html'
  )
  (folder / 'report.html').symlink_to('/dev/full')
  assert 'is no file; name one' in _error(folder)


def test_page_for_which_there_is_no_room_stays_as_it_was(folder):
  (folder / 'report.html').write_text('before')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
  try:
    assert _error(folder).endswith(': File too large.')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert (folder / 'report.html').read_text() == 'before'
  assert not list(folder.rglob('*.unfinished'))


def test_tensorflow_is_not_needed():
  loaded = programs.loaded_packages('binaries.reporting.page')
  assert not any('tensorflow' in name for name in loaded)
