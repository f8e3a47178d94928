"""The type checker of the tests: beartype, and named axes that mean one size within a call.

jaxtyping's own decorator does the same, but binds the arguments of every call and checks them twice, which took more
than half of the time of the tests. An int is accepted where a float is asked for, as in Python itself.
"""

import dataclasses
import functools
import inspect
import typing

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray
from jaxtyping import jaxtyped as names_of_axes

CONF = BeartypeConf(is_pep484_tower=True, violation_type=TypeError)


def has_axes(hint: object) -> bool:
    "Whether a type has a shape, itself or in what it contains."
    own = inspect.isclass(hint) and issubclass(hint, AbstractArray)
    return own or any(map(has_axes, typing.get_args(hint)))


def has_name(hint: object) -> bool:
    "Whether a type is only named, in itself or in what it contains: of a class that stands below or is not imported."
    if isinstance(hint, str | typing.ForwardRef):
        return True
    parts = hint if isinstance(hint, list) else typing.get_args(hint)
    return typing.get_origin(hint) is not typing.Literal and any(map(has_name, parts))


def check(function):
    "A function whose arguments and result are checked in every call."
    hints = getattr(function, "__annotations__", {})
    hints |= {name: typing.Any for name, hint in hints.items() if has_name(hint)}
    if inspect.isgeneratorfunction(function):
        hints.pop("return", None)  # what it yields is checked where it is used
    checked = beartype(function, conf=CONF)
    if not any(map(has_axes, hints.values())):
        return checked

    @functools.wraps(function)
    def with_axes(*args, **kwargs):
        with names_of_axes("context"):
            return checked(*args, **kwargs)

    return with_axes


def jaxtyped(typechecker=None):
    "In the place of `jaxtyping.jaxtyped`, which the import hook writes before each function and class."

    def decorate(member):
        if not inspect.isclass(member):
            return check(member)
        made = vars(member).get("__init__")
        if dataclasses.is_dataclass(member) and made and not hasattr(made, "__wrapped__"):  # takes_arrays checks itself
            member.__init__ = check(made)
        return member

    return decorate
