"""The server: a strategy, and the accuracy on images of its own."""

import json
import time

from fedaot import holdouts
from fedaot import rules
from fedaot.flower import FedAOT
from fedaot.flower import Robust
from fedaotapp import task
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import ServerApp
from flwr.serverapp import strategy as flower
import torch

app = ServerApp()


def _holdout(seed):
  """The server's clean images; it trains as a typical client does."""
  return holdouts.from_torch(
      task.Net(),
      task.load_holdout(seed),
      learning_rate=task.LEARNING_RATE,
      batch_size=task.BATCH_SIZE,
      num_steps=10,  # A client has about 195 images.
  )


# Functions of the number of clients n, of attackers f, a seed and of options.
STRATEGIES = {
    'fedavg': lambda n, f, seed, **options: flower.FedAvg(**options),
    'krum': lambda n, f, seed, **options: flower.Krum(
        num_malicious_nodes=f, **options
    ),
    'multikrum': lambda n, f, seed, **options: flower.MultiKrum(
        num_malicious_nodes=f, num_nodes_to_select=n - f, **options
    ),
    'fedmedian': lambda n, f, seed, **options: flower.FedMedian(**options),
    'fedtrimmedavg': lambda n, f, seed, **options: flower.FedTrimmedAvg(
        beta=f / n, **options
    ),
    'nnm_trimmed_mean': lambda n, f, seed, **options: Robust(
        rules.nnm(rules.trimmed_mean(f)), **options
    ),
    'fedaot': lambda n, f, seed, **options: FedAOT(**options),
    'fedaot_holdout': lambda n, f, seed, **options: FedAOT(
        holdout=_holdout(seed), **options
    ),
}


@app.main()
def main(grid: Grid, context: Context) -> None:
  """Trains, and tells the accuracy of every round."""
  config = context.run_config
  for name, known in (('strategy', STRATEGIES), ('attack', task.ATTACKS)):
    if config[name] not in known:
      raise ValueError(
          f'{name} must be one of {", ".join(known)}; found {config[name]!r}.'
      )
  seed = config['seed']
  num_clients = config['num-clients']
  while (found := len(list(grid.get_node_ids()))) < num_clients:
    print(f'Waiting for {num_clients} clients; found {found}.', flush=True)
    time.sleep(1)
  strategy = STRATEGIES[config['strategy']](
      num_clients,
      int(config['byzantine-fraction'] * num_clients),
      seed,
      fraction_evaluate=0.0,
      # Goes on with those that are left.
      min_train_nodes=1,
      min_available_nodes=1,
  )
  torch.manual_seed(seed)
  net, accuracy = task.Net(), {}

  def evaluate(server_round, arrays):
    net.load_state_dict(arrays.to_torch_state_dict())
    accuracy[server_round] = task.accuracy(net, *task.load_test(seed))
    return MetricRecord({'accuracy': accuracy[server_round]})

  strategy.start(
      grid=grid,
      initial_arrays=ArrayRecord(net.state_dict()),
      num_rounds=config['num-server-rounds'],
      timeout=config['reply-timeout'],
      evaluate_fn=evaluate,
  )
  print(f'accuracy: {100 * accuracy[config["num-server-rounds"]]:.1f} %')
  if config['result']:
    with open(config['result'], 'w', encoding='utf-8') as file:
      json.dump(accuracy, file)
