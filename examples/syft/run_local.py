"""Runs the app over five datasites on this machine, two of which attack.

```
python run_local.py FOLDER [fedavg | fedaot | fedaot_holdout]
```

FOLDER gets the private data of each datasite and a copy of the app. Messages
are encrypted and go through SyftBox's files, without a server.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

_HERE = pathlib.Path(__file__).resolve().parent
# Before syft_flwr is imported, here and in what it starts; with this checkout's
# fedaot.
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(
        None,
        [
            str(_HERE / 'shim'),
            os.environ.get('PYTHONPATH'),
            str(_HERE.parents[1]),
        ],
    )
)
os.environ.setdefault('SYFT_FLWR_ENCRYPTION_ENABLED', 'true')
os.environ.setdefault('SYFT_FLWR_POLL_INTERVAL', '0.5')

# pylint: disable=wrong-import-position
from fedaotsyft import task
import numpy as np
from syft_flwr.bootstrap import bootstrap
from syft_flwr.run_simulation import run

NUM_DATASITES, NUM_ATTACKERS = 5, 2
_STRATEGIES = {'fedavg', 'fedaot', 'fedaot_holdout'}


def main(folder, strategy='fedaot'):
  folder = pathlib.Path(folder).resolve()
  if folder.exists():
    sys.exit(f'{folder} exists; name a new folder.')
  folder.mkdir(parents=True)
  tempfile.tempdir = str(folder)  # Where the messages are.
  x, y = task.load()
  parts = np.array_split(np.arange(1100, len(y)), NUM_DATASITES)
  private, emails = [], []
  for i, part in enumerate(parts):
    private.append(folder / f'private{i}')
    private[-1].mkdir()
    np.savez(
        private[-1] / 'train.npz',
        x=x[part],
        y=y[part],
        attacks=i < NUM_ATTACKERS,
    )
    emails.append(f'datasite{i}@example.com')
  app, result = folder / 'app', folder / 'result.json'
  shutil.copytree(_HERE, app, ignore=shutil.ignore_patterns('shim', '*.md'))
  project = app / 'pyproject.toml'
  project.write_text(
      project.read_text()
      .replace('strategy = "fedaot"', f'strategy = "{strategy}"')
      .replace('"result.json"', json.dumps(str(result)))
  )
  bootstrap(app, aggregator='aggregator@example.com', datasites=emails)
  run(app, private)  # True even if the ServerApp failed.
  if not result.exists():
    sys.exit('The run has no result; see its log.')
  for round_num, accuracy in json.loads(result.read_text()).items():
    print(f'round {round_num}: accuracy {100 * accuracy:.1f} %')


if __name__ == '__main__':
  if len(sys.argv) not in (2, 3) or not {*sys.argv[2:]} <= _STRATEGIES:
    sys.exit(__doc__)
  main(*sys.argv[1:])
