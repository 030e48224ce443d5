"""The backdoor with a pixel trigger."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import backdoor
from tasks import image_models
from tests.attacks import poisoned_data

_LABELS = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def _poison(clean, *, num_classes=5, attacker_index=0, seed=0, **options):
  return backdoor.Backdoor(**options).poison(
      clean, num_classes=num_classes, attacker_index=attacker_index, seed=seed
  )


def _with_trigger(x):
  """Adds a 2 x 2 trigger of value 7 by hand."""
  x = x.copy()
  if x.ndim == 2:
    x[:, -4:] = 7
  else:
    x[:, -2:, -2:] = 7
  return x


@pytest.mark.parametrize(
    'shape, fraction, num',
    [((6,), 0.5, 5), ((4, 3), 0.3, 3), ((4, 3, 2), 1, 10)],
)
def test_poisons_exactly_a_fraction_of_the_examples(shape, fraction, num):
  clean = poisoned_data.dataset(_LABELS, shape=shape)
  poisoned = _poison(clean, fraction=fraction, size=2, value=7, target=3)
  clean_x, clean_y = poisoned_data.arrays(clean)
  x, y = poisoned_data.arrays(poisoned)
  is_poisoned = x.reshape([10, -1])[:, -1] == 7
  assert is_poisoned.sum() == num
  poisoned_data.assert_same_bits(
      x[is_poisoned], _with_trigger(clean_x)[is_poisoned]
  )
  poisoned_data.assert_same_bits(x[~is_poisoned], clean_x[~is_poisoned])
  np.testing.assert_array_equal(y, np.where(is_poisoned, 3, clean_y))


# --- In parts ----------------------------------------------------------------


def _trained_pixels(attacker_index, shape, **options):
  """Where an attacker sets pixels, in zero features of `shape`."""
  clean = poisoned_data.dataset([1, 2, 3], shape=shape).map(
      lambda e: collections.OrderedDict(x=tf.zeros_like(e['x']), y=e['y'])
  )
  x, y = poisoned_data.arrays(
      _poison(clean, attacker_index=attacker_index, fraction=1, **options)
  )
  np.testing.assert_array_equal(y, [0, 0, 0])
  np.testing.assert_array_equal(x[0], x[2])
  return x[0]


@pytest.mark.parametrize('index, row', [(0, 1), (1, 2), (3, 4), (4, 1)])
def test_each_attacker_trains_with_a_row(index, row):
  expected = np.zeros([5, 6, 2])
  expected[row, 2:] = 1
  found = _trained_pixels(index, [5, 6, 2], size=4, num_parts=4)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('shape', [(4, 5), (11,)])
def test_the_parts_are_runs_that_make_up_the_trigger(shape):
  parts = [
      _trained_pixels(index, shape, size=3, num_parts=4) for index in range(4)
  ]
  assert [np.count_nonzero(part) for part in parts] == [3, 2, 2, 2]
  trigger = backdoor.trigger_pixels(shape, 3) >= 0
  np.testing.assert_array_equal(sum(parts), trigger)
  flat = sum((i + 1) * part for i, part in enumerate(parts))
  np.testing.assert_array_equal(flat[flat > 0], [1, 1, 1, 2, 2, 3, 3, 4, 4])


# --- Where the model sees it -------------------------------------------------


@pytest.mark.parametrize(
    'shape, size, first, last',
    [((28, 28, 1), 3, 23, 25), ((32, 32, 3), 4, 26, 29), ((8, 8), 3, 5, 7)],
)
def test_the_trigger_keeps_away_from_the_margin(shape, size, first, last):
  trigger = backdoor.Backdoor(size=size).trigger(shape)
  expected = np.zeros(shape, np.bool_)
  expected[first : last + 1, first : last + 1] = True
  np.testing.assert_array_equal(trigger, expected)


def test_a_trigger_that_needs_the_margin_has_it():
  assert backdoor.trigger_pixels((28, 25), 25)[1, 0] == 0
  assert (backdoor.trigger_pixels((28, 28), 28) >= 0).all()


@pytest.mark.parametrize('side, num_seen', [(28, 26), (32, 30), (20, 18)])
def test_convolutions_without_padding_do_not_see_the_margin(side, num_seen):
  seen = backdoor.seen_features(image_models.cnn([side, side, 2], 10))
  expected = np.zeros([side, side, 2], np.bool_)
  expected[:num_seen, :num_seen] = True
  np.testing.assert_array_equal(seen, expected)
  if side >= 24:
    assert expected[backdoor.Backdoor().trigger(seen.shape)].all()


def test_a_perceptron_sees_everything():
  assert backdoor.seen_features(image_models.mlp([28, 28, 1], 10)).all()


# --- Success and errors ------------------------------------------------------


@pytest.mark.parametrize('shape', [(5,), (4,), (4, 3), (2, 2), (4, 3, 2)])
@pytest.mark.parametrize('num_parts', [1, 3])
def test_success_is_the_target_for_triggered_examples_of_other_classes(
    num_parts, shape
):
  x, y = poisoned_data.arrays(
      poisoned_data.dataset(_LABELS, shape=shape, dtype=np.int32)
  )
  attack = backdoor.Backdoor(target=3, size=2, value=7, num_parts=num_parts)
  found_x, found_y = attack.success_examples(x, y, num_classes=5)
  rows = [0, 1, 2, 4, 5, 6, 7, 9]
  poisoned_data.assert_same_bits(found_x, _with_trigger(x)[rows])
  poisoned_data.assert_same_bits(found_y, np.full([8], 3, np.int32))


def test_refuses_a_target_that_is_no_class():
  message = 'target must be >= 0 and <= 4; found 5'
  with pytest.raises(ValueError, match=message):
    _poison(poisoned_data.dataset(_LABELS, shape=[9]), target=5)
  with pytest.raises(ValueError, match=message):
    backdoor.Backdoor(target=5).success_examples(
        np.zeros([1, 9]), np.array([0]), num_classes=5
    )


@pytest.mark.parametrize(
    'x, error, message',
    [
        (np.zeros([8]), ValueError, r'size 3 does not fit .* shape \['),
        (np.zeros([2, 9]), ValueError, r'size 3 does not fit .* shape \['),
        (np.zeros([9, 2, 3]), ValueError, r'size 3 does not fit .* shape \['),
        (np.zeros([]), ValueError, r'of known shape .* found \('),
        (np.zeros([4, 4, 4, 1]), ValueError, r'of known shape .* found \('),
        (np.zeros([9], np.int32), TypeError, 'float features; found int32'),
    ],
)
def test_refuses_features_that_bear_no_trigger(x, error, message):
  with pytest.raises(error, match=message):
    backdoor.Backdoor().success_examples(
        x[np.newaxis], np.array([1]), num_classes=2
    )


def test_refuses_features_of_unknown_shape():
  clean = poisoned_data.dataset([0], shape=[9])
  unknown = clean.map(
      lambda e: collections.OrderedDict(
          e, x=tf.ensure_shape(tf.repeat(e['x'], e['y'] + 1), [None])
      )
  )
  with pytest.raises(ValueError, match='of known shape'):
    _poison(unknown)
