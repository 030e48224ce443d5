"""What holds for every attack of the registry."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import registry
from fedaot_tff.learning import adversary
from fedaot_tff.learning import fed_avg
from tests import small_problem
from tests.attacks import poisoned_data

_HONEST = adversary.HONEST
_NAMES = registry.attack_names()
_ON_DATA = [n for n in _NAMES if registry.get_attack(n).data_poisoning]
_ON_TRAINING = [n for n in _NAMES if registry.get_attack(n).training_poisoning]
_ON_UPDATES = [n for n in _NAMES if registry.get_attack(n).update_poisoning]


def test_every_attack_but_none_does_something():
  parts = [*_ON_DATA, *_ON_TRAINING, *_ON_UPDATES]
  assert {*parts, 'none'} == set(_NAMES)


# --- On the updates ----------------------------------------------------------

_TYPE = tff.to_type(
    collections.OrderedDict(
        dense=((np.float32, [2]), (np.float64, [1])), scale=np.float16
    )
)


def _value(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return collections.OrderedDict(
      dense=(
          (scale * rng.normal(size=[2])).astype(np.float32),
          scale * rng.normal(size=[1]),
      ),
      scale=np.float16(scale * rng.normal()),
  )


def _broken():
  """An update that is not finite, with a sign that must not get lost."""
  value = _value(1)
  value['dense'][0][:] = [np.nan, -0.0]
  return value


def _take_sum(state, update, index, model):
  del state, index, model
  return tff.federated_sum(update)


_OPTIONS = {
    # More steps take long and keep to the contract like one.
    'adaptive_fedaot': ':steps=1',
    'adaptive_fedaot_jittered': ':steps=1',
    # Four coordinates are few for the defaults to have a say.
    'neurotoxin': ':top=0.5',
    'capped_backdoor': ':multiple=1',
}
# The first round, from 1, that sees an attack, if it is not the first.
_BEGINS = {'intermittent': 12, 'neurotoxin': 2}


@functools.lru_cache(maxsize=None)
def _process(name, seed=3):
  defence = adversary.Defence(tff.TensorType(np.int32), _take_sum)
  return registry.get_attack(
      name + _OPTIONS.get(name, '')
  ).update_poisoning.create(
      _TYPE, adversary.Context(seed=seed, defence=defence)
  )


def _next(process, state, updates, index, model=10):
  return process.next(
      state, updates, [np.int32(i) for i in index], _value(model), np.int32(5)
  )


def _run(process, updates, index, num_rounds=2):
  """What is sent in each round, and the states after them."""
  state, sent, states = process.initialize(), [], []
  for i in range(num_rounds):
    output = _next(process, state, updates, index, model=10 + i)
    state = output.state
    sent.append(output.result)
    states.append(state)
  return sent, states


_MIXED = ([_value(i, 0.1) for i in range(5)], (_HONEST, 1, _HONEST, 0, _HONEST))
_COHORTS = {
    'mixed': _MIXED,
    'one_attacker': (_MIXED[0], (_HONEST, _HONEST, 2, _HONEST, _HONEST)),
    'one_honest': (_MIXED[0], (1, 0, 2, _HONEST, 3)),
    'all_attackers': (_MIXED[0], (1, 0, 2, 3, 4)),
    'only_one': (_MIXED[0][:1], (0,)),
    'no_attackers': (_MIXED[0], (_HONEST,) * 5),
    'nan_among_honest': (
        [_broken(), *_MIXED[0][1:]],
        (_HONEST, 0, _HONEST, 1, _HONEST),
    ),
    'nan_only': ([_broken(), _broken(), _MIXED[0][0]], (_HONEST, _HONEST, 0)),
    'nan_attacker': (
        [_MIXED[0][0], _MIXED[0][1], _broken()],
        (_HONEST, _HONEST, 0),
    ),
}
# What an attacker sends is not finite if its own update is not, or on purpose.
_PASSES_NAN_ON = {
    'capped_backdoor',
    'gaussian_noise',
    'intermittent',
    'model_replacement',
    'neurotoxin',
    'noise_backdoor',
    'scaling',
    'sign_flip',
    'swap_scaling',
    'switching',
}


@pytest.mark.parametrize('name', _ON_UPDATES)
def test_type_of_the_process(name):
  process = _process(name)
  parameter = process.next.type_signature.parameter
  assert list(parameter)[1:] == [
      tff.FederatedType(_TYPE, tff.CLIENTS),
      tff.FederatedType(np.int32, tff.CLIENTS),
      tff.FederatedType(_TYPE, tff.SERVER),
      tff.FederatedType(np.int32, tff.SERVER),
  ]
  result = process.next.type_signature.result
  assert result.result == tff.FederatedType(_TYPE, tff.CLIENTS)
  assert result.state == parameter[0]
  assert process.initialize.type_signature.result == parameter[0]
  assert process.knows_defence


@pytest.mark.parametrize('name', _ON_UPDATES)
def test_honest_pass_bit_for_bit_and_attackers_keep_the_type(name):
  process = _process(name)
  state = process.initialize()
  # Round by round, so that nothing a cohort leaves behind spoils the next.
  for cohort, (updates, index) in {**_COHORTS, 'again': _MIXED}.items():
    output = _next(process, state, updates, index)
    state = output.state
    may_be_nan = name == 'random_nan_inf' or (
        cohort == 'nan_attacker' and name in _PASSES_NAN_ON
    )
    for found, clean, i in zip(output.result, updates, index):
      if i == _HONEST:
        small_problem.assert_bit_identical(found, clean)
        continue
      tf.nest.assert_same_structure(found, clean)
      for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(clean)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert may_be_nan or np.all(np.isfinite(a)), cohort


@pytest.mark.parametrize('name', _ON_UPDATES)
def test_every_attacker_attacks(name):
  sent, _ = _run(_process(name), *_MIXED, num_rounds=_BEGINS.get(name, 1))
  for i in (1, 3):
    found, clean = tf.nest.flatten(sent[-1][i]), tf.nest.flatten(_MIXED[0][i])
    assert any(np.any(a != b) for a, b in zip(found, clean))


@pytest.mark.parametrize('name', _ON_UPDATES)
def test_seed_and_state_fix_what_is_sent(name):
  process = _process(name)
  sent, states = _run(process, *_MIXED)
  again, _ = _run(process, *_MIXED)
  small_problem.assert_bit_identical(again, sent)
  # The second round from the state after the first alone.
  output = _next(process, states[0], *_MIXED, model=11)
  small_problem.assert_bit_identical(output.result, sent[1])
  small_problem.assert_bit_identical(output.state, states[1])


@pytest.mark.parametrize(
    'name',
    ['fang_trimmed_mean', 'gaussian_noise', 'noise_backdoor', 'random_nan_inf'],
)
def test_another_seed_or_round_draws_anew(name):
  (first, second), _ = _run(_process(name), *_MIXED)
  (other, _), _ = _run(_process(name, seed=4), *_MIXED)
  draws = [
      np.concatenate([np.ravel(t) for t in tf.nest.flatten(sent[3])])
      for sent in (first, second, other)
  ]
  for a, b in ((0, 1), (0, 2), (1, 2)):
    assert not np.array_equal(draws[a], draws[b], equal_nan=True)


# --- On the data -------------------------------------------------------------

_NUM_CLASSES = 10
_LABELS = np.arange(40) % _NUM_CLASSES
_WITH_AIM = {
    'label_swap',
    'backdoor',
    'distributed_backdoor',
    'edge_case',
    'capped_backdoor',
    'model_replacement',
    'neurotoxin',
    'noise_backdoor',
    'swap_scaling',
}
_WITH_TRIGGER = _WITH_AIM - {'label_swap', 'swap_scaling'}
_RANDOM = _WITH_TRIGGER | {'label_noise', 'multi_label_flip'}


def _poison(text, clean, *, attacker_index=1, seed=5, num_classes=_NUM_CLASSES):
  return registry.get_attack(text).data_poisoning.poison(
      clean, num_classes=num_classes, attacker_index=attacker_index, seed=seed
  )


@pytest.mark.parametrize('shape', [(16,), (4, 5), (4, 5, 2)])
@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize('name', _ON_DATA)
def test_poisons_data_of_the_same_type(name, dtype, shape):
  clean = poisoned_data.dataset(_LABELS, dtype=dtype, shape=shape)
  poisoned = _poison(name, clean)
  assert poisoned.element_spec == clean.element_spec
  assert poisoned.cardinality() == len(_LABELS)
  x, y = poisoned_data.arrays(poisoned)
  assert y.dtype == dtype
  assert np.all(y < _NUM_CLASSES)
  assert np.any(y != _LABELS)
  touched = (name in _WITH_TRIGGER) & ((y != _LABELS) | (_LABELS == 0))
  clean_x, _ = poisoned_data.arrays(clean)
  poisoned_data.assert_same_bits(x[~touched], clean_x[~touched])
  assert not touched.any() or not np.array_equal(
      x[touched], clean_x[touched], equal_nan=True
  )


@pytest.mark.parametrize('name', _ON_DATA)
def test_the_seed_fixes_the_data(name):
  clean = poisoned_data.dataset(_LABELS, shape=[16])
  poisoned = _poison(name, clean)
  expected = poisoned_data.arrays(poisoned)
  unknown_cardinality = clean.filter(lambda _: True)
  # All that there is to an attacker's number are its parity and its part of 4.
  for other in (
      poisoned,
      _poison(name, unknown_cardinality),
      _poison(name, clean, attacker_index=5),
  ):
    for a, b in zip(poisoned_data.arrays(other), expected):
      poisoned_data.assert_same_bits(a, b)
  _, y = poisoned_data.arrays(_poison(name, clean, seed=6))
  assert np.array_equal(y, expected[1]) == (name not in _RANDOM)


@pytest.mark.parametrize('name', _ON_DATA)
def test_refuses_data_that_never_ends_or_keeps_it(name):
  clean = poisoned_data.dataset(_LABELS, shape=[16]).repeat()
  try:
    poisoned = _poison(name, clean)
  except ValueError as error:
    assert 'must be finite' in str(error)
  else:
    assert poisoned.cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize('name', sorted(set(_ON_DATA) - _WITH_TRIGGER))
def test_refuses_a_single_class_and_labels_that_are_no_classes(name):
  with pytest.raises(ValueError, match='num_classes .* found 1'):
    _poison(name, poisoned_data.dataset([0]), num_classes=1)
  for label in (-1, 3):
    poisoned = _poison(name, poisoned_data.dataset([label]), num_classes=3)
    with pytest.raises(tf.errors.InvalidArgumentError):
      poisoned_data.arrays(poisoned)


_X, _Y = np.zeros([4, 16], np.float32), np.arange(4)
_UNFIT = {
    'tuples': ((_X, _Y), 'found a tuple: map them'),
    'names': (dict(z=_X, y=_Y), r"found the names \['z', 'y'\]: rename"),
    'bool': (dict(x=_X, y=_Y > 1), r'found y of bool \(\): .*cast'),
    'float': (dict(x=_X, y=_Y * 1.0), r'found y of float64 \(\): .*cast'),
    'one_hot': (dict(x=_X, y=np.eye(4)), r'of float64 \(4,\): .*argmax'),
    'column': (dict(x=_X, y=_Y[:, None]), r'of int64 \(1,\): .*squeeze'),
    'batched': (dict(x=_X[None], y=_Y[None]), r'int64 \(4,\): unbatch\(\)'),
}


@pytest.mark.parametrize('name', _ON_DATA)
@pytest.mark.parametrize('arrays, message', _UNFIT.values(), ids=_UNFIT)
def test_refuses_examples_of_another_kind(name, arrays, message):
  unfit = tf.data.Dataset.from_tensor_slices(arrays)
  with pytest.raises(ValueError, match=message) as error:
    _poison(name, unfit)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', _ON_DATA)
def test_success_is_another_class_for_clean_examples(name):
  x = np.random.default_rng(0).normal(size=[40, 6, 6, 1]).astype(np.float32)
  y = _LABELS.astype(np.int32)
  clean = x.copy()
  found = registry.get_attack(name).data_poisoning.success_examples(
      x, y, num_classes=_NUM_CLASSES
  )
  assert (found is not None) == (name in _WITH_AIM)
  np.testing.assert_array_equal(x, clean)
  if found is not None:
    examples, wanted = found
    assert (examples.dtype, wanted.dtype) == (x.dtype, y.dtype)
    assert examples.shape == (len(wanted), 6, 6, 1)
    # The first pixel, which no trigger covers, tells the example.
    labels = dict(zip(x[:, 0, 0, 0], y))
    assert all(labels[p] != w for p, w in zip(examples[:, 0, 0, 0], wanted))


# --- On the training ---------------------------------------------------------


def _train(name, index):
  """The weights after a round of clients with these indices."""
  poisoning = None
  if name:
    poisoning = registry.get_attack(f'{name}:size=1').training_poisoning
  process = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=tff.aggregators.MeanFactory(),
      training_poisoning=poisoning,
  )
  data = [
      collections.OrderedDict(attacker_index=np.int32(i), dataset=dataset)
      for i, dataset in zip(index, small_problem.client_datasets())
  ]
  output = process.next(process.initialize(), data)
  return small_problem.trainable(process, output.state)


@pytest.mark.parametrize('name', _ON_TRAINING)
def test_only_attackers_train_in_a_way_of_their_own(name):
  honest = (_HONEST,) * 4
  clean = _train('', honest)
  small_problem.assert_bit_identical(_train(name, honest), clean)
  attacked = _train(name, (0, _HONEST, 1, _HONEST))
  assert np.all(np.isfinite(np.concatenate([np.ravel(w) for w in attacked])))
  assert np.any(attacked[0] != clean[0])
  small_problem.assert_bit_identical(
      _train(name, (0, _HONEST, 1, _HONEST)), attacked
  )


@pytest.mark.parametrize('name', _ON_TRAINING)
def test_needs_a_functional_model(name):
  with pytest.raises(TypeError, match='FunctionalModel; found') as error:
    fed_avg.build_attacked_fed_avg(
        small_problem.keras_model_fn,
        small_problem.client_optimizer(),
        model_aggregator=tff.aggregators.MeanFactory(),
        training_poisoning=registry.get_attack(name).training_poisoning,
    )
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', _ON_TRAINING)
def test_success_is_how_often_the_target_is_predicted(name):
  poisoning = registry.get_attack(f'{name}:size=1,target=2').training_poisoning
  examples = small_problem.examples(40, seed=1)
  measure = poisoning.build_success(
      small_problem.model(),
      small_problem.client_optimizer(),
      examples['x'],
      examples['y'],
      num_classes=small_problem.NUM_CLASSES,
  )
  for bias, expected in (
      ([0, 0, 1e9], 1.0),
      ([0, 1e9, 0], 0.0),
      ([0, 0, np.nan], 0.0),
  ):
    weights = tff.learning.models.ModelWeights(
        (np.zeros([4, 3], np.float32), np.float32(bias)), ()
    )
    assert measure(weights) == expected
  with pytest.raises(ValueError, match='target must be .* <= 1; found 2'):
    poisoning.build_success(
        small_problem.model(), None, **examples, num_classes=2
    )
