"""Training on arrays is TFF's training on datasets, to the last bit."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.learning import adversary
from fedaot_tff.learning import fed_avg
from tasks import image_models
from tests import small_problem

_WEIGHTINGS = tff.learning.ClientWeighting
# One with metrics.
_MODEL = image_models.mlp(
    [small_problem.NUM_FEATURES], small_problem.NUM_CLASSES, hidden_sizes=[5]
)


def _arrays(round_num, spoiled=None):
  """The examples of `small_problem.client_datasets`, in another order."""
  clients = []
  for client in range(small_problem.NUM_CLIENTS):
    size = 0 if client == 1 else 8 + 3 * client
    arrays = small_problem.examples(size, seed=100 * round_num + client)
    arrays['y'] = np.int64(arrays['y'])
    if client == spoiled:
      arrays['x'][2] = np.nan
    order = np.random.default_rng(client).permutation(2 * size) % max(size, 1)
    clients.append(collections.OrderedDict(arrays, order=np.int32(order)))
  return clients


def _dataset(client):
  examples = {name: client[name][client['order']] for name in ('x', 'y')}
  return tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(examples)
  ).batch(small_problem.BATCH_SIZE)


def _honest(datasets):
  return [
      collections.OrderedDict(attacker_index=np.int32(-1), dataset=dataset)
      for dataset in datasets
  ]


def _process(**options):
  return fed_avg.build_attacked_fed_avg(
      _MODEL,
      tff.learning.optimizers.build_sgdm(0.3, momentum=0.5),
      model_aggregator=tff.aggregators.MeanFactory(),
      **options,
  )


@pytest.mark.parametrize(
    'weighting', [_WEIGHTINGS.UNIFORM, _WEIGHTINGS.NUM_EXAMPLES]
)
@pytest.mark.parametrize('spoiled', [None, 3])
def test_it_is_training_on_datasets_to_the_last_bit(weighting, spoiled):
  on_datasets = small_problem.run(
      _process(client_weighting=weighting),
      2,
      client_data_fn=lambda n: _honest(map(_dataset, _arrays(n, spoiled))),
  )
  on_arrays = small_problem.run(
      _process(
          client_weighting=weighting,
          array_batch_size=small_problem.BATCH_SIZE,
      ),
      2,
      client_data_fn=lambda n: _honest(_arrays(n, spoiled)),
  )
  assert on_arrays[0].metrics['client_work']['train']['num_examples'] > 0
  small_problem.assert_bit_identical(on_arrays, on_datasets)


def test_a_model_that_is_no_functional_model_is_refused():
  with pytest.raises(TypeError, match='model_fn must be .*FunctionalModel'):
    fed_avg.build_attacked_fed_avg(
        small_problem.keras_model_fn,
        small_problem.client_optimizer(),
        model_aggregator=tff.aggregators.MeanFactory(),
        array_batch_size=5,
    )


def test_a_batch_size_below_one_is_refused():
  with pytest.raises(ValueError, match='batch_size must .*found 0'):
    _process(array_batch_size=0)


def test_attackers_who_train_in_a_way_of_their_own_are_refused():
  class Training(adversary.TrainingPoisoning):

    def create(self, model, optimizer):
      return lambda update, weights, batches: update

  with pytest.raises(ValueError, match='leave array_batch_size out'):
    _process(array_batch_size=5, training_poisoning=Training())
