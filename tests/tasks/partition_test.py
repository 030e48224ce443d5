"""Tests for partition."""

import numpy as np
import pytest

from tasks import partition

_LABELS = np.repeat(np.arange(10), 60)

_PARTITIONS = {
    'iid': lambda num_clients, seed: partition.iid(600, num_clients, seed),
    'dirichlet': lambda num_clients, seed: partition.dirichlet(
        _LABELS, num_clients, 0.3, seed, min_examples=5
    ),
    'shards': lambda num_clients, seed: partition.shards(
        _LABELS, num_clients, 2, seed
    ),
}


def _sizes(parts):
  return [part.size for part in parts]


def _mean_share_of_largest_class(parts):
  """How much of a client's data is its commonest class, on average."""
  return np.mean(
      [np.bincount(_LABELS[part]).max() / part.size for part in parts]
  )


@pytest.mark.parametrize('name', _PARTITIONS)
@pytest.mark.parametrize('num_clients', [1, 7, 40])
def test_every_example_is_on_exactly_one_client(name, num_clients):
  parts = _PARTITIONS[name](num_clients, 3)
  assert len(parts) == num_clients
  assert all(part.dtype == np.int64 for part in parts)
  np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), np.arange(_LABELS.size)
  )


@pytest.mark.parametrize('name', _PARTITIONS)
def test_the_seed_decides(name):
  first, again, other = (_PARTITIONS[name](20, seed) for seed in (1, 1, 2))
  assert all(np.array_equal(a, b) for a, b in zip(first, again))
  assert not all(np.array_equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize('name', _PARTITIONS)
def test_the_head_of_a_client_is_not_sorted(name):
  (only,) = _PARTITIONS[name](1, 0)
  assert np.unique(_LABELS[only[:60]]).size == 10


def _name(name, **changes):
  options = {'alpha': 0.3, 'shards_per_client': 2, 'min_examples': 5, **changes}
  return partition.by_name(name, _LABELS, 20, 1, **options)


@pytest.mark.parametrize('name', _PARTITIONS)
def test_by_name(name):
  expected = _PARTITIONS[name](20, 1)
  for found, wanted in zip(_name(name), expected):
    np.testing.assert_array_equal(found, wanted)
  assert set(partition.NAMES) == set(_PARTITIONS)


def test_by_name_rejects_an_unknown_name():
  with pytest.raises(
      ValueError, match="^`partition` must be one of .*found 'dirchlet'"
  ):
    _name('dirchlet')


def _unbalanced_labels():
  labels = np.repeat([0, 1, 5], [13, 40, 147])
  return np.random.default_rng(0).permutation(labels)


def test_stratified_split_is_disjoint_and_whole():
  labels = _unbalanced_labels()
  sets = partition.stratified_split(labels, {'a': 7, 'b': 50}, 2)
  assert _sizes(sets) == [7, 50, 143]
  assert all(part.dtype == np.int64 for part in sets)
  np.testing.assert_array_equal(
      np.sort(np.concatenate(sets)), np.arange(labels.size)
  )


@pytest.mark.parametrize('size', [1, 20, 33, 100, 199])
def test_stratified_split_keeps_the_share_of_every_class(size):
  labels = _unbalanced_labels()
  part, _ = partition.stratified_split(labels, {'a': size}, 2)
  counts = np.bincount(labels[part], minlength=6)[[0, 1, 5]]
  assert counts.sum() == size
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
  )
  (first, _, _), (longer, _, _), (other, _, _) = (
      draw(1, 10),
      draw(1, 400),
      draw(2, 10),
  )
  np.testing.assert_array_equal(first, longer)
  assert set(first) != set(other)


@pytest.mark.parametrize(
    'sizes, message',
    [
        ({'a': 0}, '`a` must be at least 1, found 0'),
        ({'a': 600}, '`a` must be between 1 and 599, found 600'),
        ({'a': 100, 'b': 500}, '`b` must be between 1 and 499, found 500'),
    ],
)
def test_stratified_split_of_wrong_size_raises(sizes, message):
  with pytest.raises(ValueError, match=message):
    partition.stratified_split(_LABELS, sizes, 0)


def test_iid_sizes_differ_by_at_most_one():
  assert sorted(set(_sizes(partition.iid(103, 10, 0)))) == [10, 11]


