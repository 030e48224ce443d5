"""What the clients of a task hold, and a round of training with it."""

import numpy as np
import tensorflow_federated as tff


def of_client(client_data, client_id):
  """Returns the `(x, y)` arrays of one client."""
  dataset = client_data.create_tf_dataset_for_client(client_id)
  batch = dataset.batch(10**6).get_single_element()
  return batch['x'].numpy(), batch['y'].numpy()


def of_all(client_data):
  """Returns the `(x, y)` arrays of every client."""
  return [of_client(client_data, i) for i in client_data.client_ids]


def images(x):
  """Returns the set of images, to count and to intersect."""
  return {image.tobytes() for image in x}


def num_parameters(task):
  """Returns the number of trainable parameters; there must be no others."""
  trainable, non_trainable = task.model.initial_weights
  assert non_trainable == ()
  return sum(weight.size for weight in trainable)


def check_one_round(task, batch_size=4):
  """Trains one round of stock federated averaging on the first two clients."""
  process = tff.learning.algorithms.build_weighted_fed_avg(
      task.model,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  ids = task.client_data.client_ids[:2]
  datasets = [
      task.client_data.create_tf_dataset_for_client(i).batch(batch_size)
      for i in ids
  ]
  state, metrics = process.next(process.initialize(), datasets)
  # Twice the same: what is random in the model depends on the data alone.
  again, _ = process.next(process.initialize(), datasets)
  weights = [process.get_model_weights(s).trainable for s in (state, again)]
  for initial, new, same in zip(task.model.initial_weights[0], *weights):
    assert np.isfinite(new).all()
    assert np.any(initial != new)
    np.testing.assert_array_equal(new, same)
  sizes = [of_client(task.client_data, i)[1].size for i in ids]
  assert metrics['client_work']['train']['num_examples'] == sum(sizes)
