"""Messages of syft-rpc appear at once, whole.

syft-rpc 0.4 writes a message in place, and syft-event reads it when the file is
created: on one machine, half of it. This writes to another name and renames.
Python imports it at its start if this folder is in PYTHONPATH.
"""

import importlib.abc
import importlib.util
import os
import sys


class _Finder(importlib.abc.MetaPathFinder):

  def find_spec(self, name, path, target=None):
    del path, target
    if name != 'syft_rpc.protocol':
      return None
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(name)
    load = spec.loader.exec_module

    def exec_module(module):
      load(module)
      module.Base.dump = _dump

    spec.loader.exec_module = exec_module
    return spec


def _dump(self, path):
  part = f'{path}.{os.getpid()}.part'
  with open(part, 'w', encoding='utf-8') as file:
    file.write(self.dumps())
  os.replace(part, path)


sys.meta_path.insert(0, _Finder())
