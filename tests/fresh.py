"""A second copy of a module, as in a process that has just begun."""

from importlib.util import find_spec, module_from_spec
from typing import Any


def fresh(name: str) -> Any:
    """Run the code of a module once more; who has imported it keeps what they have."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
