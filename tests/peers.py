"""pyhf with the backends that every version has: derivatives by differences, and the fastest backend for its fits."""

import importlib.util

import pyhf
import torch
from torch import Tensor


def fitting_backend() -> str:
    "The backend of pyhf that fits fastest here: with gradients where there is one (pytorch went with pyhf 0.8)."
    wanted = {"pytorch": "pyhf.tensor.pytorch_backend", "jax": "jax"}
    return next((name for name, module in wanted.items() if importlib.util.find_spec(module)), "numpy")


def differences(function, point: Tensor, step: float) -> Tensor:
    "Slopes of a function of lists in each element: error of order step^4."
    columns = []
    for k in range(len(point)):
        shift = torch.zeros_like(point)
        shift[k] = step * max(1.0, abs(float(point[k])))
        near, far = (function(point + n * shift) - function(point - n * shift) for n in (1, 2))
        columns.append((8 * near - far) / (12 * shift[k]))
    return torch.stack(columns)


def log_prob(model, data):
    "pyhf's log-likelihood of a torch vector by its numpy backend."
    pyhf.set_backend("numpy")
    return lambda point: torch.tensor(float(model.logpdf(point.tolist(), list(data))[0]), dtype=torch.float64)


def gradient(model, point: Tensor, data, step: float = 1e-4) -> Tensor:
    "Gradient of pyhf's log-likelihood."
    return differences(log_prob(model, data), point, step)


def hessian(model, point: Tensor, data, step: float = 1e-3) -> Tensor:
    "Hessian of pyhf's log-likelihood."
    value = log_prob(model, data)
    return differences(lambda x: differences(value, x, step), point, step)
