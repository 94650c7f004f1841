import importlib
import inspect
import pkgutil

import pytest

import ipybatch
from ipybatch import errors

OPTIONAL = (
    "ipybatch.jupyter",
    "ipybatch.forecast.form",
    "ipybatch.simulators.__main__",
    "ipybatch.forecast.models.warm_up",
)


def modules():
    found = pkgutil.walk_packages(ipybatch.__path__, "ipybatch.")
    names = [module.name for module in found if not module.name.startswith(OPTIONAL)]
    return ["ipybatch", *names]


@pytest.mark.parametrize("name", [name for name in modules() if hasattr(importlib.import_module(name), "__all__")])
def test_all_is_sorted_and_true(name):
    """Every name of ``__all__`` is there once, in order (constants, classes, functions), and can be had."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(set(module.__all__), key=lambda member: (not member.isupper(), member))
    assert [member for member in module.__all__ if not hasattr(module, member)] == []


def test_the_contract_is_exported():
    """The names that users write."""
    contract = {"BatchSession", "Breaker", "Limits", "Outcome", "Permanent", "Rate", "Retry", "Transient", "history"}
    assert contract <= set(ipybatch.__all__)


def test_every_error_can_be_caught_by_name():
    """A user catches any error of ours without knowing where it is made."""
    defined = {name for name, member in vars(errors).items() if inspect.isclass(member)}
    assert len(defined) > 10
    assert defined <= set(ipybatch.__all__)


def is_ours(member, module):
    return getattr(member, "__module__", None) == module.__name__


def undocumented(module):
    for name, member in vars(module).items():
        if name.startswith("_") or not is_ours(member, module) or not callable(member):
            continue
        if not inspect.isclass(member) and not inspect.isfunction(member):
            continue
        if not inspect.getdoc(member):
            yield name
        if inspect.isclass(member):
            for inner, method in vars(member).items():
                function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
                if not inner.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(function):
                    yield f"{name}.{inner}"


@pytest.mark.parametrize("name", modules())
def test_every_public_name_is_documented(name):
    """A reader finds a sentence on each module, class, function, method and property."""
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(undocumented(module)) == []


@pytest.mark.parametrize("name", ipybatch.__all__)
def test_a_users_name_says_what_it_is(name):
    """``help(ipybatch.X)`` helps."""
    member = getattr(ipybatch, name)
    assert member.__doc__
    assert not member.__doc__.startswith(f"{name}("), "msgspec and dataclasses make one up"
