"""Neurotoxin: a backdoor where the honest clients change little."""

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import reference_mimic


class Neurotoxin(attack.CollusivePoisoning):
  """Sends the own update without the coordinates that honest clients change.

  What poisoned data, such as `backdoor.Backdoor`, taught an attacker lasts
  where no honest client writes over it. With m the last move of the global
  model,

    sent_j = 0 for the floor(top d) largest |m_j|, else u_j,

  of the d coordinates of the update u; `top` in [0, 1). Ties are sent, so that
  everything is before the model has moved.

  Knowledge: the own update and the global models. Source: Zhang, Panda, Song,
  Yang, Mahoney, Gonzalez, Ramchandran and Mittal, "Neurotoxin: Durable
  Backdoors in Federated Learning", ICML 2022, algorithm 1, where each step of
  the training is projected; here it is their sum, which differs where a step
  depends on what the ones before it changed.
  """

  def __init__(self, *, top: float = 0.05):
    self._top = checks.check_number('top', top, minimum=0, below=1)

  def initial_state(self, num_coordinates):
    return reference_mimic.initial_moves(num_coordinates)

  def agree(self, knowledge, state):
    state = reference_mimic.follow_moves(knowledge, state, memory=0.0)
    moves = tf.abs(state['reference'])
    num_kept = moves.shape[0] - int(self._top * moves.shape[0])
    is_kept = moves <= tf.sort(moves)[num_kept - 1]
    return tf.cast(is_kept, tf.float32), state

  def send(self, update, vector, attacker):
    del attacker
    return tf.where(vector > 0, update, 0.0)
