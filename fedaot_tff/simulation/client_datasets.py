"""What the clients of a cohort train on."""

import collections
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

# Examples in memory; the clients that were used last are kept.
_MAX_CACHED_BYTES = 1 << 30
# Clients that `mean_num_batches` looks at.
_MAX_COUNTED_CLIENTS = 100


class ClientDatasets:
  """Makes the training datasets of a cohort.

  A client's unbatched clean examples, `OrderedDict(x=..., y=...)`, are poisoned
  if it is an attacker, shuffled anew in each of its `client_epochs` a round,
  and batched; the last batch may be smaller. The order of the examples depends
  on the seed, the client and the round alone. Up to 1 GiB of examples are kept
  in memory, poisoned ones included, so that a client is read and poisoned once.
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
    checks.check_kind(
        'data_poisoning', data_poisoning, attack.DataPoisoning, type(None)
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
    self._data_poisoning = data_poisoning
    self._seed = checks.check_int('seed', seed, minimum=0, maximum=2**63 - 1)
    self._cache = cachetools.LRUCache(
        _MAX_CACHED_BYTES, getsizeof=lambda entry: entry.num_bytes
    )

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

  def mean_num_batches(self) -> int:
    """The mean number of batches a client trains on in a round, rounded.

    Over at most 100 clients, drawn from the seed. Meant for
    `HoldOut(num_steps=...)`.
    """
    rng = seeding.generator(self._seed, seeding.Purpose.CLIENT_SIZES)
    client_ids = rng.permutation(sorted(self._positions))
    sizes = np.array(
        [
            self._examples(client_id, adversary.HONEST).cardinality().numpy()
            for client_id in map(str, client_ids[:_MAX_COUNTED_CLIENTS])
        ]
    )
    batches = np.ceil(self._client_epochs * sizes / self._batch_size)
    return round(float(np.mean(batches)))

  def _training_data(self, client_id, attacker_index, round_num):
    """Shuffled, repeated and batched examples."""
    if client_id not in self._positions:
      raise ValueError(f'client_data has no client {client_id!r}.')
    examples = self._examples(client_id, attacker_index)
    seeds = seeding.generator(
        self._seed,
        seeding.Purpose.EXAMPLE_ORDER,
        round_num,
        self._positions[client_id],
    ).integers(1, 2**63, size=2)
    # Dataset.shuffle would mix in the seed of tf.random.set_seed, and takes
    # 2 ms longer.
    variant = tf.raw_ops.ShuffleAndRepeatDataset(
        input_dataset=tf.data.experimental.to_variant(examples),
        buffer_size=examples.cardinality(),
        seed=seeds[0],
        seed2=seeds[1],
        count=self._client_epochs,
        output_types=[spec.dtype for spec in examples.element_spec.values()],
        output_shapes=[spec.shape for spec in examples.element_spec.values()],
        reshuffle_each_iteration=True,
    )
    return tf.data.experimental.from_variant(
        variant, examples.element_spec
    ).batch(self._batch_size)

  def _examples(self, client_id: str, attacker_index: int) -> tf.data.Dataset:
    """A client's unbatched examples, in memory."""
    poisoned = attacker_index >= 0 and self._data_poisoning is not None
    key = (client_id, poisoned)
    if key in self._cache:
      return self._cache[key].dataset
    dataset = self._client_data.create_tf_dataset_for_client(client_id)
    examples_lib.check(dataset)
    if poisoned:
      dataset = self._poison(client_id, attacker_index, dataset)
    examples = _read(client_id, dataset)
    if examples.num_bytes <= self._cache.maxsize:
      self._cache[key] = examples
    return examples.dataset

  def _poison(self, client_id, attacker_index, dataset) -> tf.data.Dataset:
    """The attacker's data, or an error if the attack changes its type."""
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
    return poisoned


class _Examples(NamedTuple):
  """Unbatched examples in memory."""

  dataset: tf.data.Dataset
  num_bytes: int


def _read(client_id: str, dataset: tf.data.Dataset) -> _Examples:
  # One batch of everything; an iterator would take ten times as long.
  whole = _without_optimization(dataset).batch(np.iinfo(np.int64).max)
  try:
    arrays = tf.nest.map_structure(
        lambda t: t.numpy(), whole.get_single_element()
    )
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(
        f'Client {client_id!r} has no examples, or they cannot be read:'
        f' {error.message.splitlines()[0]}'
    ) from error
  return _Examples(
      _without_optimization(tf.data.Dataset.from_tensor_slices(arrays)),
      sum(array.nbytes for array in tf.nest.flatten(arrays)),
  )


def _without_optimization(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """The dataset without what takes longer than these small ones run."""
  options = tf.data.Options()
  options.autotune.enabled = False
  options.experimental_optimization.apply_default_optimizations = False
  return dataset.with_options(options)
