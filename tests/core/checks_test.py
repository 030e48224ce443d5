"""Checks of arguments."""

import functools
import math
import re

import numpy as np
import pytest

from fedaot import checks

_POSITIVE = functools.partial(checks.check_number, above=0)
_SHARE = functools.partial(checks.check_number, above=0, maximum=1)
_FRACTION = functools.partial(checks.check_number, minimum=0, below=1)
_SOME = functools.partial(checks.check_int, minimum=2, maximum=4)
_KIND = functools.partial(checks.check_choice, choices=('a', 'b'))


@pytest.mark.parametrize(
    'check, value, expected',
    [
        (checks.check_number, -2, -2.0),
        (_POSITIVE, np.float32(0.5), 0.5),
        (_SHARE, 1, 1.0),
        (_FRACTION, 0, 0.0),
        (_SOME, np.int64(2), 2),
        (_SOME, 4, 4),
        (_KIND, 'b', 'b'),
    ],
)
def test_returns_a_plain_value(check, value, expected):
  found = check('size', value)
  assert type(found) is type(expected)
  assert found == expected


@pytest.mark.parametrize(
    'check, value, error',
    [
        (checks.check_number, '1', TypeError),
        (checks.check_number, True, TypeError),
        (checks.check_number, None, TypeError),
        (checks.check_number, math.nan, ValueError),
        (checks.check_number, -math.inf, ValueError),
        (_POSITIVE, 0, ValueError),
        (_POSITIVE, math.inf, ValueError),
        # Not in float32, and not even a float.
        (checks.check_number, 1e39, ValueError),
        (_POSITIVE, -1e39, ValueError),
        (_POSITIVE, 10**26 * 10**13, ValueError),
        (checks.check_number, -(10**400), ValueError),
        (_SHARE, 0.0, ValueError),
        (_SHARE, 1.5, ValueError),
        (_FRACTION, -0.5, ValueError),
        (_FRACTION, 1.0, ValueError),
        (_FRACTION, math.nan, ValueError),
        (_SOME, 2.0, TypeError),
        (_SOME, True, TypeError),
        (_SOME, 1, ValueError),
        (_SOME, 5, ValueError),
        (functools.partial(checks.check_int, minimum=0), 10**26, ValueError),
        (_KIND, 1, TypeError),
        (_KIND, 'c', ValueError),
    ],
)
def test_refuses_a_wrong_value(check, value, error):
  message = f'^size must .*found {re.escape(repr(value))}'
  with pytest.raises(error, match=message) as info:
    check('size', value)
  assert '\n' not in str(info.value)


def test_check_kind():
  assert checks.check_kind('size', None, int, type(None)) is None
  with pytest.raises(TypeError) as info:
    checks.check_kind('size', 'a\nb', int, type(None))
  assert str(info.value) == 'size must be a int or NoneType; found str.'


@pytest.mark.parametrize(
    'value, error',
    [(-1, ValueError), (1.0, ValueError), (-0.1, ValueError), ('1', TypeError)],
)
def test_num_byzantine_is_a_count_or_a_fraction(value, error):
  assert type(checks.check_num_byzantine(np.int32(3))) is int
  assert checks.check_num_byzantine(0.25) == 0.25
  with pytest.raises(error, match='^num_byzantine must'):
    checks.check_num_byzantine(value)


def test_seeds():
  assert checks.check_seed(5) == 5
  assert 0 <= checks.check_seed(None) < 2**63
  assert checks.check_seed(None) != checks.check_seed(None)
  with pytest.raises(ValueError, match='seed must be >= 0'):
    checks.check_seed(-1)
