"""Tests for tensorboard_release, round_summary and logging_release."""

import asyncio
import collections
import types
from unittest import mock

from absl import logging
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.simulation import logging_release
from fedaot_tff.simulation import round_summary
from fedaot_tff.simulation import tensorboard_release
from fedaot_tff.simulation import training


def _make_record(round_num, **fields):
  kernel = np.arange(6, dtype=np.float32).reshape(2, 3) + round_num
  defaults = dict(
      round_num=round_num,
      state=types.SimpleNamespace(
          global_model_weights=tff.learning.models.ModelWeights(
              (kernel, np.float32([np.nan, 1.0])), ()
          )
      ),
      seconds=0.5,
      metrics=collections.OrderedDict(
          client_work=collections.OrderedDict(
              train=collections.OrderedDict(loss=np.float32(0.25))
          ),
          aggregator=collections.OrderedDict(
              weights=np.float32([0.1, 0.4, 0.5]), num_clients=np.int32(3)
          ),
          adversary=(),
      ),
      is_byzantine=(True, False, False),
      evaluation=collections.OrderedDict(accuracy=0.5 + round_num, loss=2.0),
      evaluation_seconds=0.25,
  )
  return training.RoundRecord(**{**defaults, **fields})


def _release(manager, *records):
  for record in records:
    asyncio.run(manager.release(record, record.round_num))


def _read(folder):
  """The values by tag: scalars, [minimum, maximum, count], images."""
  found = collections.defaultdict(dict)
  for path in sorted(folder.glob('events.out.tfevents.*')):
    for record in tf.data.TFRecordDataset(str(path)):
      event = tf.compat.v1.Event.FromString(record.numpy())
      for value in event.summary.value:
        tensor = tf.make_ndarray(value.tensor)
        plugin = value.metadata.plugin_data.plugin_name
        if plugin == 'histograms':
          tensor = (tensor[0, 0], tensor[-1, 1], int(tensor[:, 2].sum()))
        assert event.step not in found[plugin, value.tag], value.tag
        found[plugin, value.tag][event.step] = tensor
  return found


def test_scalars_and_histograms(tmp_path):
  _release(
      tensorboard_release.TensorBoardReleaseManager(tmp_path / 'a' / 'b'),
      _make_record(1, evaluation=None, evaluation_seconds=0.0),
      _make_record(2),
  )
  found = _read(tmp_path / 'a' / 'b')
  assert {tag for plugin, tag in found if plugin == 'scalars'} == {
      'test/accuracy',
      'test/loss',
      'attack/num_attackers',
      'attack/attacker_weight',
      'attack/detection_auroc',
      'model_is_finite',
      'process/client_work/train/loss',
      'process/aggregator/num_clients',
      'time/round',
      'time/evaluation',
  }
  assert found['scalars', 'test/accuracy'] == {2: 2.5}
  assert found['scalars', 'attack/num_attackers'] == {1: 1.0, 2: 1.0}
  loss = found['scalars', 'process/client_work/train/loss']
  assert loss == {1: 0.25, 2: 0.25}
  low, high, count = found['histograms', 'weights/honest'][2]
  assert (low, high, count) == pytest.approx((0.4, 0.5, 2))
  *_, count = found['histograms', 'weights/attackers'][1]
  assert count == 1
  assert found['histograms', 'model/trainable/0'] == {2: (2.0, 7.0, 6)}
  # Of NaN and 1, the one.
  assert found['histograms', 'model/trainable/1'][2][2] == 1


def test_everything_is_in_the_file_after_a_release(tmp_path):
  manager = tensorboard_release.TensorBoardReleaseManager(tmp_path)
  for round_num in (1, 2, 3):
    _release(manager, _make_record(round_num))
    assert len(_read(tmp_path)['scalars', 'time/round']) == round_num


def test_goes_on_without_rounds_that_are_released_again(tmp_path):
  images = {'clean': np.zeros([2, 3, 3])}
  _release(
      tensorboard_release.TensorBoardReleaseManager(tmp_path, images=images),
      *map(_make_record, range(1, 6)),
  )
  path = max(tmp_path.glob('*.v2'))
  with open(path, 'ab') as file:
    # What a killed process may leave.
    file.write(b'\x18\x00\x00\x00\x00')
  _release(
      tensorboard_release.TensorBoardReleaseManager(tmp_path, images=images),
      *(_make_record(i, seconds=9.0) for i in (4, 5, 6)),
  )
  # _read also checks that no round is there twice.
  found = _read(tmp_path)
  assert found['scalars', 'time/round'] == {
      1: 0.5,
      2: 0.5,
      3: 0.5,
      4: 9.0,
      5: 9.0,
      6: 9.0,
  }
  assert list(found['images', 'examples/clean']) == [0]


def test_images(tmp_path):
  clean = np.linspace(-1.0, 0.5, 10 * 4 * 4).reshape(10, 4, 4)
  attack = clean[:2, ..., np.newaxis].copy()
  attack[:, -1, -1] = 1.0
  _release(
      tensorboard_release.TensorBoardReleaseManager(
          tmp_path, images={'clean': clean, 'attack': attack}
      ),
      _make_record(1),
  )
  found = _read(tmp_path)
  # Width, height and the encoded images.
  assert len(found['images', 'examples/clean'][0]) == 2 + 8
  width, height, *encoded = found['images', 'examples/attack'][0]
  assert (width, height, len(encoded)) == (b'4', b'4', 2)
  pixels = tf.io.decode_png(encoded[0]).numpy()
  assert pixels[-1, -1, 0] == 255
  assert pixels[0, 0, 0] == 0
  # Halfway between black at -1 and white at 1 is 0.
  expected = 255 * (attack[0, 1, 1, 0] + 1) / 2
  assert abs(pixels[1, 1, 0] - expected) < 1


def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  manager = tensorboard_release.TensorBoardReleaseManager(
      tmp_path / 'file' / 'b'
  )
  with pytest.raises(OSError):
    _release(manager, _make_record(1))


@pytest.mark.parametrize(
    'options, kind, message',
    [
        (dict(folder=3), TypeError, 'folder must .* found int'),
        (dict(images=[1]), TypeError, 'images must be a Mapping; found list'),
        (
            dict(images={'a': np.zeros([2, 4])}),
            ValueError,
            r"images\['a'\] must have .*; found \(2, 4\)",
        ),
        (dict(images={'a': np.zeros([2, 4, 4, 2])}), ValueError, '1 or 3 chan'),
        (dict(images={'a': np.zeros([0, 4, 4])}), ValueError, r'\(0, 4, 4\)'),
    ],
)
def test_rejects_other_arguments(tmp_path, options, kind, message):
  with pytest.raises(kind, match=message):
    tensorboard_release.TensorBoardReleaseManager(
        **{'folder': tmp_path, **options}
    )


def test_summary_leaves_out_what_there_is_not():
  record = _make_record(
      1,
      evaluation=None,
      evaluation_seconds=0.0,
      metrics={'aggregator': (), 'finalizer': {'name': 'text', 'n': 1}},
  )
  assert round_summary.scalars(record) == {
      'attack': {'num_attackers': 1},
      'model_is_finite': False,
      'process': {'finalizer': {'n': 1}},
      'time': {'round': 0.5},
  }


def test_log_has_the_scalars():
  lines = []
  with mock.patch.object(
      logging, 'info', lambda line, *arguments: lines.append(line % arguments)
  ):
    _release(logging_release.LoggingReleaseManager(), _make_record(7))
  text = '\n'.join(lines)
  assert "('accuracy', 7.5)" in text
  assert 'key: 7' in text
