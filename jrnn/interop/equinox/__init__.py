"""Equinox: cells of jrnn as its modules, and its weights as those of cells of jrnn."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop.equinox import modules as modules
    from jrnn.interop.equinox import weights as weights
    from jrnn.interop.equinox.modules import RNN as RNN
    from jrnn.interop.equinox.weights import from_equinox as from_equinox
    from jrnn.interop.equinox.weights import to_equinox as to_equinox
else:
    __getattr__, __dir__ = _submodules(
        globals(),
        "modules",
        "weights",
        RNN="modules",
        from_equinox="weights",
        to_equinox="weights",
    )
