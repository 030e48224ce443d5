"""Edge-case backdoor: rare examples, as they are, under a wrong label."""

import collections

import numpy as np
import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples


def tail(x: np.ndarray, y: np.ndarray, share: float) -> np.ndarray:
  """Whether an example is among the least likely ones of its class, bool [n].

  Of the n_c examples of a class these are the ceil(share n_c) farthest from
  their mean: the least likely under a normal distribution with the same
  variance of all features.
  """
  flat = np.nan_to_num(np.asarray(x, np.float64).reshape([len(y), -1]))
  is_tail = np.zeros([len(y)], np.bool_)
  for label in np.unique(y):
    (members,) = np.nonzero(y == label)
    distances = np.linalg.norm(flat[members] - flat[members].mean(0), axis=1)
    num = int(np.ceil(share * len(members)))
    is_tail[members[np.argsort(-distances, kind='stable')[:num]]] = True
  return is_tail


class EdgeCase(attack.DataPoisoning):
  """Teaches the label `target` for the tail of the other classes.

  Of an attacker's n examples, `round(fraction * n)`, fixed by its seed, are
  replaced by those in the `tail`, `tail_share` of a class, of other classes, in
  turn, with the label `target`. No pixel is changed, and few examples of
  honest clients say otherwise. An attacker whose examples are all of the
  target's class keeps them. The attack succeeds with a test example in the tail
  of another class that is taken for `target`.

  The paper takes the tail from elsewhere, such as digits of another country, by
  a density of a network's features; here it is that of the data at hand, by the
  distance to the mean of the class. As honest clients have such examples with
  the right label, it succeeds less often.

  Knowledge: the attackers' own data. Source: Wang, Sreenivasan, Rajput,
  Vishwakarma, Agarwal, Sohn, Lee and Papailiopoulos, "Attack of the Tails: Yes,
  You Really Can Backdoor Federated Learning", NeurIPS 2020, the attack through
  the data alone.
  """

  def __init__(
      self, *, target: int = 0, fraction: float = 0.5, tail_share: float = 0.1
  ):
    self._target = checks.check_int('target', target, minimum=0)
    self._fraction = checks.check_number(
        'fraction', fraction, above=0, maximum=1
    )
    self._tail_share = checks.check_number(
        'tail_share', tail_share, above=0, maximum=1
    )

  def poison(self, dataset, *, num_classes, attacker_index, seed):
    del attacker_index
    examples.check(dataset)
    checks.check_int('target', self._target, minimum=0, maximum=num_classes - 1)
    chosen = examples.choose(
        dataset, self._fraction, np.random.default_rng(seed)
    )
    read = list(dataset.as_numpy_iterator())
    arrays = {name: np.stack([e[name] for e in read]) for name in read[0]}
    edges = self._edges(arrays['x'], arrays['y'])
    if len(edges):
      arrays['x'][chosen] = arrays['x'][np.resize(edges, chosen.sum())]
      arrays['y'][chosen] = self._target
    return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(arrays))

  def success_examples(self, x, y, *, num_classes):
    checks.check_int('target', self._target, minimum=0, maximum=num_classes - 1)
    edges = self._edges(x, y)
    return x[edges], np.full_like(y[edges], self._target)

  def _edges(self, x, y) -> np.ndarray:
    """The positions of the tail of the other classes."""
    is_tail = tail(x, y, self._tail_share)
    return np.flatnonzero(is_tail & (y != self._target))
