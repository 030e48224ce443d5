"""Sets formulas as MathML, which browsers show without a script."""

import html
import re

from latex2mathml import converter

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)


def on_page_content(content: str, **_) -> str:
  return _FORMULA.sub(_as_mathml, content)


def _as_mathml(match) -> str:
  formula = html.unescape(match[3])
  if match[2] == '(':
    return converter.convert(formula)
  mathml = converter.convert(formula, display='block')
  return f'<div class="formula">{mathml}</div>'
