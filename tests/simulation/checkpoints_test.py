"""Tests for checkpoints."""

import collections
import json
import os
import pickle
import resource
import shutil
import zlib

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
  made.save(_make_state(11), 10)
  assert made.restore(_make_state(0)).state.tables['round'] == 11


def _flip(content, place):
  return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _sealed(manifest, arrays):
  """A file whose checksum is right, whatever is in it."""
  content = manifest + b'\n' + arrays
  return b'fedaot checkpoint 1, CRC-32 %08x\n' % zlib.crc32(content) + content


def _change(**changes):
  """Changes the manifest, and the checksum with it."""

  def damage(content):
    _, manifest, arrays = content.split(b'\n', 2)
    changed = json.dumps({**json.loads(manifest), **changes})
    return _sealed(changed.encode(), arrays)

  return damage


_SHAPES = [
    ['weights/trainable/0', 'float32', [2, 3]],
    ['weights/trainable/1', 'float32', []],
    ['tables/finite', 'bool', [2]],
    ['tables/round', 'int32', []],
    ['tables/seed', 'int64', [2]],
    ['tables/z', 'float64', [2, 2]],
]


def _change_array(index, *parts):
  arrays = [list(array) for array in _SHAPES]
  arrays[index] = list(parts)
  return _change(arrays=arrays)


_DAMAGED = 'it is damaged, or of another version.'
_DAMAGES = {
    'half': (lambda c: c[: len(c) // 2], _DAMAGED),
    'empty': (lambda c: b'', _DAMAGED),
    'bit_of_the_head': (lambda c: _flip(c, 3), _DAMAGED),
    'bit_of_the_manifest': (lambda c: _flip(c, 60), _DAMAGED),
    'bit_of_a_value': (lambda c: _flip(c, len(c) - 5), _DAMAGED),
    'one_byte_more': (lambda c: c + b'0', _DAMAGED),
    'later_version': (lambda c: c.replace(b'1', b'2', 1), _DAMAGED),
    'pickle': (lambda c: pickle.dumps(_make_state(8)), _DAMAGED),
    'another_round': (_change(round=9), 'it is that of round 9.'),
    'less': (
        _change(arrays=_SHAPES[1:]),
        'only one of it and the training has weights/trainable/0.',
    ),
    'renamed': (
        _change_array(4, 'tables/weed', 'int64', [2]),
        'only one of it and the training has tables/seed.',
    ),
    'order': (
        _change(arrays=_SHAPES[::-1]),
        'tables/z is float64 [2, 2] in it, and float32 [2, 3] in the training.',
    ),
    'dtype': (
        _change_array(3, 'tables/round', 'float32', []),
        'tables/round is float32 [] in it, and int32 [] in the training.',
    ),
    'shape': (
        _change_array(0, 'weights/trainable/0', 'float32', [3, 2]),
        'weights/trainable/0 is float32 [3, 2] in it, and float32 [2, 3] in the'
        ' training.',
    ),
    'rank': (
        _change_array(3, 'tables/round', 'int32', [1]),
        'tables/round is int32 [1] in it, and int32 [] in the training.',
    ),
    'too_many_bytes': (
        lambda c: _sealed(*(c + b'00').split(b'\n', 2)[1:]),
        'it has 2 bytes too many.',
    ),
    'too_few_bytes': (
        lambda c: _sealed(*c[:-1].split(b'\n', 2)[1:]),
        'buffer is smaller than requested size',
    ),
    'no_manifest': (lambda c: _sealed(b'[1]', b''), 'list indices must be'),
    'no_json': (lambda c: _sealed(b'{', b''), 'Expecting property name'),
    'endless': (lambda c: _sealed(b'[' * 10**5, b''), 'maximum recursion'),
}


def _put(make):
  """Puts something else into the place of a checkpoint."""

  def damage(path):
    path.unlink()
    make(path)

  return damage


def _make_saved_model(path):
  tf.saved_model.save(tf.Module(), os.fspath(path))


_ENTRIES = {
    'saved_model': (
        _put(_make_saved_model),
        'it is a folder, as of an earlier version, and may hold code.',
    ),
    'pipe': (_put(os.mkfifo), 'it is no file.'),
    'loose_link': (_put(lambda p: p.symlink_to('nowhere')), 'it is no file.'),
    'copy': (
        lambda p: shutil.copy(p.with_name('round_4'), p),
        'it is that of round 4.',
    ),
    **{
        name: (
            lambda p, change=change: p.write_bytes(change(p.read_bytes())),
            message,
        )
        for name, (change, message) in _DAMAGES.items()
    },
}


@pytest.mark.parametrize(
    'damage, message', _ENTRIES.values(), ids=_ENTRIES.keys()
)
def test_what_does_not_serve_is_passed_over_in_a_line(
    tmp_path, damage, message
):
  made, warnings = _make(tmp_path)
  for round_num in (4, 8):
    made.save(_make_state(round_num), round_num)
  damage(tmp_path / 'round_8')
  round_num, state = made.restore(_make_state(0))
  assert round_num == 4
  _assert_equal(state, _make_state(4))
  (warning,) = warnings
  assert '\n' not in warning
  assert warning.startswith(
      'the checkpoint of round 8 cannot be read and is passed over: ' + message
  )
  assert sorted(os.listdir(tmp_path)) == ['round_4', 'unreadable_round_8']
  # Its round can be saved again.
  made.save(_make_state(8), 8)
  assert made.restore(_make_state(0)).round_num == 8


@pytest.mark.parametrize(
    'name',
    ['round_08', 'round_²', 'round_-9', 'round_9.bak', 'Round_9', 'round_'],
)
@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo], ids=['folder', 'pipe'])
def test_foreign_entries_are_left_alone(tmp_path, name, make):
  made, warnings = _make(tmp_path, keep=1)
  make(tmp_path / name)
  for round_num in (4, 5):
    made.save(_make_state(round_num), round_num)
  assert made.rounds() == [5]
  assert made.restore(_make_state(0)).round_num == 5
  assert not warnings
  assert sorted(os.listdir(tmp_path)) == sorted(['round_5', name])


