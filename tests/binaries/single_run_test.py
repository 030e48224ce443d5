"""Tests for single_run."""

import contextlib
import shutil

import pytest

from binaries import application
from binaries import experiment as experiment_lib
from binaries import single_run
from tests.binaries import fake_program


@pytest.fixture(name='parsed_flags', autouse=True)
def _parsed_flags():
  if not application.flags.FLAGS.is_parsed():
    application.flags.FLAGS(['program'])


class _Report:
  """Keeps what it is told, as lists by the name of the method."""

  def __init__(self):
    self.told = {}

  def __getattr__(self, name):
    return self.told.setdefault(name, []).append


class _InterruptedRunner(fake_program.FakeRunner):
  """Fails after some rounds."""

  def __init__(self, num_rounds):
    super().__init__()
    self._num_rounds = num_rounds

  def run(self, experiment, **options):
    for record in super().run(experiment, **options):
      yield record
      if record.round_num == self._num_rounds:
        raise RuntimeError('interrupted')


def _make_experiment(**settings):
  return experiment_lib.Experiment(**settings, task_options={'rounds': 6})


@pytest.fixture(name='run')
def _run(monkeypatch):
  """A function that runs an experiment; returns rows and what was told."""

  def run(
      folder, runner=None, experiment=_make_experiment(), report=None, **options
  ):
    monkeypatch.setattr(
        single_run,
        'shared_runner',
        lambda: fake_program.FakeRunner() if runner is None else runner,
    )
    report = report or _Report()
    rows = single_run.run(experiment, folder, report, **options)
    return rows, report.told

  return run


def _without_times(rows):
  return [{k: v for k, v in r.items() if 'seconds' not in k} for r in rows]


@pytest.mark.parametrize('num_rounds', [1, 3, 4])
def test_goes_on_with_a_run(tmp_path, run, num_rounds):
  whole, _ = run(tmp_path / 'whole')
  folder = tmp_path / 'interrupted'
  with pytest.raises(application.UserError, match='interrupted'):
    run(folder, _InterruptedRunner(num_rounds), checkpoint_every=2)
  assert (folder / 'error.txt').exists()
  for name in ('round_9', 'round_3.unfinished', 'unreadable_round_3'):
    (folder / 'checkpoints' / name).mkdir()
  rows, told = run(folder, checkpoint_every=2)
  # The failure came before the checkpoint of its round.
  done = (num_rounds - 1) // 2 * 2
  assert told.get('skip', []) == ([done] if done else [])
  assert len(told['advance']) == 6 - done
  assert [row['round'] for row in rows] == list(range(1, 7))
  assert _without_times(rows) == _without_times(whole)
  assert not (folder / 'error.txt').exists()
  assert (folder / 'weights.csv').read_bytes() == (
      tmp_path / 'whole' / 'weights.csv'
  ).read_bytes()


def test_finished_run_is_not_run_again(tmp_path, run):
  rows, _ = run(tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  again, told = run(tmp_path, 'no runner')
  assert again == rows
  assert not told
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == before


def test_checkpoints_of_a_finished_run_go_unless_they_are_kept(tmp_path, run):
  run(tmp_path / 'a', checkpoint_every=2)
  assert not (tmp_path / 'a' / 'checkpoints').exists()
  run(tmp_path / 'b', checkpoint_every=2, keep_checkpoints=True)
  assert (tmp_path / 'b' / 'checkpoints' / 'round_6').exists()


@pytest.mark.parametrize(
    'context, num_rounds, remarks',
    [
        ('in_process', 6, ['busy for 6 rounds']),
        ('in_process', 2, ['busy for 2 rounds']),
        ('native', 6, []),
    ],
)
def test_use_of_gpus_is_remarked_at_the_end(
    monkeypatch, tmp_path, run, context, num_rounds, remarks
):

  @contextlib.contextmanager
  def monitored(tell):
    try:
      yield
    finally:
      tell(f'busy for {len(report.told["advance"])} rounds')

  monkeypatch.setattr(single_run.gpus, 'monitored', monitored)
  report = _Report()
  with contextlib.suppress(application.UserError):
    runner = _InterruptedRunner(num_rounds)
    run(tmp_path, runner, _make_experiment(context=context), report)
  assert report.told.get('remark', []) == remarks


def test_model_that_is_not_finite_is_told_once(monkeypatch, tmp_path, run):
  monkeypatch.setenv('FAKE_NOT_FINITE', 'fedaot')
  rows, told = run(tmp_path)
  assert told['warn'] == ['the model or its loss is not finite in round 2']
  found = [row['model_is_finite'] for row in rows]
  assert found == [True, False, True, False, True, False]


def test_run_with_other_settings_is_left_alone(tmp_path, run):
  run(tmp_path)
  before = (tmp_path / 'metrics.csv').read_bytes()
  message = (
      r'with seed=0, not 1 \(run.json\); choose another --output_dir or remove'
  )
  with pytest.raises(application.UserError, match=message):
    run(tmp_path, 'no runner', _make_experiment(seed=1))
  assert (tmp_path / 'metrics.csv').read_bytes() == before
  # The lock is given up.
  run(tmp_path, 'no runner')


def test_run_without_a_row_is_begun_anew(tmp_path, run):
  with pytest.raises(application.UserError, match='AttributeError'):
    run(tmp_path, 'no runner', _make_experiment(seed=1))
  rows, _ = run(tmp_path)
  assert len(rows) == 6
  assert 'continued' not in (tmp_path / 'run.json').read_text()


def test_failure_while_overwriting_leaves_no_rows_of_the_other_run(
    tmp_path, run
):
  run(tmp_path)
  experiment = _make_experiment(seed=1)
  with pytest.raises(application.UserError):
    run(tmp_path, 'no runner', experiment, overwrite=True)
  rows, told = run(tmp_path, experiment=experiment)
  assert len(told['advance']) == len(rows) == 6


@pytest.mark.parametrize('name', ['metrics.csv', 'weights.csv'])
@pytest.mark.parametrize('other', [{'seed': 1}, {'attack': 'sign_flip'}])
def test_files_of_another_run_are_refused(tmp_path, run, name, other):
  run(tmp_path / 'a')
  run(tmp_path / 'b', None, _make_experiment(**other))
  (tmp_path / 'b' / name).replace(tmp_path / 'a' / name)
  message = f'a/{name}: line 2 is not as it was written, or of another run'
  with pytest.raises(application.UserError, match=message):
    run(tmp_path / 'a', 'no runner')


def test_checkpoint_of_another_run_is_passed_over(tmp_path, run):
  whole, _ = run(tmp_path / 'whole')
  for name, settings in (('a', {}), ('b', {'seed': 1})):
    with pytest.raises(application.UserError, match='interrupted'):
      experiment = _make_experiment(**settings)
      run(
          tmp_path / name,
          _InterruptedRunner(5),
          experiment,
          checkpoint_every=2,
      )
  path = 'checkpoints/round_4'
  (tmp_path / 'b' / path).replace(tmp_path / 'a' / path)
  rows, told = run(tmp_path / 'a')
  (warning,) = told['warn']
  assert 'of a training with other settings' in warning
  assert _without_times(rows) == _without_times(whole)


def test_copied_folder_is_gone_on_with(tmp_path, run):
  whole, _ = run(tmp_path / 'whole')
  with pytest.raises(application.UserError, match='interrupted'):
    run(tmp_path / 'a', _InterruptedRunner(5), checkpoint_every=2)
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  rows, told = run(tmp_path / 'b', checkpoint_every=3)
  assert (told['skip'], told['warn']) == ([4], [])
  assert _without_times(rows) == _without_times(whole)
