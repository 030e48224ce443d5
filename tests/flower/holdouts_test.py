"""Tests for hold-outs of PyTorch and Keras."""

from flwr.app import ArrayRecord
from flwr.app import ConfigRecord
import keras
import numpy as np
import pytest
import torch

from fedaot import holdouts
from fedaot.flower import FedAOT
from tests.flower import messages

_SGD = dict(learning_rate=0.2, batch_size=8, num_steps=3)


def _data(num_examples=24):
  rng = np.random.default_rng(0)
  y = rng.integers(0, 3, num_examples)
  x = rng.standard_normal((num_examples, 6)) + np.eye(6)[y] * 3
  return x.astype(np.float32), y


def _module(seed=0, dropout=0.0):
  torch.manual_seed(seed)
  return torch.nn.Sequential(
      torch.nn.Linear(6, 5),
      torch.nn.BatchNorm1d(5),
      torch.nn.Dropout(dropout),
      torch.nn.ReLU(),
      torch.nn.Linear(5, 3),
  )


def _arrays(module):
  return [v.detach().numpy().copy() for v in module.state_dict().values()]


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_torch_trains_as_its_optimizer_does(momentum):
  x, y = _data()
  module, positions = _module(1), np.arange(24)[::-1].copy()
  start = _arrays(module)
  holdout = holdouts.from_torch(_module(2), (x, y), **_SGD, momentum=momentum)
  found = holdout.train(start, positions)
  optimizer = torch.optim.SGD(module.parameters(), 0.2, momentum=momentum)
  for batch in np.split(positions, 3):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(
        module(torch.tensor(x[batch])), torch.tensor(y[batch])
    )
    loss.backward()
    optimizer.step()
  names = [name for name, _ in module.named_parameters()]
  for name, before, array, trained in zip(
      module.state_dict(), start, found, _arrays(module)
  ):
    if name in names:
      np.testing.assert_allclose(array, trained, rtol=1e-5, atol=1e-5)
      assert name == '0.bias' or not np.array_equal(array, before)
    else:  # Buffers are no part of an update.
      np.testing.assert_array_equal(array, before)


def test_torch_evaluates_with_the_statistics_given():
  x, y = _data()
  module = _module(1, dropout=0.5)
  with torch.no_grad():
    module[1].running_mean += 1.0
    module[1].running_var *= 4.0
  holdout = holdouts.from_torch(_module(2, dropout=0.5), (x, y), **_SGD)
  holdout.train(_arrays(_module(3)), np.arange(8))
  value, gradient = holdout.loss_and_gradient(_arrays(module), np.arange(9))
  module.eval()
  loss = torch.nn.functional.cross_entropy(
      module(torch.tensor(x[:9])), torch.tensor(y[:9])
  )
  loss.backward()
  assert value == pytest.approx(loss.item(), rel=1e-6)
  by_name = dict(zip(module.state_dict(), gradient))
  for name, parameter in module.named_parameters():
    np.testing.assert_allclose(
        by_name.pop(name), parameter.grad, rtol=1e-5, atol=1e-7
    )
  assert not any(np.any(array) for array in by_name.values())


def test_torch_takes_parameters_alone():
  data, module = _data(), _module(1)
  parameters = [p.detach().numpy().copy() for p in module.parameters()]
  holdout = holdouts.from_torch(_module(2), data, **_SGD)
  whole = holdout.train(_arrays(module), np.arange(24))
  alone = holdout.train(parameters, np.arange(24))
  expected = dict(zip(module.state_dict(), whole))
  for (name, _), array in zip(module.named_parameters(), alone):
    np.testing.assert_allclose(array, expected[name], atol=1e-6)


def test_torch_refuses_arrays_of_another_model():
  holdout = holdouts.from_torch(_module(), _data(), **_SGD)
  arrays = _arrays(_module())
  for wrong in (arrays[:-1], arrays[::-1], [np.zeros(1, np.float32)] * 9):
    with pytest.raises(ValueError, match='those of state_dict'):
      holdout.train(wrong, np.arange(4))


def test_torch_trains_as_clients_do():
  def train(module, x, y):
    assert module.training and len(x) == len(y) == 5
    with torch.no_grad():
      module[4].bias += 1.0

  holdout = holdouts.from_torch(_module(2), _data(), train=train)
  start = _arrays(_module(1))
  after = holdout.train(start, np.arange(5))
  np.testing.assert_allclose(after[-1], start[-1] + 1)
  np.testing.assert_array_equal(after[0], start[0])


