"""The clients of each round as a data source of a federated program."""

import collections
from typing import Any, List, NoReturn, Optional

import numpy as np
import tensorflow_federated as tff

from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib


class CohortDataSource(tff.program.FederatedDataSource):
  """The data of the cohorts that a `CohortSampler` draws.

  What a round's clients are and in which order they see their examples depends
  on the seeds and the round alone, so a program that goes on after round r
  needs no more than `iterator(first_round=r + 1)`.
  """

  def __init__(
      self,
      cohorts: cohort_lib.CohortSampler,
      datasets: client_datasets.ClientDatasets,
  ):
    """Initializes `CohortDataSource`.

    Args:
      cohorts: Who takes part in a round.
      datasets: What they train on.

    Raises:
      TypeError: If an argument is of another kind.
    """
    for name, value, kind in (
        ('cohorts', cohorts, cohort_lib.CohortSampler),
        ('datasets', datasets, client_datasets.ClientDatasets),
    ):
      if not isinstance(value, kind):
        raise TypeError(
            f'{name} must be a {kind.__name__}; found {type(value).__name__}.'
        )
    self._cohorts = cohorts
    self._datasets = datasets
    self._federated_type = None

  @property
  def federated_type(self) -> tff.FederatedType:
    """The type of a round's data, at `tff.CLIENTS`."""
    if self._federated_type is None:
      first, *_ = self._datasets.for_cohort(self._cohorts.sample(1), 1)
      dataset_type = tff.types.tensorflow_to_type(first['dataset'].element_spec)
      self._federated_type = tff.FederatedType(
          collections.OrderedDict(
              attacker_index=np.int32, dataset=tff.SequenceType(dataset_type)
          ),
          tff.CLIENTS,
      )
    return self._federated_type

  def iterator(self, first_round: int = 1) -> 'CohortDataSourceIterator':
    """An iterator over the rounds.

    Args:
      first_round: The round that its first `select` is for, at least 1.

    Raises:
      TypeError: If `first_round` is not an int.
      ValueError: If it is below 1.
    """
    # Checks the round.
    self._cohorts.sample(first_round)
    return CohortDataSourceIterator(
        self, self._cohorts, self._datasets, int(first_round)
    )


class CohortDataSourceIterator(tff.program.FederatedDataSourceIterator):
  """Gives the data of one round after the other; see `CohortDataSource`."""

  def __init__(
      self,
      source: CohortDataSource,
      cohorts: cohort_lib.CohortSampler,
      datasets: client_datasets.ClientDatasets,
      first_round: int,
  ):
    self._source = source
    self._cohorts = cohorts
    self._datasets = datasets
    self._next_round = first_round
    self._cohort = None

  @property
  def federated_type(self) -> tff.FederatedType:
    """See `CohortDataSource.federated_type`."""
    return self._source.federated_type

  @property
  def cohort(self) -> Optional[cohort_lib.Cohort]:
    """The clients of the latest `select`; None before the first."""
    return self._cohort

  def select(self, k: Optional[int] = None) -> List[Any]:
    """The data of the next round's clients.

    Args:
      k: Their number, which the sampler has fixed; None to take it as it is.

    Returns:
      What `ClientDatasets.for_cohort` returns.

    Raises:
      ValueError: If `k` is another number.
    """
    cohort = self._cohorts.sample(self._next_round)
    if k is not None and k != len(cohort.client_ids):
      raise ValueError(
          f'k must be None or the size of the cohort, {len(cohort.client_ids)};'
          f' found {k}.'
      )
    data = self._datasets.for_cohort(cohort, self._next_round)
    self._cohort = cohort
    self._next_round += 1
    return data

  def to_bytes(self) -> NoReturn:
    """Not supported: the clients' data has no place in a program's state."""
    raise NotImplementedError(
        'Save the number of the round, and go on with'
        ' CohortDataSource.iterator(first_round=...).'
    )

  @classmethod
  def from_bytes(cls, data: bytes) -> NoReturn:
    """Not supported; see `to_bytes`."""
    raise NotImplementedError(
        'Make an iterator with CohortDataSource.iterator(first_round=...).'
    )
