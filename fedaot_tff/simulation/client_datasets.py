"""What the clients of a cohort train on."""

import collections
from collections.abc import Sequence
import copy
import functools
from typing import List, NamedTuple, Optional

import cachetools
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples as examples_lib
from fedaot_tff.learning import adversary
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import seeding

# Examples in memory, clean and poisoned ones each; the clients that were used
# last are kept.
_MAX_CACHED_BYTES = 1 << 30
# Clients that `mean_num_batches` looks at.
_MAX_COUNTED_CLIENTS = 100


class ClientDatasets:
  """Makes the training datasets of a cohort.

  A client's unbatched clean examples, `OrderedDict(x=..., y=...)`, are poisoned
  if it is an attacker, shuffled anew in each of its `client_epochs` a round,
  and batched; the last batch may be smaller. The order of the examples depends
  on the seed, the client and the round alone. Up to 1 GiB of clean and as much
  of poisoned examples are kept in memory, so that a client is read once, and
  poisoned once.
  """

  def __init__(
      self,
      client_data: tff.simulation.datasets.ClientData,
      *,
      num_classes: int,
      batch_size: int,
      client_epochs: int = 1,
      data_poisoning: Optional[attack.DataPoisoning] = None,
      seed: int = 0,
  ):
    checks.check_kind(
        'client_data', client_data, tff.simulation.datasets.ClientData
    )
    self._client_data = client_data
    self._positions = {
        client_id: position
        for position, client_id in enumerate(sorted(client_data.client_ids))
    }
    self._num_classes = checks.check_int('num_classes', num_classes, minimum=1)
    self._batch_size = checks.check_int('batch_size', batch_size, minimum=1)
    self._client_epochs = checks.check_int(
        'client_epochs', client_epochs, minimum=1
    )
    self._seed = checks.check_int('seed', seed, minimum=0, maximum=2**63 - 1)
    self._clean = _make_cache()
    self._set_poisoning(data_poisoning)

  def poisoned_by(
      self, data_poisoning: Optional[attack.DataPoisoning]
  ) -> 'ClientDatasets':
    """The same clients under another attack, with the same clean examples."""
    datasets = copy.copy(self)
    datasets._set_poisoning(data_poisoning)
    return datasets

  def _set_poisoning(self, data_poisoning):
    checks.check_kind(
        'data_poisoning', data_poisoning, attack.DataPoisoning, type(None)
    )
    self._data_poisoning = data_poisoning
    self._poisoned = _make_cache()

  def for_cohort(
      self, cohort: cohort_lib.Cohort, round_num: int
  ) -> List[collections.OrderedDict]:
    """The clients' data in a round, from 1, in the order of the cohort.

    As `build_attacked_fed_avg` takes them. A dataset that is iterated in this
    process once more is in another order; a computation always sees the first.
    Raises ValueError if a client is unknown or has no examples, or others than
    `examples.check` lets pass.
    """
    return [
        collections.OrderedDict(
            attacker_index=np.int32(attacker_index),
            dataset=self._training_data(client_id, attacker_index, round_num),
        )
        for client_id, attacker_index in zip(*cohort)
    ]

  def arrays_for_cohort(
      self, cohort: cohort_lib.Cohort, round_num: int
  ) -> List[collections.OrderedDict]:
    """The same examples in the same order, as `array_work.ArrayWork` does it.

    `x` and `y` are the same tensors in every round.
    """
    return [
        collections.OrderedDict(
            attacker_index=np.int32(attacker_index),
            dataset=self._training_arrays(client_id, attacker_index, round_num),
        )
        for client_id, attacker_index in zip(*cohort)
    ]

  def mean_num_batches(self) -> int:
    """The mean number of batches a client trains on in a round, rounded.

    Over at most 100 clients, drawn from the seed. Meant for
    `HoldOut(num_steps=...)`.
    """
    rng = seeding.generator(self._seed, seeding.Purpose.CLIENT_SIZES)
    client_ids = rng.permutation(sorted(self._positions))
    sizes = np.array(
        [
            self._examples(client_id, adversary.HONEST).num_examples
            for client_id in map(str, client_ids[:_MAX_COUNTED_CLIENTS])
        ]
    )
    batches = np.ceil(self._client_epochs * sizes / self._batch_size)
    return round(float(np.mean(batches)))

  def _training_data(self, client_id, attacker_index, round_num):
    """Shuffled, repeated and batched examples."""
    examples = self._examples(client_id, attacker_index)
    dataset = tf.data.Dataset.from_tensor_slices(examples.arrays)
    seeds = self._order_seeds(client_id, round_num)
    return _shuffle_and_repeat(
        _without_optimization(dataset), seeds, self._client_epochs
    ).batch(self._batch_size)

  def _training_arrays(self, client_id, attacker_index, round_num):
    examples = self._examples(client_id, attacker_index)
    seeds = self._order_seeds(client_id, round_num)
    order = _draw_order(examples.num_examples, seeds, self._client_epochs)
    return collections.OrderedDict(examples.arrays, order=order)

  def _order_seeds(self, client_id, round_num):
    """What the order of a client's examples in a round depends on."""
    return seeding.generator(
        self._seed,
        seeding.Purpose.EXAMPLE_ORDER,
        round_num,
        self._positions[client_id],
    ).integers(1, 2**63, size=2)

  def _examples(self, client_id: str, attacker_index: int) -> '_Examples':
    """A client's examples, in memory."""
    if client_id not in self._positions:
      raise ValueError(f'client_data has no client {client_id!r}.')
    if attacker_index < 0 or self._data_poisoning is None:
      cache, make = self._clean, self._read
    else:
      cache = self._poisoned
      make = functools.partial(self._poison, attacker_index=attacker_index)
    if client_id in cache:
      return cache[client_id]
    examples = make(client_id)
    if examples.num_bytes <= cache.maxsize:
      cache[client_id] = examples
    return examples

  def _read(self, client_id: str) -> '_Examples':
    dataset = self._client_data.create_tf_dataset_for_client(client_id)
    examples_lib.check(dataset)
    return _in_memory(client_id, dataset)

  def _poison(self, client_id: str, *, attacker_index: int) -> '_Examples':
    """The attacker's data, or an error if the attack changes its type."""
    clean = self._examples(client_id, adversary.HONEST)
    dataset = tf.data.Dataset.from_tensor_slices(clean.arrays)
    rng = seeding.generator(
        self._seed, seeding.Purpose.POISONING, self._positions[client_id]
    )
    poisoned = self._data_poisoning.poison(
        dataset,
        num_classes=self._num_classes,
        attacker_index=attacker_index,
        seed=int(rng.integers(2**31)),
    )
    if poisoned.element_spec != dataset.element_spec:
      raise ValueError(
          f'{type(self._data_poisoning).__name__} must keep the type of the'
          f' examples, {dataset.element_spec}; found {poisoned.element_spec}.'
      )
    return _in_memory(client_id, poisoned)


