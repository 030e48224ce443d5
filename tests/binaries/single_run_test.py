"""Tests for single_run."""

import pathlib

import pytest

from binaries import application
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import single_run
from tests.binaries import fake_program


@pytest.fixture(name='parsed_flags', autouse=True)
def _parsed_flags():
  if not application.flags.FLAGS.is_parsed():
    application.flags.FLAGS(['program'])


class _Progress:
  """Keeps what it is told."""

  def __init__(self):
    self.advances = []
    self.warnings = []
    self.advance = self.advances.append
    self.warn = self.warnings.append
    self.notes = []
    self.note = self.notes.append
    self.remarks = []
    self.remark = self.remarks.append


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


class _HoldingRunner(fake_program.FakeRunner):
  """Holds on to the rounds, which therefore end only if they are closed."""

  def run(self, experiment, **options):
    self.rounds = super().run(experiment, **options)
    return self.rounds


class _NoRunner:
  """Must not be asked to run anything."""


def _make_experiment(rounds=6, **settings):
  return experiment_lib.Experiment(
      **settings, task_options={'rounds': rounds}
  )


def _run(runner, experiment, folder, **options):
  progress = _Progress()
  folder.mkdir(exist_ok=True)
  rows = single_run.run(runner, experiment, folder, progress, **options)
  return rows, progress


def _without_times(rows):
  return [{k: v for k, v in r.items() if 'seconds' not in k} for r in rows]


@pytest.mark.parametrize('num_rounds', [1, 2, 3, 5])
def test_goes_on_with_a_run(tmp_path, num_rounds):
  experiment = _make_experiment()
  whole, _ = _run(
      fake_program.FakeRunner(), experiment, tmp_path / 'whole'
  )
  folder = tmp_path / 'interrupted'
  with pytest.raises(application.UserError, match='interrupted'):
    _run(
        _InterruptedRunner(num_rounds), experiment, folder, checkpoint_every=2
    )
  assert (folder / 'error.txt').exists()
  rows, progress = _run(
      fake_program.FakeRunner(), experiment, folder, checkpoint_every=2
  )
  # The failure came before the checkpoint of its round.
  assert len(progress.advances) == 6 - (num_rounds - 1) // 2 * 2
  assert [row['round'] for row in rows] == list(range(1, 7))
  assert _without_times(rows) == _without_times(whole)
  assert not (folder / 'error.txt').exists()
  assert (folder / 'weights.csv').read_bytes() == (
      tmp_path / 'whole' / 'weights.csv'
  ).read_bytes()


def test_finished_run_is_not_run_again(tmp_path):
  experiment = _make_experiment()
  rows, _ = _run(fake_program.FakeRunner(), experiment, tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  again, progress = _run(_NoRunner(), experiment, tmp_path)
  assert again == rows
  assert not progress.advances
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == before


@pytest.mark.parametrize('keep', [False, True])
def test_what_is_remarked_of_a_run_comes_at_its_end(tmp_path, keep):
  runner = _HoldingRunner()
  _, progress = _run(
      runner,
      _make_experiment(context='in_process'),
      tmp_path,
      # Nobody asks for what comes after the last round if it is not kept.
      keep_checkpoints=keep,
  )
  assert len(progress.advances) == 6
  (remark,) = progress.remarks
  assert remark.endswith('was not busy')


@pytest.mark.parametrize('failing', ['runner', 'caller'])
def test_what_is_remarked_of_a_run_that_fails(tmp_path, failing):
  progress = _Progress()
  runner = fake_program.FakeRunner()
  if failing == 'runner':
    runner = _InterruptedRunner(2)
  else:
    progress.advance = None
  with pytest.raises(application.UserError):
    single_run.run(
        runner, _make_experiment(context='in_process'), tmp_path, progress
    )
  assert len(progress.remarks) == 1


@pytest.mark.parametrize('keep', [False, True])
def test_checkpoints_of_a_finished_run(tmp_path, keep):
  _run(
      fake_program.FakeRunner(),
      _make_experiment(),
      tmp_path,
      checkpoint_every=2,
      keep_checkpoints=keep,
  )
  assert (tmp_path / 'checkpoints').exists() == keep
  if keep:
    assert (tmp_path / 'checkpoints' / 'round_6').exists()


def test_run_with_other_settings_is_left_alone(tmp_path):
  experiment = _make_experiment()
  _run(fake_program.FakeRunner(), experiment, tmp_path)
  before = (tmp_path / 'metrics.csv').read_bytes()
  with pytest.raises(
      application.UserError,
      match='holds a run with seed=0, not 1; choose another --output_dir or'
      ' remove it.',
  ):
    _run(_NoRunner(), _make_experiment(seed=1), tmp_path)
  assert (tmp_path / 'metrics.csv').read_bytes() == before
  # The lock is given up.
  _run(_NoRunner(), experiment, tmp_path)


def test_run_without_a_row_is_begun_anew(tmp_path):
  experiment = _make_experiment()
  with pytest.raises(application.UserError):
    _run(_NoRunner(), _make_experiment(seed=1), tmp_path)
  rows, _ = _run(fake_program.FakeRunner(), experiment, tmp_path)
  assert len(rows) == 6
  assert not single_run.run_record.read(tmp_path).get('continued')


def test_newest_checkpoint_is_one_that_has_its_rows(tmp_path):
  experiment = _make_experiment()
  with pytest.raises(application.UserError):
    _run(_InterruptedRunner(3), experiment, tmp_path, checkpoint_every=1)
  with single_run.Run(experiment, tmp_path) as run:
    assert run.newest_checkpoint == 2
    assert not run.is_finished
    assert len(run.rows) == 3
  for name in ('round_5', 'round_3_temp1', 'unreadable_round_3'):
    (tmp_path / 'checkpoints' / name).mkdir()
  with single_run.Run(experiment, tmp_path) as run:
    assert run.newest_checkpoint == 2


def test_weights_of_another_aggregator_are_removed_when_begun_anew(tmp_path):
  _run(fake_program.FakeRunner(), _make_experiment(), tmp_path)
  assert csv_log.read_rows(tmp_path / 'weights.csv')
  with single_run.Run(
      _make_experiment(aggregator='mean'), tmp_path, overwrite=True
  ) as run:
    run.finish(fake_program.FakeRunner(), _Progress())
  assert not (tmp_path / 'weights.csv').exists()


def test_foreign_files_survive_overwriting(tmp_path):
  kept = [
      tmp_path / 'checkpoints' / 'mine' / 'file',
      tmp_path / 'tensorboard' / 'mine',
      tmp_path / 'mine',
  ]
  for path in kept:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('kept')
  with single_run.Run(_make_experiment(), tmp_path, overwrite=True) as run:
    run.finish(fake_program.FakeRunner(), _Progress())
  assert all(path.read_text() == 'kept' for path in kept)


def test_second_run_on_a_folder_is_refused(tmp_path):
  experiment = _make_experiment()
  with single_run.Run(experiment, tmp_path):
    with pytest.raises(application.UserError, match='another program is writ'):
      single_run.Run(experiment, tmp_path)


def test_folder_that_is_not_there_is_a_user_error(tmp_path):
  with pytest.raises(application.UserError, match='cannot write'):
    single_run.Run(_make_experiment(), pathlib.Path(tmp_path) / 'missing')