def test_a_planted_graph_does_not_run(tmp_path):
  made, warnings = _make(tmp_path)

  @tf.function(input_signature=[])
  def plant():
    tf.io.write_file(os.fspath(tmp_path / 'written'), 'by the graph')
    return ()

  # What TFF's manager of program states saves, and calls when it restores.
  module = tf.Module()
  module.__call__ = plant
  tf.saved_model.save(module, os.fspath(tmp_path / 'round_3'))
  assert made.restore(_make_state(0)) is None
  assert len(warnings) == 1
  assert os.listdir(tmp_path) == ['unreadable_round_3']


def test_checkpoint_costs_little_more_than_its_bytes(tmp_path):
  made, _ = _make(tmp_path)
  state = {'weights': np.ones([1000, 1000])}
  made.save(state, 1)
  assert (tmp_path / 'round_1').stat().st_size < 8_000_200


@pytest.mark.parametrize(
    'state', [{'a': None}, {'a': {'b': object()}}, [np.array(['x', None])]]
)
def test_state_of_something_else_than_numbers_is_refused(tmp_path, state):
  made, _ = _make(tmp_path)
  with pytest.raises(TypeError, match='a state must hold numbers; found'):
    made.save(state, 1)
  assert not os.listdir(tmp_path)


def test_all_torn(tmp_path):
  made, warnings = _make(tmp_path)
  for round_num in (1, 2):
    made.save(_make_state(1), round_num)
    (tmp_path / f'round_{round_num}').write_bytes(b'torn')
  assert made.restore(_make_state(0)) is None
  assert len(warnings) == 2
  assert sorted(os.listdir(tmp_path)) == [
      'unreadable_round_1',
      'unreadable_round_2',
  ]
  # They do not count among those that are kept.
  for round_num in (1, 2, 3):
    made.save(_make_state(1), round_num)
  assert made.rounds() == [1, 2, 3]


def test_later_states_are_removed(tmp_path):
  made, _ = _make(tmp_path)
  for round_num in (2, 4, 6):
    made.save(_make_state(round_num), round_num)
  assert made.restore(_make_state(0), last_round=5).round_num == 4
  assert made.rounds() == [2, 4]
  assert made.restore(_make_state(0), last_round=0) is None
  assert made.rounds() == []


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
  made, warnings = _make(tmp_path)
  made.save(_make_state(1), 1)
  (tmp_path / 'round_2.unfinished').write_bytes(b'half')
  assert made.restore(_make_state(0)).round_num == 1
  made.save(_make_state(2), 2)
  assert sorted(os.listdir(tmp_path)) == ['round_1', 'round_2']
  assert not warnings


def test_failure_to_save_keeps_what_is_there(tmp_path):
  made, _ = _make(tmp_path, keep=1)
  made.save(_make_state(1), 1)

  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  try:
    with pytest.raises(OSError, match='checkpoint .*round_2: File too large'):
      made.save(_make_state(2, num_rows=100_000), 2)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == ['round_1']
  assert made.restore(_make_state(0)).round_num == 1


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
