"""Tests for cohort_data_source."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import cohort_data_source


def _make_parts():
  data = {
      f'client_{i}': collections.OrderedDict(
          x=np.arange(4, dtype=np.float32) + 10 * i, y=np.zeros(4, np.int64)
      )
      for i in range(6)
  }
  cohorts = cohort_lib.CohortSampler(
      list(data), cohort_size=3, byzantine_fraction=0.3, seed=1
  )
  datasets = client_datasets.ClientDatasets(
      tff.simulation.datasets.TestClientData(data),
      num_classes=2,
      batch_size=2,
      seed=1,
  )
  return cohorts, datasets


def _values(data):
  return [
      (
          int(client['attacker_index']),
          [batch['x'].numpy().tolist() for batch in client['dataset']],
      )
      for client in data
  ]


def test_gives_one_round_after_the_other():
  cohorts, datasets = _make_parts()
  iterator = cohort_data_source.CohortDataSource(cohorts, datasets).iterator()
  assert iterator.cohort is None
  for round_num in (1, 2, 3):
    data = _values(iterator.select())
    cohort = cohorts.sample(round_num)
    assert iterator.cohort == cohort
    assert data == _values(datasets.for_cohort(cohort, round_num))


def test_begins_where_it_is_told():
  cohorts, datasets = _make_parts()
  source = cohort_data_source.CohortDataSource(cohorts, datasets)
  iterator, late = source.iterator(), source.iterator(first_round=3)
  iterator.select()
  iterator.select(3)
  assert _values(iterator.select()) == _values(late.select())
  assert late.cohort == cohorts.sample(3)


def test_type_is_that_of_the_data():
  source = cohort_data_source.CohortDataSource(*_make_parts())
  expected = tff.FederatedType(
      collections.OrderedDict(
          attacker_index=np.int32,
          dataset=tff.SequenceType(
              collections.OrderedDict(
                  x=tff.TensorType(np.float32, [None]),
                  y=tff.TensorType(np.int64, [None]),
              )
          ),
      ),
      tff.CLIENTS,
  )
  assert source.federated_type == expected
  iterator = source.iterator()
  assert iterator.federated_type == expected

  @tff.federated_computation(expected)
  def count(clients):
    return tff.federated_sum(
        tff.federated_map(
            tff.tensorflow.computation(
                lambda c: c['dataset'].reduce(np.int64(0), lambda n, _: n + 1)
            ),
            clients,
        )
    )

  assert count(iterator.select()) == 6


@pytest.mark.parametrize('k', [2, 4])
def test_size_of_the_cohort_is_the_samplers(k):
  iterator = cohort_data_source.CohortDataSource(*_make_parts()).iterator()
  with pytest.raises(ValueError, match=f'size of the cohort, 3; found {k}'):
    iterator.select(k)
  assert iterator.cohort is None


def test_iterator_is_no_part_of_a_state():
  iterator = cohort_data_source.CohortDataSource(*_make_parts()).iterator()
  with pytest.raises(NotImplementedError, match='first_round'):
    iterator.to_bytes()
  with pytest.raises(NotImplementedError, match='first_round'):
    type(iterator).from_bytes(b'')


def test_rejects_other_arguments():
  cohorts, datasets = _make_parts()
  with pytest.raises(TypeError, match='cohorts must be a CohortSampler; found'):
    cohort_data_source.CohortDataSource(datasets, datasets)
  with pytest.raises(TypeError, match='datasets must be a ClientDatasets; fou'):
    cohort_data_source.CohortDataSource(cohorts, None)
  source = cohort_data_source.CohortDataSource(cohorts, datasets)
  with pytest.raises(ValueError, match='at least 1; found 0'):
    source.iterator(0)
