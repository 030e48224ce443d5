"""Tests for what is installed and what `import fedaot_tff` does."""

import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
from unittest import mock

from packaging import requirements
from packaging import utils
import pytest
import setuptools
from setuptools.config import pyprojecttoml

import fedaot_tff
from fedaot_tff import _tff_import
from tests.documents import pages

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _run_python(source: str) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, '-c', textwrap.dedent(source)],
      cwd=_ROOT,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
  )


def _metadata() -> dict:
  """The tables of pyproject.toml, as setuptools sees them."""
  return pyprojecttoml.read_configuration(_ROOT / 'pyproject.toml')


def _extras() -> dict[str, list[requirements.Requirement]]:
  extras = _metadata()['project']['optional-dependencies']
  return {name: _parse(extra) for name, extra in extras.items()}


def _parse(lines) -> list[requirements.Requirement]:
  lines = [line.split('#')[0].strip() for line in lines]
  return [requirements.Requirement(line) for line in lines if line]


def _read(name: str) -> list[requirements.Requirement]:
  return _parse((_ROOT / name).read_text(encoding='utf-8').splitlines())


def _is_for(requirement: requirements.Requirement, python: str) -> bool:
  """Whether a requirement is one under a Python on Linux."""
  environment = {
      'python_version': python,
      'python_full_version': f'{python}.5',
      'sys_platform': 'linux',
      'platform_python_implementation': 'CPython',
      'implementation_name': 'cpython',
  }
  return not requirement.marker or requirement.marker.evaluate(environment)


def _pinned_versions(
    python: str, name: str = 'requirements.txt'
) -> dict[str, str]:
  """The versions that a file of pins installs under a Python on Linux."""
  versions = {}
  for requirement in _read(name):
    if not _is_for(requirement, python):
      continue
    (specifier,) = requirement.specifier
    assert specifier.operator == '=='
    name = utils.canonicalize_name(requirement.name)
    assert name not in versions
    versions[name] = specifier.version
  return versions


def test_import_is_light():
  result = _run_python("""
      import sys
      import fedaot_tff
      heavy = {'tensorflow', 'tensorflow_federated', 'jax', 'numpy'}
      assert not heavy.intersection(sys.modules), heavy & set(sys.modules)
  """)
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    'module', ['fedaot_tff', 'fedaot_tff.aggregators', 'fedaot_tff.learning']
)
def test_missing_tff_is_an_import_error_that_tells_what_to_do(module):
  result = _run_python(f"""
      import sys

      class Blocker:
        def find_spec(self, name, path=None, target=None):
          if name.partition('.')[0] == 'tensorflow_federated':
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

      sys.meta_path.insert(0, Blocker())
      import {module}
  """)
  assert result.returncode == 1
  last_line = result.stderr.splitlines()[-1]
  assert last_line.startswith('ImportError: ')
  assert 'pip install --no-deps tensorflow-federated==0.87.0' in last_line


@pytest.mark.parametrize('module', ['absl', 'tensorflow_federated'])
def test_missing_package_of_programs_is_told_in_a_line(module):
  result = _run_python(f"""
      import sys
      sys.modules[{module!r}] = None
      import binaries.compare
  """)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert module in line and '`make demo` installs' in line


def test_missing_flower_is_an_import_error_that_tells_what_to_do():
  result = _run_python("""
      import sys
      sys.modules['flwr'] = None
      import fedaot.flower
  """)
  assert result.returncode == 1
  last_line = result.stderr.splitlines()[-1]
  assert last_line.startswith('ImportError: fedaot.flower needs flwr')
  assert "pip install 'flwr>=1.21'" in last_line


def test_not_installed_tff_is_an_import_error():
  with mock.patch.object(importlib.util, 'find_spec', return_value=None):
    with pytest.raises(ImportError, match=r"install it with: .*'\.\[tff\]'"):
      _tff_import.check_tff_installed()


def test_python_that_is_too_new_is_an_import_error(monkeypatch):
  monkeypatch.setattr(sys, 'version_info', (3, 13, 0))
  with mock.patch.object(importlib.util, 'find_spec', return_value=None):
    with pytest.raises(ImportError, match=r'Python 3\.9 to 3\.11.* is 3\.13;'):
      _tff_import.check_tff_installed()


