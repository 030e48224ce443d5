"""Who attacks, and who takes part in a round."""

from collections.abc import Sequence
from typing import NamedTuple, Tuple

import numpy as np

from fedaot import checks
from fedaot_tff.simulation import seeding

_SAMPLINGS = ('exact', 'random')


class Cohort(NamedTuple):
  """The clients of a round, in the order in which the process is given them."""

  client_ids: Tuple[str, ...]
  # Their numbers among all attackers, from 0 in the order of the ids; -1 for an
  # honest client.
  attacker_index: Tuple[int, ...]

  @property
  def is_byzantine(self) -> Tuple[bool, ...]:
    """Whether each of them is an attacker."""
    return tuple(index >= 0 for index in self.attacker_index)


class CohortSampler:
  """Draws the attackers once and a cohort for each round, from the seed alone.

  Of all clients, in any order, round(byzantine_fraction * number of clients)
  are attackers, the fraction in [0, 1). The sampling 'exact' takes
  round(byzantine_fraction * cohort_size) of them in each round, 'random' is a
  uniform sample of all clients. Raises ValueError if an id comes twice, or the
  fraction rounds to no attacker or to no honest client.
  """

  def __init__(
      self,
      client_ids: Sequence[str],
      *,
      cohort_size: int,
      byzantine_fraction: float = 0.0,
      byzantine_sampling: str = 'exact',
      seed: int = 0,
  ):
    self._seed = checks.check_int('seed', seed, minimum=0, maximum=2**63 - 1)
    self._client_ids = _check_client_ids(client_ids)
    self._cohort_size = checks.check_int(
        'cohort_size', cohort_size, minimum=1, maximum=len(self._client_ids)
    )
    fraction = checks.check_number(
        'byzantine_fraction', byzantine_fraction, minimum=0, below=1
    )
    checks.check_choice('byzantine_sampling', byzantine_sampling, _SAMPLINGS)
    num_attackers = _count_attackers(
        fraction, len(self._client_ids), 'the population'
    )
    order = seeding.generator(
        self._seed, seeding.Purpose.ATTACKERS
    ).permutation(len(self._client_ids))
    self._attackers = np.sort(order[:num_attackers])
    self._honest = np.sort(order[num_attackers:])
    # None: as many as a uniform sample of the clients happens to hold. Else
    # both groups are large enough, as rounding is monotone.
    self._attackers_each_round = None
    if byzantine_sampling == 'exact':
      self._attackers_each_round = _count_attackers(
          fraction, self._cohort_size, 'a cohort'
      )

  @property
  def attackers(self) -> Tuple[str, ...]:
    """The ids of the attackers, sorted."""
    return tuple(self._client_ids[i] for i in self._attackers)

  def sample(self, round_num: int) -> Cohort:
    """The cohort of a round, from 1; depends on seed and round alone."""
    rng = seeding.generator(
        self._seed,
        seeding.Purpose.COHORT,
        checks.check_int('round_num', round_num, minimum=1),
    )
    if self._attackers_each_round is None:
      chosen = rng.permutation(len(self._client_ids))[: self._cohort_size]
    else:
      cut = self._attackers_each_round
      chosen = rng.permutation(
          np.concatenate(
              [
                  rng.permutation(self._attackers)[:cut],
                  rng.permutation(self._honest)[: self._cohort_size - cut],
              ]
          )
      )
    attacker_index = np.where(
        np.isin(chosen, self._attackers),
        np.searchsorted(self._attackers, chosen),
        -1,
    )
    return Cohort(
        tuple(self._client_ids[i] for i in chosen),
        tuple(attacker_index.tolist()),
    )


def _check_client_ids(client_ids: Sequence[str]) -> Tuple[str, ...]:
  """The ids, sorted."""
  checks.check_kind('client_ids', client_ids, list, tuple)
  for client_id in client_ids:
    checks.check_kind('a client id', client_id, str)
  found = tuple(sorted(client_ids))
  for first, second in zip(found, found[1:]):
    if first == second:
      raise ValueError(f'client_ids must be unique; {first!r} comes twice.')
  return found


def _count_attackers(fraction: float, size: int, group: str) -> int:
  """The attackers among `size` clients, or an error that says what is wrong."""
  count = round(fraction * size)
  if fraction > 0 and count == 0:
    raise ValueError(
        f'byzantine_fraction {fraction} is less than one attacker in {group} of'
        f' {size} clients; give 0 or a larger fraction.'
    )
  if count == size:
    raise ValueError(
        f'byzantine_fraction {fraction} leaves no honest client in {group} of'
        f' {size} clients; give a smaller fraction.'
    )
  return count
