"""The halves of a FedAOT round: the weighted mean, and what is learned of it.

`weigh` ends the round after the aggregate; `learn` plays all of it.
"""

import pytest
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks import generated_rounds


@pytest.mark.parametrize('last_step', ['weigh', 'learn'])
@pytest.mark.parametrize('mode', ['fedaot', 'fedaot_no_holdout'])
def test_steps(
    benchmark, mode, last_step, num_clients, dimension, context, time_in_turns
):
  generate = generated_rounds.make_generator(dimension)
  value_type = generate.type_signature.result
  factory = generated_rounds.make_factory(mode, num_clients, dimension)
  fedaot = factory.create_round(value_type, None)

  @tff.tensorflow.computation
  def initial_model():
    return tuple(tf.zeros(tensor.shape) for tensor in value_type)

  @tff.tensorflow.computation(value_type, value_type)
  def apply(model, aggregate):
    return tf.nest.map_structure(tf.add, model, aggregate)

  @tff.federated_computation(
      tff.FederatedType(fedaot.initialize.type_signature.result, tff.SERVER),
      generated_rounds.CLIENTS_TYPE,
  )
  def next_fn(state, clients):
    # Without a hold-out the model is not looked at, nor computed.
    model = tff.federated_eval(initial_model, tff.SERVER)
    value = tff.federated_map(generate, clients)
    weighed = fedaot.weigh(state, value, model=model)
    total = generated_rounds.add_up(weighed.result)
    if last_step == 'weigh':
      return state, total, ()
    model_after = tff.federated_map(apply, (model, weighed.result))
    state, measurements = fedaot.learn(state, weighed, model_after)
    return state, total, measurements

  benchmark.group = f'{context}, N = {num_clients}, d = {dimension}'
  time_in_turns(
      generated_rounds.repeat(next_fn, fedaot.initialize(), num_clients),
      generated_rounds.make_rounds('mean', num_clients, dimension),
      generated_rounds.make_generation(num_clients, dimension),
      num_clients=num_clients,
  )