@pytest.mark.parametrize('version', ['0.86.0', '0.88.0', '0.87.0.dev1'])
def test_another_tff_version_is_an_import_error(version):
  with mock.patch.object(importlib.metadata, 'version', return_value=version):
    with pytest.raises(
        ImportError,
        match=rf'0\.87\.0, but found {re.escape(version)}; .*pip install',
    ):
      _tff_import.check_tff_installed()


def test_tff_built_from_source_is_accepted():
  error = importlib.metadata.PackageNotFoundError('tensorflow-federated')
  with mock.patch.object(importlib.metadata, 'version', side_effect=error):
    _tff_import.check_tff_installed()


def test_public_names_resolve():
  for name in fedaot_tff.__all__:
    assert getattr(fedaot_tff, name) is not None
  assert set(fedaot_tff.__all__) <= set(dir(fedaot_tff))


def test_public_name_is_imported_when_first_used(monkeypatch):
  monkeypatch.setitem(
      fedaot_tff._MODULE_OF, 'check_tff_installed', 'fedaot_tff._tff_import'
  )
  assert 'check_tff_installed' not in vars(fedaot_tff)
  assert fedaot_tff.check_tff_installed is _tff_import.check_tff_installed
  assert 'check_tff_installed' in vars(fedaot_tff)
  del fedaot_tff.check_tff_installed


def test_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'fedaot_tff'.*'no_such_name'"):
    fedaot_tff.no_such_name


def test_version_is_that_of_the_package():
  assert _metadata()['project']['version'] == fedaot_tff.__version__


def _packages() -> set[str]:
  return set(_metadata()['tool']['setuptools']['packages'])


def test_no_other_names_are_taken_in_an_environment():
  packages = _packages()
  assert {package.partition('.')[0] for package in packages} == {
      'fedaot',
      'fedaot_tff',
  }


def test_every_folder_of_modules_is_packaged():
  packages = _packages()
  for top in ('fedaot', 'fedaot_tff'):
    for module in (_ROOT / top).rglob('*.py'):
      package = '.'.join(module.parent.relative_to(_ROOT).parts)
      assert package in packages, f'{package} has no __init__.py'


def test_numpy_alone_is_required():
  assert _metadata()['project']['dependencies'] == ['numpy>=1.23']


def test_tff_is_named_only_where_it_cannot_run():
  """Where it can, its own pins cannot be met."""
  (tff,) = (r for r in _extras()['tff'] if r.name == 'tensorflow-federated')
  assert not tff.marker.evaluate({'python_version': '3.11'})
  assert tff.marker.evaluate({'python_version': '3.12'})


def test_tff_extra_requires_what_tff_requires():
  """But for jax and jaxlib, whose pins cannot be met."""
  ours = {
      utils.canonicalize_name(requirement.name): requirement
      for requirement in _extras()['tff']
  }
  theirs = importlib.metadata.requires('tensorflow-federated')
  for requirement in _parse(theirs):
    name = utils.canonicalize_name(requirement.name)
    assert name in ours
    if name not in ('jax', 'jaxlib'):
      installed = importlib.metadata.version(name)
      assert requirement.specifier.contains(installed)
      assert ours[name].specifier.contains(installed)


def _check_pins(python, pins, extras, *files):
  wanted = _parse(_metadata()['project']['dependencies'])
  for extra in extras:
    wanted += _extras()[extra]
  for file in files:
    wanted += _read(file)
  for requirement in wanted:
    if not _is_for(requirement, python):
      continue
    name = utils.canonicalize_name(requirement.name)
    assert name in pins, f'{name} is not pinned'
    assert requirement.specifier.contains(
        pins[name]
    ), f'{name} {pins[name]} does not meet {requirement}'