def test_dirichlet_is_more_skewed_for_smaller_alpha():
  skews = [
      np.mean([
          _mean_share_of_largest_class(
              partition.dirichlet(_LABELS, 20, alpha, seed)
          )
          for seed in range(5)
      ])
      for alpha in (100.0, 1.0, 0.1)
  ]
  assert skews[0] < 0.2
  assert skews[0] + 0.1 < skews[1]
  assert skews[1] + 0.1 < skews[2]


@pytest.mark.parametrize('alpha', [partition.MIN_ALPHA, 0.05, 1.0])
def test_dirichlet_honours_the_minimum(alpha):
  parts = partition.dirichlet(_LABELS, 40, alpha, 0, min_examples=12)
  assert min(_sizes(parts)) >= 12
  np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), np.arange(_LABELS.size)
  )


def test_dirichlet_minimum_can_take_all_examples():
  parts = partition.dirichlet(_LABELS, 40, 0.1, 0, min_examples=15)
  assert _sizes(parts) == [15] * 40


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
  parts = partition.dirichlet(_LABELS, 6, partition.MAX_ALPHA, 0)
  for part in parts:
    assert np.bincount(_LABELS[part], minlength=10).tolist() == [10] * 10


def test_dirichlet_takes_any_integer_labels():
  parts = partition.dirichlet(np.array([-3, 7, 7, 90, -3], np.int8), 2, 1.0, 0)
  assert sorted(np.concatenate(parts)) == [0, 1, 2, 3, 4]


def test_shards_give_few_classes_to_a_client():
  parts = partition.shards(_LABELS, 30, 2, 0)
  assert _sizes(parts) == [20] * 30
  # A shard of 10 lies within one class of 60.
  assert all(np.unique(_LABELS[part]).size <= 2 for part in parts)
  assert any(np.unique(_LABELS[part]).size == 2 for part in parts)


def test_shards_mix_the_examples_of_a_class():
  parts = partition.shards(np.zeros(600, np.int64), 2, 1, 0)
  assert 100 < np.sum(parts[0] < 300) < 200


@pytest.mark.parametrize(
    'call',
    [
        lambda: partition.iid(10.0, 2, 0),
        lambda: partition.iid(10, True, 0),
        lambda: partition.iid(10, 2, 'seed'),
        lambda: partition.dirichlet(_LABELS, 2, '0.5', 0),
        lambda: partition.dirichlet(_LABELS, 2, True, 0),
        lambda: partition.dirichlet(_LABELS / 2, 2, 0.5, 0),
        lambda: partition.dirichlet(_LABELS, 2, 0.5, 0, min_examples=0.5),
        lambda: partition.shards(_LABELS.astype(bool), 2, 2, 0),
        lambda: partition.shards(_LABELS, 2, 2.0, 0),
        lambda: partition.stratified_split(_LABELS, {'a': 2.5}, 0),
        lambda: partition.stratified_split(_LABELS / 2, {'a': 2}, 0),
    ],
)
def test_wrong_kind_raises(call):
  with pytest.raises(TypeError, match=r'^`\w+` must be .*found .*$'):
    call()


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: partition.iid(0, 1, 0), '`num_examples`.*found 0'),
        (lambda: partition.iid(10, 0, 0), '`num_clients`.*found 0'),
        (lambda: partition.iid(10, 2, -1), '`seed`.*found -1'),
        (lambda: partition.iid(10, 11, 0), 'at most 10 clients'),
        (
            lambda: partition.dirichlet(_LABELS[None], 2, 0.5, 0),
            r'`labels`.*\(1, 600\)',
        ),
        (lambda: partition.dirichlet(_LABELS, 2, 0.0, 0), '`alpha`.*found 0'),
        (
            lambda: partition.dirichlet(_LABELS, 2, float('nan'), 0),
            '`alpha`.*found nan',
        ),
        (
            lambda: partition.dirichlet(_LABELS, 2, float('inf'), 0),
            '`alpha`.*found inf',
        ),
        (
            lambda: partition.dirichlet(_LABELS, 2, 1.0, 0, min_examples=-1),
            '`min_examples`.*found -1',
        ),
        (
            lambda: partition.dirichlet(_LABELS, 61, 1.0, 0, min_examples=10),
            'at most 60 clients',
        ),
        (lambda: partition.shards(_LABELS, 2, 0, 0), '`shards_per_client`'),
        (lambda: partition.shards(_LABELS, 301, 2, 0), 'at most 300 clients'),
    ],
)
def test_wrong_value_raises(call, message):
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert '\n' not in str(error.value)
