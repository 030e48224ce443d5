"""Tests for partition; `contract_test` compares the partitions of the tasks."""

import numpy as np
import pytest

from tasks import partition

_LABELS = np.repeat(np.arange(10), 60)


def _partition(name, num_clients=20, seed=1, labels=_LABELS, **options):
  options = {'alpha': 0.3, 'shards_per_client': 2, 'min_examples': 5, **options}
  return partition.by_name(name, labels, num_clients, seed, **options)


def _assert_partition(parts):
  np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), np.arange(_LABELS.size)
  )


def _sizes(parts):
  return [part.size for part in parts]


@pytest.mark.parametrize('name', partition.NAMES)
@pytest.mark.parametrize('num_clients', [1, 7, 40])
def test_every_example_is_on_exactly_one_client(name, num_clients):
  parts = _partition(name, num_clients)
  assert len(parts) == num_clients
  assert all(part.dtype == np.int64 for part in parts)
  _assert_partition(parts)


@pytest.mark.parametrize('name', partition.NAMES)
def test_the_seed_decides(name):
  first, again, other = (_partition(name, seed=seed) for seed in (1, 1, 2))
  assert all(map(np.array_equal, first, again))
  assert not all(map(np.array_equal, first, other))


@pytest.mark.parametrize('name', partition.NAMES)
def test_the_head_of_a_client_is_not_sorted(name):
  (only,) = _partition(name, 1)
  assert np.unique(_LABELS[only[:60]]).size == 10


@pytest.mark.parametrize('size', [1, 20, 33, 100, 192])
def test_stratified_split_keeps_the_share_of_every_class(size):
  labels = np.random.default_rng(0).permutation(
      np.repeat([0, 1, 5], [13, 40, 147])
  )
  sets = partition.stratified_split(labels, {'a': size, 'b': 7}, 2)
  assert _sizes(sets) == [size, 7, 193 - size]
  np.testing.assert_array_equal(
      np.sort(np.concatenate(sets)), np.arange(labels.size)
  )
  counts = np.bincount(labels[sets[0]], minlength=6)[[0, 1, 5]]
  exact = size * np.array([13, 40, 147]) / 200
  assert np.all(np.abs(counts - exact) < 1)
  # Among the possible roundings this one is nearest to the exact shares.
  ups = counts > exact
  if 0 < ups.sum() < 3:
    assert (exact % 1)[ups].min() >= (exact % 1)[~ups].max()


def test_stratified_split_gives_a_tie_to_the_lower_class():
  part, _ = partition.stratified_split(_LABELS, {'a': 25}, 0)
  assert np.bincount(_LABELS[part]).tolist() == [3] * 5 + [2] * 5


def test_stratified_split_of_a_seed():
  draw = lambda seed, size: partition.stratified_split(
      _LABELS, {'a': 50, 'b': size}, seed
  )[0]
  # A later size does not change an earlier set.
  np.testing.assert_array_equal(draw(1, 10), draw(1, 400))
  assert set(draw(1, 10)) != set(draw(2, 10))


@pytest.mark.parametrize(
    'alpha, minimum', [(partition.MIN_ALPHA, 12), (1.0, 12), (0.1, 15)]
)
def test_dirichlet_honours_the_minimum(alpha, minimum):
  parts = partition.dirichlet(_LABELS, 40, alpha, 0, min_examples=minimum)
  # 40 times 15 takes all examples.
  assert min(_sizes(parts)) >= minimum
  _assert_partition(parts)


def test_dirichlet_minimum_takes_from_the_largest_clients_only():
  free = partition.dirichlet(_LABELS, 20, 0.3, 4, min_examples=0)
  filled = partition.dirichlet(_LABELS, 20, 0.3, 4, min_examples=15)
  missing = sum(max(0, 15 - size) for size in _sizes(free))
  assert missing > 0
  # What the small clients gained is off the top of the large ones.
  level = sorted(_sizes(free))
  for _ in range(missing):
    level[-1] -= 1
    level.sort()
  expected = sorted(max(size, 15) for size in level)
  assert sorted(_sizes(filled)) == expected
  for before, after in zip(free, filled):
    if before.size < 15:
      assert set(before) < set(after)
    else:
      assert set(after) <= set(before)


def test_dirichlet_of_large_alpha_is_balanced():
  for part in partition.dirichlet(_LABELS, 6, partition.MAX_ALPHA, 0):
    assert np.bincount(_LABELS[part], minlength=10).tolist() == [10] * 10


def test_dirichlet_takes_any_integer_labels():
  parts = partition.dirichlet(np.array([-3, 7, 7, 90, -3], np.int8), 2, 1.0, 0)
  assert sorted(np.concatenate(parts)) == [0, 1, 2, 3, 4]


def test_shards_give_few_classes_to_a_client():
  parts = partition.shards(_LABELS, 30, 2, 0)
  assert _sizes(parts) == [20] * 30
  # A shard of 10 lies within one class of 60.
  assert max(np.unique(_LABELS[part]).size for part in parts) == 2


def test_shards_mix_the_examples_of_a_class():
  parts = partition.shards(np.zeros(600, np.int64), 2, 1, 0)
  assert 100 < np.sum(parts[0] < 300) < 200


@pytest.mark.parametrize(
    'name, options, kind, message',
    [
        ('iid', {'labels': _LABELS / 2}, TypeError, 'labels.*float64'),
        ('dirichlet', {'labels': _LABELS > 2}, TypeError, 'labels.*bool'),
        ('iid', {'labels': _LABELS[:0]}, ValueError, 'num_examples.*found 0'),
        ('iid', {'num_clients': 0}, ValueError, 'num_clients.*found 0'),
        ('iid', {'seed': -1}, ValueError, 'seed.*found -1'),
        ('iid', {'num_clients': 601}, ValueError, 'at most 600 clients'),
        ('shards', {'labels': _LABELS[None]}, ValueError, r'\(1, 600\)'),
        ('dirichlet', {'alpha': 0.0}, ValueError, 'alpha.*found 0'),
        ('dirichlet', {'alpha': np.nan}, ValueError, 'alpha.*found nan'),
        ('dirichlet', {'min_examples': -1}, ValueError, 'min_examples'),
        ('dirichlet', {'num_clients': 121}, ValueError, 'at most 120 clients'),
        ('shards', {'shards_per_client': 0}, ValueError, 'shards_per_client'),
        ('shards', {'num_clients': 301}, ValueError, 'at most 300 clients'),
        ('natural', {}, ValueError, "dirichlet, iid, shards; found 'natural'"),
    ],
)
def test_wrong_arguments_raise(name, options, kind, message):
  with pytest.raises(kind, match=message) as error:
    _partition(name, **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'sizes, kind, message',
    [
        ({'a': 0}, ValueError, 'a must be >= 1 and <= 599; found 0'),
        ({'a': 600}, ValueError, 'a must be >= 1 and <= 599; found 600'),
        ({'a': 100, 'b': 500}, ValueError, 'b must be.* <= 499; found 500'),
        ({'a': 2.5}, TypeError, 'a must be an int'),
    ],
)
def test_stratified_split_of_wrong_size_raises(sizes, kind, message):
  with pytest.raises(kind, match=message):
    partition.stratified_split(_LABELS, sizes, 0)