@pytest.mark.parametrize('python', ['3.9', '3.10', '3.11'])
def test_pins_meet_every_requirement(python):
  pins = _pinned_versions(python)
  # Flower has an environment of its own; CUDA takes gigabytes.
  extras = set(_extras()) - {'flower', 'gpu'}
  _check_pins(python, pins, extras, 'requirements.in', 'overrides.txt')
  assert pins['tensorflow-federated'] == _tff_import.TFF_VERSION


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
def test_pins_of_flower_meet_every_requirement(python):
  pins = _pinned_versions(python, 'requirements-flower.txt')
  _check_pins(python, pins, ['flower'], 'requirements-flower.in')
  assert not set(pins) & {r.name for r in _read('excludes-flower.txt')}


@pytest.mark.parametrize('python', ['3.12', '3.13'])
def test_pins_of_pysyft_meet_every_requirement(python):
  pins = _pinned_versions(python, 'requirements-syft.txt')
  _check_pins(python, pins, ['flower'], 'requirements-syft.in')


def test_gpu_extra_is_that_of_the_pinned_tensorflow_without_tensorrt():
  ours = {str(requirement) for requirement in _extras()['gpu']}
  theirs = set()
  for requirement in importlib.metadata.requires('tensorflow'):
    requirement = requirements.Requirement(requirement)
    if requirement.marker and 'and-cuda' in str(requirement.marker):
      theirs.add(f'{requirement.name}{requirement.specifier}')
  assert {name for name in theirs if not name.startswith('tensorrt')} == ours


_ARRAYS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import fedaot

class Client:
  def train(self, model):
    return [w + 1 for w in model]

num_rounds, clients = 3, [Client()] * 5
model, updates = [np.zeros((2, 2)), np.zeros(3)], np.ones((5, 7))
exec(sys.argv[2])
print(fedaot.__file__, *model[0].ravel(), *aggregate)
"""


@pytest.mark.parametrize('is_sdist', [False, True])
def test_arrays_are_served_where_it_is_installed(
    is_sdist, tmp_path, monkeypatch
):
  """From a checkout and from an sdist, both by way of a wheel."""
  # Setuptools' own copy of packaging: that of TFF is older than it needs.
  vendored = pathlib.Path(setuptools.__file__).parent / '_vendor'
  monkeypatch.setenv('PYTHONPATH', str(vendored))
  # A copy: setuptools writes into the folder that it builds.
  source = tmp_path / 'source'
  source.mkdir()
  for name in ('fedaot', 'fedaot_tff'):
    shutil.copytree(_ROOT / name, source / name)
  for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
    shutil.copy(_ROOT / name, source)
  if is_sdist:
    build = 'from setuptools import build_meta as b; b.build_sdist("dist")'
    subprocess.run([sys.executable, '-c', build], cwd=source, check=True)
    (source,) = source.glob('dist/*.tar.gz')
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  here = ['--no-deps', '--no-build-isolation', '--no-index', '--quiet']
  site = tmp_path / 'site'
  subprocess.run([*pip, 'install', *here, '--target', site, source], check=True)
  assert {path.name for path in site.iterdir()} == {
      'fedaot',
      'fedaot_tff',
      f'fedaot-{fedaot_tff.__version__}.dist-info',
  }
  for top in ('fedaot', 'fedaot_tff'):
    assert (site / top / 'py.typed').exists()
    assert _modules(site / top) == _modules(_ROOT / top)
  _, example = pages.blocks('README.md', 'python')
  result = subprocess.run(
      [sys.executable, '-I', '-c', _ARRAYS, site, example],
      check=True,
      capture_output=True,
      text=True,
  )
  path, *numbers = result.stdout.split()
  assert path == str(site / 'fedaot/__init__.py')
  assert [float(x) for x in numbers] == pytest.approx([3.0] * 4 + [1.0] * 7)


def _modules(folder: pathlib.Path) -> set[str]:
  return {str(path.relative_to(folder)) for path in folder.rglob('*.py')}


@pytest.mark.parametrize(
    'name',
    [
        'excludes-flower.txt',
        'overrides.txt',
        'requirements-flower.in',
        'requirements-flower.txt',
        'requirements-syft.in',
        'requirements-syft.txt',
        'requirements.in',
        'requirements.txt',
        'requirements-tools.in',
        'requirements-tools.txt',
    ],
)
def test_requirement_files_name_no_registry(name):
  text = (_ROOT / name).read_text(encoding='utf-8')
  assert '://' not in text
  assert '-index' not in text
