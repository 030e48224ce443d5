"""Tests for the choice of attackers and cohorts."""

import numpy as np
import pytest

from fedaot_tff.simulation import cohort

_IDS = [f'client_{i:02d}' for i in range(20)]


def _sampler(client_ids=_IDS, **options):
  settings = dict(cohort_size=8, byzantine_fraction=0.25, seed=4)
  return cohort.CohortSampler(client_ids, **{**settings, **options})


@pytest.mark.parametrize(
    'fraction, expected', [(0, 0), (0.1, 2), (0.25, 5), (0.33, 7), (0.8, 16)]
)
def test_attackers_are_a_fraction_of_all_clients(fraction, expected):
  attackers = _sampler(
      byzantine_fraction=fraction, byzantine_sampling='random'
  ).attackers
  assert len(set(attackers)) == expected
  assert set(attackers) <= set(_IDS)
  assert list(attackers) == sorted(attackers)


@pytest.mark.parametrize('sampling', ['exact', 'random'])
def test_cohorts_are_of_different_clients_with_true_flags(sampling):
  sampler = _sampler(byzantine_sampling=sampling)
  for round_num in range(1, 30):
    sample = sampler.sample(round_num)
    assert len(sample.client_ids) == len(set(sample.client_ids)) == 8
    assert set(sample.client_ids) <= set(_IDS)
    assert sample.is_byzantine == tuple(
        c in sampler.attackers for c in sample.client_ids
    )
    assert all(type(c) is str for c in sample.client_ids)
    assert all(type(b) is bool for b in sample.is_byzantine)
    for client_id, index in zip(*sample):
      assert type(index) is int
      if index < 0:
        assert index == -1 and client_id not in sampler.attackers
      else:
        assert sampler.attackers[index] == client_id


def test_random_sampling_varies_around_the_fraction():
  sampler = _sampler(byzantine_sampling='random')
  counts = [sum(sampler.sample(r).is_byzantine) for r in range(1, 501)]
  assert len(set(counts)) > 3
  # The hypergeometric standard deviation is 0.97, so that of the mean 0.044.
  assert abs(np.mean(counts) - 2.0) < 0.2


@pytest.mark.parametrize('sampling', ['exact', 'random'])
def test_every_client_has_its_turn_in_every_place(sampling):
  sampler = _sampler(byzantine_sampling=sampling)
  places = np.zeros([8, 20])
  for round_num in range(1, 1001):
    for place, client_id in enumerate(sampler.sample(round_num).client_ids):
      places[place, _IDS.index(client_id)] += 1
  # Binomial with mean 50, standard deviation 7: five of them.
  assert places.min() > 15
  assert places.max() < 85


def test_depends_on_seed_and_round_alone():
  once, again = _sampler(), _sampler(client_ids=_IDS[::-1])
  assert once.attackers == again.attackers
  last = again.sample(9)
  assert [once.sample(r) for r in range(1, 10)][-1] == last
  assert once.sample(8) != last
  assert _sampler(seed=5).attackers != once.attackers
  assert _sampler(seed=5).sample(9) != last


@pytest.mark.parametrize('fraction', [0, 0.1, 0.25, 0.5, 0.75, 0.9])
def test_exact_sampling_has_the_same_number_each_round(fraction):
  for num_clients in range(1, 21):
    for cohort_size in range(1, num_clients + 1):
      try:
        sampler = _sampler(
            _IDS[:num_clients],
            cohort_size=cohort_size,
            byzantine_fraction=fraction,
        )
      except ValueError:
        continue
      for round_num in (1, 2, 3):
        sample = sampler.sample(round_num)
        assert len(sample.client_ids) == cohort_size
        assert sum(sample.is_byzantine) == round(fraction * cohort_size)


@pytest.mark.parametrize(
    'options, error, message',
    [
        (dict(cohort_size=21), ValueError, 'cohort_size must .* found 21'),
        (dict(cohort_size=0), ValueError, 'cohort_size must .* found 0'),
        (dict(cohort_size=2.0), TypeError, 'cohort_size must .* found 2.0'),
        (dict(byzantine_fraction=1.0), ValueError, '>= 0 and < 1; found 1.0'),
        (dict(byzantine_fraction='0.2'), TypeError, "a number; found '0.2'"),
        (dict(byzantine_fraction=0.05), ValueError, 'less .* a cohort of 8'),
        (dict(byzantine_fraction=0.01), ValueError, 'less .*population of 20'),
        (dict(byzantine_fraction=0.95), ValueError, 'no honest .*cohort of 8'),
        (dict(byzantine_fraction=0.99), ValueError, 'no honest .*lation of 20'),
        (dict(byzantine_sampling='all'), ValueError, "random; found 'all'"),
        (dict(seed=-1), ValueError, 'seed must be >= 0 .*found -1'),
        (dict(client_ids=['a', 'b', 'a']), ValueError, "'a' comes twice"),
        (dict(client_ids='abc'), TypeError, 'or tuple; found str'),
        (dict(client_ids=[1, 2]), TypeError, 'id must be a str; found int'),
    ],
)
def test_rejects_wrong_arguments(options, error, message):
  with pytest.raises(error, match=message) as info:
    _sampler(**options)
  assert '\n' not in str(info.value)


def test_rejects_rounds_before_the_first():
  with pytest.raises(ValueError, match='round_num must be >= 1; found 0'):
    _sampler().sample(0)