class _Examples(NamedTuple):
  """Examples in memory."""

  arrays: 'collections.OrderedDict[str, tf.Tensor]'

  @property
  def num_examples(self) -> int:
    return self.arrays['y'].shape[0]

  @property
  def num_bytes(self) -> int:
    return sum(
        a.dtype.size * a.shape.num_elements() for a in self.arrays.values()
    )


def _make_cache() -> cachetools.LRUCache:
  return cachetools.LRUCache(
      _MAX_CACHED_BYTES, getsizeof=lambda examples: examples.num_bytes
  )


def _in_memory(client_id: str, dataset: tf.data.Dataset) -> _Examples:
  # One batch of everything; an iterator would take ten times as long.
  whole = _without_optimization(dataset).batch(np.iinfo(np.int64).max)
  try:
    return _Examples(whole.get_single_element())
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(
        f'Client {client_id!r} has no examples, or they cannot be read:'
        f' {error.message.splitlines()[0]}'
    ) from error


def _draw_order(
    num_examples: int, seeds: Sequence[int], num_epochs: int
) -> np.ndarray:
  """The positions of examples as `_shuffle_and_repeat` orders them.

  To run that for a client takes longer than to train it.
  """
  epoch_seeds = _random_words(*seeds, 2 * num_epochs)
  order = []
  for pair in zip(epoch_seeds[::2], epoch_seeds[1::2]):
    words = iter(_random_words(*pair, num_examples))
    left = list(range(num_examples))
    for start in range(num_examples):
      drawn = start + next(words) % (num_examples - start)
      order.append(left[drawn])
      left[drawn] = left[start]
  return np.array(order, np.int32)


def _random_words(seed: int, seed2: int, number: int) -> List[int]:
  """The numbers of 32 bits that TensorFlow's kernels draw from two seeds."""
  return (
      tf.raw_ops.StatelessRandomUniformFullIntV2(
          shape=[number],
          key=np.uint64([seed]),
          counter=np.uint64([0, seed2]),
          alg=tf.random.Algorithm.PHILOX.value,
          dtype=tf.uint32,
      )
      .numpy()
      .tolist()
  )


def _shuffle_and_repeat(
    examples: tf.data.Dataset, seeds: Sequence[int], num_epochs: int
) -> tf.data.Dataset:
  """Shuffles all examples anew in each pass."""
  # Dataset.shuffle would mix in the seed of tf.random.set_seed, and takes
  # 2 ms longer.
  specs = tf.nest.flatten(examples.element_spec)
  variant = tf.raw_ops.ShuffleAndRepeatDataset(
      input_dataset=tf.data.experimental.to_variant(examples),
      buffer_size=examples.cardinality(),
      seed=seeds[0],
      seed2=seeds[1],
      count=num_epochs,
      output_types=[spec.dtype for spec in specs],
      output_shapes=[spec.shape for spec in specs],
      reshuffle_each_iteration=True,
  )
  return tf.data.experimental.from_variant(variant, examples.element_spec)


def _without_optimization(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """The dataset without what takes longer than these small ones run."""
  options = tf.data.Options()
  options.autotune.enabled = False
  options.experimental_optimization.apply_default_optimizations = False
  return dataset.with_options(options)
