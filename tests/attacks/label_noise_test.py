"""Label noise."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import label_noise
from tests.attacks import poisoned_data


def _poison(clean, *, num_classes=5, attacker_index=0, seed=0, **options):
  return label_noise.LabelNoise(**options).poison(
      clean, num_classes=num_classes, attacker_index=attacker_index, seed=seed
  )


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize(
    'options, num_wrong',
    [({}, 20), ({'fraction': 0.3}, 6), ({'fraction': 0.01}, 0)],
)
def test_exactly_a_fraction_of_the_labels_is_wrong(dtype, options, num_wrong):
  labels = np.arange(20) % 5
  clean = poisoned_data.dataset(labels, dtype=dtype, shape=[2, 2, 1])
  poisoned = _poison(clean, **options)
  assert poisoned.element_spec == clean.element_spec
  assert poisoned.cardinality() == 20
  x, y = poisoned_data.arrays(poisoned)
  assert y.dtype == dtype
  assert np.sum(y != labels) == num_wrong
  assert np.all(y < 5)
  poisoned_data.assert_same_bits(x, poisoned_data.arrays(clean)[0])


def test_wrong_labels_are_uniform():
  clean = poisoned_data.dataset([2] * 2000, shape=[1])
  y = poisoned_data.arrays(_poison(clean))[1]
  counts = np.bincount(y, minlength=5)
  assert counts[2] == 0
  np.testing.assert_allclose(counts[[0, 1, 3, 4]], 500, atol=90)


def test_the_seed_tells_the_labels():
  clean = poisoned_data.dataset(np.arange(30) % 5)

  def labels(**arguments):
    return poisoned_data.arrays(_poison(clean, fraction=0.5, **arguments))[1]

  poisoned = _poison(clean, fraction=0.5, seed=1)
  for _ in range(2):
    np.testing.assert_array_equal(
        poisoned_data.arrays(poisoned)[1], labels(seed=1, attacker_index=4)
    )
  assert np.any(labels(seed=1) != labels(seed=2))


def test_poisons_a_dataset_of_unknown_cardinality_alike():
  clean = poisoned_data.dataset(np.arange(20) % 5)
  unknown = _poison(poisoned_data.unknown_cardinality(clean), fraction=0.3)
  np.testing.assert_array_equal(
      poisoned_data.arrays(unknown)[1],
      poisoned_data.arrays(_poison(clean, fraction=0.3))[1],
  )


@pytest.mark.parametrize(
    'fraction, error',
    [
        ('1', TypeError),
        (True, TypeError),
        (0, ValueError),
        (1.1, ValueError),
        (float('nan'), ValueError),
    ],
)
def test_refuses_a_wrong_fraction(fraction, error):
  with pytest.raises(error, match=f'fraction .* found {fraction!r}') as info:
    label_noise.LabelNoise(fraction=fraction)
  assert '\n' not in str(info.value)


def test_refuses_a_single_class_and_labels_that_are_no_classes():
  with pytest.raises(ValueError, match='num_classes .* found 1'):
    _poison(poisoned_data.dataset([0]), num_classes=1)
  with pytest.raises(tf.errors.InvalidArgumentError):
    poisoned_data.arrays(_poison(poisoned_data.dataset([5])))
