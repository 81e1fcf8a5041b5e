"""A second copy of a module, as in a process that has just begun."""

from importlib.util import find_spec, module_from_spec
from typing import Any


def fresh(name: str) -> Any:
    """Run a module's code once more, into a new module. Who has imported it keeps the old one."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
