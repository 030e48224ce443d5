"""Shows a rule in the API reference as users call it, not as it is defined."""

import griffe


class RuleSignatures(griffe.Extension):
  """`@rule` and `@wrapper` take the cohort away; a wrapper takes a rule."""

  def on_function(self, *, func, **_):
    decorators = {d.callable_path.split('.')[-1] for d in func.decorators}
    if 'wrapper' in decorators:
      func.parameters[0].name = 'rule'
    elif 'rule' in decorators:
      del func.parameters[0]
    elif func.parent.is_module and func.parent.path.startswith('fedaot.rules.'):
      func.public = func.parent.name == 'rule'
