"""Statistical inference in high-energy physics: `import hepinf as hi` gives the names that an analysis needs.

They are loaded when they are first used, so the import itself costs nothing. Everything else is in the wings,
`hepinf.binned`, `hepinf.infer` and so on, one folder of notebooks each.
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import binned as binned
    from . import core as core
    from . import diagnostics as diagnostics
    from . import flows as flows
    from . import infer as infer
    from . import plots as plots
    from . import posterior as posterior
    from . import problems as problems
    from . import runs as runs
    from . import stats as stats
    from . import summaries as summaries
    from . import surrogates as surrogates
    from . import train as train
    from . import unbinned as unbinned
    from . import workspaces as workspaces
    from .binned.model import BinnedModel as BinnedModel
    from .binned.processes import Parameter as Parameter
    from .binned.processes import Process as Process
    from .binned.processes import Variation as Variation
    from .binned.simulated import Simulated as Simulated
    from .core.errors import HepinfError as HepinfError
    from .core.likelihood import as_likelihood as as_likelihood
    from .core.results import Estimate as Estimate
    from .flows.flow import Flow as Flow
    from .flows.flow import arqs as arqs
    from .flows.flow import coupling_flow as coupling_flow
    from .flows.flow import maf as maf
    from .infer.components import components as components
    from .infer.contours import contour as contour
    from .infer.coverage import coverage as coverage
    from .infer.exclusion import exclusion as exclusion
    from .infer.goodness import goodness_of_fit as goodness_of_fit
    from .infer.grid import hypotest_grid as hypotest_grid
    from .infer.grid import upper_limit_grid as upper_limit_grid
    from .infer.hmc import hmc as hmc
    from .infer.hypotest import discovery as discovery
    from .infer.hypotest import hypotest as hypotest
    from .infer.impacts import impacts as impacts
    from .infer.intervals import Interval as Interval
    from .infer.intervals import interval as interval
    from .infer.intervals import profile as profile
    from .infer.mle import fit as fit
    from .infer.pruning import prune_parameters as prune_parameters
    from .infer.result import FitResult as FitResult
    from .infer.upper_limit import Limit as Limit
    from .infer.upper_limit import upper_limit as upper_limit
    from .infer.yield_table import yield_table as yield_table
    from .posterior.amortised import AmortisedPosterior as AmortisedPosterior
    from .posterior.joint import Joint as Joint
    from .stats.chains import Chains as Chains
    from .stats.priors import Gamma as Gamma
    from .stats.priors import LogNormal as LogNormal
    from .stats.priors import Normal as Normal
    from .stats.priors import Poisson as Poisson
    from .stats.priors import TruncatedNormal as TruncatedNormal
    from .stats.priors import Uniform as Uniform
    from .summaries.fisher import expected_uncertainty as expected_uncertainty
    from .summaries.fisher import fisher_information as fisher_information
    from .summaries.observable import Observable as Observable
    from .summaries.simulation import Simulation as Simulation
    from .surrogates.nflikelihood import NFLikelihood as NFLikelihood
    from .train.config import TrainConfig as TrainConfig
    from .unbinned.conditional import ConditionalFlow as ConditionalFlow
    from .unbinned.coordinates import Coordinates as Coordinates
    from .unbinned.likelihood import UnbinnedLikelihood as UnbinnedLikelihood
    from .unbinned.mixture import Mixture as Mixture
    from .unbinned.scan import scan as scan
    from .workspaces.measurement import read_workspace as read_workspace
    from .workspaces.signals import SignalGrid as SignalGrid

_HOMES = {
    "binned.model": ("BinnedModel",),
    "binned.processes": ("Parameter", "Process", "Variation"),
    "binned.simulated": ("Simulated",),
    "core.errors": ("HepinfError",),
    "core.likelihood": ("as_likelihood",),
    "core.results": ("Estimate",),
    "flows.flow": ("Flow", "arqs", "coupling_flow", "maf"),
    "infer.components": ("components",),
    "infer.contours": ("contour",),
    "infer.coverage": ("coverage",),
    "infer.exclusion": ("exclusion",),
    "infer.goodness": ("goodness_of_fit",),
    "infer.grid": ("hypotest_grid", "upper_limit_grid"),
    "infer.hmc": ("hmc",),
    "infer.hypotest": ("discovery", "hypotest"),
    "infer.impacts": ("impacts",),
    "infer.intervals": ("Interval", "interval", "profile"),
    "infer.mle": ("fit",),
    "infer.pruning": ("prune_parameters",),
    "infer.result": ("FitResult",),
    "infer.upper_limit": ("Limit", "upper_limit"),
    "infer.yield_table": ("yield_table",),
    "posterior.amortised": ("AmortisedPosterior",),
    "posterior.joint": ("Joint",),
    "stats.chains": ("Chains",),
    "stats.priors": ("Gamma", "LogNormal", "Normal", "Poisson", "TruncatedNormal", "Uniform"),
    "summaries.fisher": ("expected_uncertainty", "fisher_information"),
    "summaries.observable": ("Observable",),
    "summaries.simulation": ("Simulation",),
    "surrogates.nflikelihood": ("NFLikelihood",),
    "train.config": ("TrainConfig",),
    "unbinned.conditional": ("ConditionalFlow",),
    "unbinned.coordinates": ("Coordinates",),
    "unbinned.likelihood": ("UnbinnedLikelihood",),
    "unbinned.mixture": ("Mixture",),
    "unbinned.scan": ("scan",),
    "workspaces.measurement": ("read_workspace",),
    "workspaces.signals": ("SignalGrid",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AmortisedPosterior", "BinnedModel", "Chains", "ConditionalFlow", "Coordinates", "Estimate", "FitResult", "Flow",
    "Gamma", "HepinfError", "Interval", "Joint", "Limit", "LogNormal", "Mixture", "NFLikelihood", "Normal",
    "Observable", "Parameter", "Poisson", "Process", "SignalGrid", "Simulated", "Simulation", "TrainConfig",
    "TruncatedNormal", "UnbinnedLikelihood", "Uniform", "Variation", "arqs", "as_likelihood", "components", "contour",
    "coupling_flow", "coverage", "discovery", "exclusion", "expected_uncertainty", "fisher_information", "fit",
    "goodness_of_fit", "hmc", "hypotest", "hypotest_grid", "impacts", "interval", "maf", "profile",
    "prune_parameters", "read_workspace", "scan", "upper_limit", "upper_limit_grid", "yield_table",
    "binned", "core", "diagnostics", "flows", "infer", "plots", "posterior", "problems", "runs", "stats", "summaries",
    "surrogates", "train", "unbinned", "workspaces",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    "A name of the face, or a wing, loaded when it is first asked for."
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in __all__:
        value = import_module(f"{__name__}.{name}")
    else:
        from .core.checks import unknown_name

        raise AttributeError(unknown_name("name in hepinf", name, __all__))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
