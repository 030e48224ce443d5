"""The halves of a FedAOT round: the weighted mean, and what is learned of it.

`weigh` ends the round after the aggregate; `learn` plays all of it.
"""

import pytest


@pytest.mark.parametrize('last_step', ['weigh', 'learn'])
@pytest.mark.parametrize('mode', ['fedaot', 'fedaot_no_holdout'])
def test_steps(
    benchmark, mode, last_step, num_clients, dimension, context, time_in_turns
):
  # Here, as TensorFlow takes seconds to import and options are checked first.
  # pylint: disable=g-import-not-at-top
  import tensorflow as tf
  import tensorflow_federated as tff

  from benchmarks import generated_rounds

  has_model = mode == 'fedaot'
  generate = generated_rounds.make_generator(dimension)
  value_type = generate.type_signature.result
  fedaot = generated_rounds.make_factory(
      mode, num_clients, dimension
  ).create_round(value_type, None)

  @tff.tensorflow.computation
  def initial_model():
    return tuple(map(tf.zeros, generated_rounds.shapes(dimension)))

  @tff.tensorflow.computation(value_type, value_type)
  def apply(model, aggregate):
    return tf.nest.map_structure(tf.add, model, aggregate)

  @tff.federated_computation(
      tff.FederatedType(fedaot.initialize.type_signature.result, tff.SERVER),
      generated_rounds.CLIENTS_TYPE,
  )
  def next_fn(state, clients):
    model, model_after = None, None
    if has_model:
      model = tff.federated_eval(initial_model, tff.SERVER)
    value = tff.federated_map(generate, clients)
    weighed = fedaot.weigh(state, value, model=model)
    total = generated_rounds.add_up(weighed.result)
    if last_step == 'weigh':
      return state, total, ()
    if has_model:
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
