"""Tests for checkpoints."""

import asyncio
import collections
import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.simulation import checkpoints as checkpoints_lib
from tests import small_problem

_State = collections.namedtuple('_State', ['weights', 'tables', 'nothing'])


def _make_state(value, num_rows=2):
  return _State(
      tff.learning.models.ModelWeights(
          (np.full([2, 3], value, np.float32), np.float32(np.nan)), ()
      ),
      collections.OrderedDict(
          z=np.full([num_rows, 2], value, np.float64),
          seed=np.array([2**62 + 1, -1], np.int64),
          finite=np.arange(num_rows) > 0,
          round=np.int32(value),
      ),
      (),
  )


def _assert_equal(first, second):
  tf.nest.assert_same_structure(first, second)
  small_problem.assert_bit_identical(first, second)


def _make(folder, **options):
  warnings = []
  made = checkpoints_lib.Checkpoints(folder, warn=warnings.append, **options)
  return made, warnings


@pytest.mark.parametrize('num_rows', [0, 1, 5])
def test_state_is_restored_to_the_last_bit(tmp_path, num_rows):
  saved, _ = _make(tmp_path / 'a' / 'b')
  saved.save(_make_state(7, num_rows), 3)
  again, warnings = _make(tmp_path / 'a' / 'b')
  round_num, state = again.restore(_make_state(0, 0))
  assert round_num == 3
  assert isinstance(state, _State)
  assert isinstance(state.weights, tff.learning.models.ModelWeights)
  _assert_equal(state, _make_state(7, num_rows))
  assert not warnings


def test_nothing_is_restored_from_an_empty_folder(tmp_path):
  made, warnings = _make(tmp_path)
  assert made.rounds() == []
  assert made.restore(_make_state(0)) is None
  assert not warnings


def test_the_newest_are_kept(tmp_path):
  made, _ = _make(tmp_path, keep=2)
  for round_num in (1, 2, 9, 10):
    made.save(_make_state(round_num), round_num)
  assert made.rounds() == [9, 10]
  assert sorted(os.listdir(tmp_path)) == ['round_10', 'round_9']
  with pytest.raises(tff.program.ProgramStateExistsError):
    made.save(_make_state(10), 10)


@pytest.mark.parametrize(
    'name',
    [
        'saved_model.pb',
        'variables/variables.index',
        'variables/variables.data-00000-of-00001',
    ],
)
def test_torn_state_is_passed_over_with_a_warning(tmp_path, name):
  made, warnings = _make(tmp_path / 'c')
  for round_num in (4, 8):
    made.save(_make_state(round_num), round_num)
  path = tmp_path / 'c' / 'round_8' / name
  content = path.read_bytes()
  middle = len(content) // 2
  shutil.copytree(tmp_path / 'c', tmp_path / 'copy')
  for torn in (
      content[:middle],
      content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
      b'',
      None,
  ):
    shutil.rmtree(tmp_path / 'c')
    shutil.copytree(tmp_path / 'copy', tmp_path / 'c')
    path.unlink()
    if torn is not None:
      path.write_bytes(torn)
    round_num, state = made.restore(_make_state(0))
    assert round_num == 4
    _assert_equal(state, _make_state(4))
    assert warnings.pop().startswith(
        'the checkpoint of round 8 cannot be read and is passed over: '
    )
    assert not warnings
    # Its round can be saved again.
    made.save(_make_state(8), 8)
    assert made.restore(_make_state(0)).round_num == 8


def test_all_torn(tmp_path):
  made, warnings = _make(tmp_path)
  for round_num in (1, 2):
    made.save(_make_state(1), round_num)
    (tmp_path / f'round_{round_num}' / 'saved_model.pb').unlink()
  assert made.restore(_make_state(0)) is None
  assert len(warnings) == 2
  assert sorted(os.listdir(tmp_path)) == [
      'unreadable_round_1', 'unreadable_round_2',
  ]
  # They do not count among those that are kept.
  for round_num in (1, 2, 3):
    made.save(_make_state(1), round_num)
  assert made.rounds() == [1, 2, 3]


def test_state_of_another_structure_is_passed_over(tmp_path):
  made, warnings = _make(tmp_path)
  made.save(_make_state(1), 1)
  assert made.restore({'other': np.float32(0)}) is None
  assert len(warnings) == 1


def test_later_states_are_removed(tmp_path):
  made, _ = _make(tmp_path)
  for round_num in (2, 4, 6):
    made.save(_make_state(round_num), round_num)
  assert made.restore(_make_state(0), last_round=5).round_num == 4
  assert made.rounds() == [2, 4]
  assert made.restore(_make_state(0), last_round=0) is None
  assert made.rounds() == []


def test_what_a_killed_process_left_is_removed(tmp_path):
  made, warnings = _make(tmp_path)
  made.save(_make_state(1), 1)
  (tmp_path / 'round_2_temp1234').mkdir()
  (tmp_path / 'round_2_temp1234' / 'saved_model.pb').touch()
  (tmp_path / 'round_2_temporary').mkdir()
  assert made.restore(_make_state(0)).round_num == 1
  assert sorted(os.listdir(tmp_path)) == ['round_1', 'round_2_temporary']
  assert not warnings


def test_failure_to_save_keeps_what_is_there(tmp_path):
  made, _ = _make(tmp_path, keep=1)
  made.save(_make_state(1), 1)

  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  try:
    with pytest.raises(OSError, match='cannot write the checkpoint .*round_2'):
      made.save(_make_state(2, num_rows=100_000), 2)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == ['round_1']
  assert made.restore(_make_state(0)).round_num == 1


def test_works_where_an_event_loop_runs(tmp_path):
  made, _ = _make(tmp_path)

  async def save():
    made.save(_make_state(1), 1)
    return made.restore(_make_state(0))

  assert asyncio.run(save()).round_num == 1


@pytest.mark.parametrize(
    'options, kind, message',
    [
        (dict(folder=3), TypeError, 'folder must .* found int'),
        (dict(keep=0), ValueError, 'keep must be >= 1; found 0'),
        (dict(keep=1.5), TypeError, 'keep must be an int; found 1.5'),
        (dict(warn=None), TypeError, 'warn must be a Callable; found NoneType'),
    ],
)
def test_rejects_other_arguments(tmp_path, options, kind, message):
  with pytest.raises(kind, match=message):
    checkpoints_lib.Checkpoints(**{'folder': tmp_path, **options})


def test_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError):
    checkpoints_lib.Checkpoints(tmp_path / 'file' / 'folder')
