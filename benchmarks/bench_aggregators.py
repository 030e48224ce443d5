"""The time of a round of each aggregator, next to a round of MeanFactory."""

from benchmarks import generated_rounds


def test_round(
    benchmark, aggregator, num_clients, dimension, context, time_in_turns
):
  benchmark.group = f'{context}, N = {num_clients}, d = {dimension}'
  time_in_turns(
      generated_rounds.make_rounds(aggregator, num_clients, dimension),
      generated_rounds.make_rounds('mean', num_clients, dimension),
      generated_rounds.make_generation(num_clients, dimension),
      num_clients=num_clients,
  )
