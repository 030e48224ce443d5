"""Where the tasks look for data files."""

import os
from typing import Optional

ENVIRONMENT_VARIABLE = 'FEDAOT_DATA_DIR'


def resolve(data_dir: Optional[str]) -> Optional[str]:
  """Returns the folder with the data files, if one is named.

  Args:
    data_dir: A folder, or `None` for the one that the environment variable
      `FEDAOT_DATA_DIR` names.

  Returns:
    The folder, with a leading `~` expanded; `None` if neither names one, which
    stands for the default folder of whatever reads the data.
  """
  if data_dir is None:
    # An empty variable is the same as none.
    data_dir = os.environ.get(ENVIRONMENT_VARIABLE) or None
  return None if data_dir is None else os.path.expanduser(data_dir)
