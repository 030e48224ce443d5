"""Checks of the options of attacks."""

import math

import numpy as np
import pytest

from fedaot_tff.attacks import checks


@pytest.mark.parametrize(
    'check, value, error',
    [
        (checks.check_number, '1', TypeError),
        (checks.check_number, True, TypeError),
        (checks.check_number, None, TypeError),
        (checks.check_number, math.nan, ValueError),
        (checks.check_number, -math.inf, ValueError),
        (checks.check_positive, '1', TypeError),
        (checks.check_positive, 0, ValueError),
        (checks.check_positive, -1.0, ValueError),
        (checks.check_positive, math.inf, ValueError),
        (checks.check_nonnegative, '1', TypeError),
        (checks.check_nonnegative, -0.5, ValueError),
        (checks.check_nonnegative, math.nan, ValueError),
        (checks.check_fraction, '1', TypeError),
        (checks.check_fraction, 0.0, ValueError),
        (checks.check_fraction, 1.5, ValueError),
    ],
)
def test_refuses_a_wrong_number(check, value, error):
  with pytest.raises(error, match=f'^size must .*found {value!r}') as info:
    check('size', value)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'check, value',
    [
        (checks.check_number, -2),
        (checks.check_positive, np.float32(0.5)),
        (checks.check_nonnegative, 0),
        (checks.check_fraction, 1),
    ],
)
def test_returns_a_float(check, value):
  found = check('size', value)
  assert type(found) is float
  assert found == value


@pytest.mark.parametrize(
    'value, error', [(1.0, TypeError), (True, TypeError), (1, ValueError)]
)
def test_refuses_a_wrong_int(value, error):
  with pytest.raises(error, match=f'^count must .*found {value!r}'):
    checks.check_int('count', value, minimum=2)


def test_returns_an_int():
  found = checks.check_int('count', np.int64(2), minimum=2)
  assert type(found) is int
  assert found == 2


@pytest.mark.parametrize('value, error', [(1, TypeError), ('c', ValueError)])
def test_refuses_a_wrong_choice(value, error):
  with pytest.raises(error, match=f'^kind must .*found {value!r}'):
    checks.check_choice('kind', value, ('a', 'b'))


def test_returns_the_choice():
  assert checks.check_choice('kind', 'b', ('a', 'b')) == 'b'
