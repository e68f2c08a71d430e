"""Equinox: cells of jrnn as its modules, and weights both ways."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop.equinox import modules as modules
    from jrnn.interop.equinox import weights as weights
    from jrnn.interop.equinox.modules import RNN as RNN
else:
    __getattr__, __dir__ = _submodules(globals(), "modules", "weights", RNN="modules")
