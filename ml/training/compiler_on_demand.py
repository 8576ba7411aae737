"""PyTorch's compiler, loaded when somebody compiles.

The first step of any optimizer imports ``torch._dynamo``, though of all that is in it an ordinary
training needs two calls that do nothing. The import takes 1.3 s of CPU and some 150 MB (torch
2.14), in every trainer, at every start. So :func:`leave_compiler_until_asked` puts a module there
that answers these two calls, and becomes the real one when anything else is wanted of it, as by
``torch.compile``.

Example (ml/alone.py)::

    leave_compiler_until_asked()
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


def leave_compiler_until_asked() -> None:
    """Do so for the rest of this process. Nothing changes where the compiler is loaded already."""
    import torch  # what needs the compiler at once has it after this

    if NAME not in sys.modules:
        stand_in = _StandIn(NAME)
        sys.meta_path.insert(0, _Modules(stand_in))
        sys.modules[NAME] = stand_in
        torch._dynamo = stand_in


class _StandIn(ModuleType):
    """``torch._dynamo`` while nothing is compiled."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package's; its modules come from _Modules
        self._loading = threading.RLock()
        self._left_enabled: list[Callable[..., Any]] = []

    def graph_break(self, *_: object, **__: object) -> None:
        """Where nothing is compiled, no graph can be broken."""

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """``fn`` itself, for optimizers, which keep it as ``__dynamo_disable`` (torch/_compile.py);
        others would never ask again, and get the real one's answer."""
        if options == {"wrapping": False} and fn is not None:
            self._left_enabled.append(fn)
            return fn
        return self.real().disable(fn, recursive, **options)

    def real(self) -> ModuleType:
        """The compiler, in this module's place from now on."""
        with self._loading:
            if sys.modules.get(NAME) is self:
                del sys.modules[NAME]
                importlib.import_module(NAME)
                for fn in self._left_enabled:
                    fn.__dict__.pop("__dynamo_disable", None)
            return sys.modules[NAME]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's questions
            raise AttributeError(name)
        return getattr(self.real(), name)


class _Modules(importlib.abc.MetaPathFinder):
    """Finds what is in the package behind a stand-in, whose loading may have imported it."""

    def __init__(self, stand_in: _StandIn) -> None:
        self._stand_in = stand_in

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if not fullname.startswith(f"{NAME}.") or sys.modules.get(NAME) is not self._stand_in:
            return None
        package = self._stand_in.real()
        if fullname in sys.modules:
            return importlib.machinery.ModuleSpec(fullname, _Imported(sys.modules[fullname]))
        return importlib.machinery.PathFinder.find_spec(fullname, package.__path__)


class _Imported(importlib.abc.Loader):
    """Loads a module that is there."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """See :class:`importlib.abc.Loader`."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """See :class:`importlib.abc.Loader`. The import system has set the other spec."""
        module.__spec__ = self._spec
