"""The aggregator: a strategy, and the accuracy on images of its own."""

import json

from fedaot import holdouts
from fedaot.flower import FedAOT
from fedaotsyft import task
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import ServerApp
from flwr.serverapp import strategy as flower

app = ServerApp()


def _fedaot_with_holdout(**options):
  x, y = task.load()
  holdout = holdouts.from_functions(
      task.loss_and_gradient,
      (x[1000:1100], y[1000:1100]),
      learning_rate=task.LEARNING_RATE,
      batch_size=task.BATCH_SIZE,
      num_steps=39,  # A datasite has 780 images.
  )
  return FedAOT(holdout=holdout, **options)


STRATEGIES = {
    'fedavg': flower.FedAvg,
    'fedaot': FedAOT,
    'fedaot_holdout': _fedaot_with_holdout,
}


@app.main()
def main(grid: Grid, context: Context) -> None:
  """Trains, and writes the accuracy of every round."""
  config, accuracy = context.run_config, {}
  num_datasites = len(list(grid.get_node_ids()))
  strategy = STRATEGIES[config['strategy']](
      fraction_evaluate=0.0,
      min_train_nodes=num_datasites,
      min_available_nodes=num_datasites,
  )
  x, y = task.load()

  def evaluate(server_round, arrays):
    model = arrays.to_numpy_ndarrays()
    accuracy[server_round] = task.accuracy(model, x[:1000], y[:1000])
    return MetricRecord({'accuracy': accuracy[server_round]})

  strategy.start(
      grid=grid,
      initial_arrays=ArrayRecord(task.initial_model()),
      num_rounds=config['num-server-rounds'],
      timeout=300,  # Flower waits an hour for a datasite that is gone.
      evaluate_fn=evaluate,
  )
  with open(config['result'], 'w', encoding='utf-8') as file:
    json.dump(accuracy, file)
