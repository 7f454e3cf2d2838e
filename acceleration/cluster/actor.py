"""What runs in an actor: it loads this pack as the host had loaded it, and hands calls on.

Ray sends this class as it stands, so it imports nothing of the pack before the pack is there.
"""

from __future__ import annotations

from typing import Any


class Rank:
    """One process that holds a network.

    Parameters
    ----------
    start
        ``environment`` (variables), ``pack`` (name and folder of this package), ``paths`` (folders
        for ``sys.path``), ``worker`` (module within the pack and class), and ``given``, the
        worker's arguments beside ``address``, at which others reach this computer.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        import importlib
        import importlib.util
        import os
        import sys

        import ray

        os.environ.pop("PYTORCH_ALLOC_CONF", None)
        os.environ.update(start["environment"])
        sys.dont_write_bytecode = True
        sys.path[:0] = [path for path in start["paths"] if path not in sys.path]
        name, folder = start["pack"]
        spec = importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        where, what = start["worker"]
        worker = getattr(importlib.import_module(f"{name}.{where}"), what)
        self._worker = worker(**start["given"], address=ray.util.get_node_ip_address())

    def do(self, name: str, *args: Any) -> Any:
        """Call a method of the worker."""
        return getattr(self._worker, name)(*args)

    def say(self, name: str, *args: Any) -> Any:
        """The same beside whatever is being done."""
        return getattr(self._worker, name)(*args)
