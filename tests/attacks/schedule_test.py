"""Tests for the attacks that change from round to round."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import multiples
from fedaot_tff.attacks import schedule

_TYPE = tff.to_type(collections.OrderedDict(a=np.float32, b=np.float32))


def _update(a, b):
  return collections.OrderedDict(a=np.float32(a), b=np.float32(b))


def _run(poisoning, num_rounds):
  """What an attacker sends for (1, 2) in each round."""
  process = poisoning.create(_TYPE)
  state, sent = process.initialize(), []
  for _ in range(num_rounds):
    output = process.next(
        state, [_update(1, 2)], [np.int32(0)], _update(0, 0), ()
    )
    state = output.state
    sent.append([float(v) for v in output.result[0].values()])
  return sent


class _Counting(attack.CollusivePoisoning):
  """Sends the number of rounds that it has observed."""

  def initial_state(self, num_coordinates):
    return tf.constant(0.0)

  def agree(self, knowledge, state):
    return tf.fill([2], state + 1), state + 1


def test_switches_after_some_rounds_and_begins_anew():
  attacks = [multiples.SignFlip(scale=2.0), multiples.Scaling(factor=5.0)]
  sent = _run(schedule.Switching(attacks=attacks, rounds=2), 5)
  flipped, scaled = [-2, -4], [5, 10]
  assert sent == [flipped, flipped, scaled, scaled, flipped]


def test_attacks_observe_the_honest_rounds_before_their_own():
  sent = _run(schedule.Intermittent(attack=_Counting(), honest_rounds=2), 4)
  assert sent == [[1, 2], [1, 2], [3, 3], [4, 4]]


def test_by_name():
  assert _run(
      schedule.Switching(attacks=['zero', 'sign_flip'], rounds=1), 2
  ) == [[0, 0], [-3, -6]]
  assert _run(schedule.Intermittent(attack='zero', honest_rounds=1), 2) == [
      [1, 2],
      [0, 0],
  ]


@pytest.mark.parametrize(
    'kind, options, message',
    [
        (schedule.Switching, dict(attacks=['zero']), 'be >= 2; found 1'),
        (
            schedule.Switching,
            dict(attacks=['zero', 3]),
            'an attack must be a UpdatePoisoning or str; found int',
        ),
        (schedule.Switching, dict(rounds=0), 'rounds must be >= 1; found 0'),
        (
            schedule.Intermittent,
            dict(attack='backdoor'),
            "one of gaussian_noise, .*; found 'backdoor'",
        ),
        (schedule.Intermittent, dict(honest_rounds=1.5), 'an int; found 1.5'),
    ],
)
def test_tells_what_is_wrong(kind, options, message):
  with pytest.raises((TypeError, ValueError), match=message) as info:
    kind(**options)
  assert '\n' not in str(info.value)