def test_torch_takes_arrays_as_they_come_over_the_wire():
  """Read-only, of another byte order or precision, not contiguous."""
  data, start = _data(), _arrays(_module(1))
  holdout = holdouts.from_torch(_module(2), data, **_SGD)
  odd = [np.array(a, a.dtype.newbyteorder('>'), order='F') for a in start]
  for array in odd:
    array.flags.writeable = False
  value, _ = holdout.loss_and_gradient(odd, np.arange(24))
  assert value == holdout.loss_and_gradient(start, np.arange(24))[0]
  holdout.train(odd, np.arange(24))


def _keras_model(seed):
  keras.utils.set_random_seed(seed)
  return keras.Sequential(
      [
          keras.Input((6,)),
          keras.layers.Dense(5),
          keras.layers.BatchNormalization(),
          keras.layers.Dropout(0.5),
          keras.layers.ReLU(),
          keras.layers.Dense(3),
      ]
  )


def test_keras_gradient_is_that_of_differences():
  x, y = _data()
  model = _keras_model(1)
  holdout = holdouts.from_keras(_keras_model(2), (x, y), **_SGD)
  arrays = model.get_weights()
  arrays[4] = arrays[4] + 0.5  # The moving mean.
  positions = np.arange(11)
  value, gradient = holdout.loss_and_gradient(arrays, positions)
  logits = lambda a: (model.set_weights(a), model(x[:11], training=False))[1]
  expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
      y[:11], logits(arrays)
  )
  assert value == pytest.approx(float(expected.detach()), rel=1e-5)
  assert not np.any(gradient[4]) and not np.any(gradient[5])
  for place in (0, 2, 6, 7):
    step = 1e-2 * gradient[place] / np.linalg.norm(gradient[place])
    moved = lambda sign: [
        a + sign * step if i == place else a for i, a in enumerate(arrays)
    ]
    slope = (
        holdout.loss_and_gradient(moved(1), positions)[0]
        - holdout.loss_and_gradient(moved(-1), positions)[0]
    ) / 2e-2
    assert slope == pytest.approx(np.linalg.norm(gradient[place]), rel=0.02)


def test_keras_trains_by_the_clients_optimizer():
  x, y = _data()
  model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
  copy = keras.models.clone_model(model)
  start = model.get_weights()
  found = holdouts.from_keras(copy, (x, y), **_SGD).train(start, np.arange(24))
  model.compile(
      keras.optimizers.SGD(0.2),
      keras.losses.SparseCategoricalCrossentropy(from_logits=True),
  )
  for batch in np.split(np.arange(24), 3):
    model.train_on_batch(x[batch], y[batch])
  for array, expected in zip(found, model.get_weights()):
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)

  model.set_weights(start)
  own = holdouts.from_keras(
      model, (x, y), train=lambda m, x, y: m.train_on_batch(x, y)
  )
  once = own.train(start, np.arange(8))
  assert 0 < np.abs(once[0] - start[0]).max()


def test_a_majority_of_attackers_is_withstood_with_batch_normalization():
  x, y = _data(400)
  module, rng = _module(1), np.random.default_rng(1)
  client = holdouts.from_torch(_module(2), (x, y), **_SGD)
  strategy = FedAOT(
      holdout=holdouts.from_torch(_module(3), (x[:60], y[:60]), **_SGD), seed=1
  )
  arrays = ArrayRecord(module.state_dict())
  for round_num in range(1, 9):
    strategy.configure_train(
        round_num, arrays, ConfigRecord(), messages.Nodes(10)
    )
    before = [array.numpy() for array in arrays.values()]
    replies = []
    for i in range(10):
      after = client.train(before, 60 + rng.permutation(340)[:40])
      after = [b - 2 * (a - b) if i < 6 else a for a, b in zip(after, before)]
      replies.append(messages.reply(i + 1, dict(zip(arrays, after))))
    arrays, metrics = strategy.aggregate_train(round_num, replies)
  assert sum(metrics['fedaot-weights'][:6]) < 0.2
  module.load_state_dict(arrays.to_torch_state_dict())
  module.eval()
  right = module(torch.tensor(x)).argmax(1).numpy() == y
  assert right.mean() > 0.9
