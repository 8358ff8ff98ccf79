"""What users add to worldaction: losses, recurrent cores, policy heads, policy updates, environments, baselines.

All are named, found and given options in the same way:

    NAME                            a file of ours, or an entry point of an installed package
    module:Class                    found as Python finds it and, last, in the working directory
    NAME=SCALE,OPTION=VALUE,...     with options: the fields of its class's ``Options``, a frozen dataclass

A new one is one file: a class with a ``name``, the ``Options`` it takes, and the methods of its family's base class.
Reading a command line imports neither torch nor any of them.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import math
import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any

from worldaction.config import check_ranges
from worldaction.errors import UserError, unknown

TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_CLASS = re.compile(r'^class (\w+)\b[^\n]*:\n(?:(?!^class ).*\n)*?    name(?:: [^=\n]+)? = "([\w./-]+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Spec:
    """A plug-in as the user wrote it: where it is, and the options that it was given."""

    target: str
    """A name, or module:Class."""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Back to the command line's form, which `Family.parse` reads."""
        scale = [value for key, value in self.options if key == "scale"]
        rest = [f"{key}={value}" for key, value in self.options if key != "scale"]
        parts = ([f"{self.target}={scale[0]}"] if scale else [self.target]) + rest
        return ",".join(parts)


@dataclass(frozen=True)
class Family:
    """A kind of plug-in, and where its members are found."""

    kind: str
    """In messages, such as "loss"."""
    option: str
    """Of the command line, such as "--losses"."""
    package: str
    """Our own members are this package's files; also the name of the entry points' group."""
    base: str
    """module:Class of which all are subclasses."""
    example: str
    """A text that is right, for messages."""
    files: str = "*.py"
    """Which of the package's files can define members."""

    def parse(self, text: str) -> Spec:
        """Read ``NAME[=SCALE][,OPTION=VALUE...]``."""
        head, *rest = text.split(",")
        target, equals, scale = head.partition("=")
        if not target:
            raise UserError(f"{self.kind} {text!r} has no name; write for instance {self.example}")
        options: dict[str, str] = {}
        for part in [f"scale={scale}", *rest] if equals else rest:
            key, _, value = part.partition("=")
            if not (key and value):
                raise UserError(
                    f"{self.kind} {text!r}: {part!r} is not OPTION=VALUE; write for instance {self.example}"
                )
            if key in options:
                raise UserError(f"{self.kind} {text!r} gives {key!r} twice; give it once")
            options[key] = value
        return Spec(target, tuple(options.items()))

    def own(self) -> dict[str, str]:
        """Our own members, by name: the ``module:Class`` each stands for. Their files are read and not imported."""
        found = {}
        for folder in import_module(self.package).__path__:
            for path in sorted(Path(folder).glob(self.files)):
                module = ".".join([self.package, *path.relative_to(folder).with_suffix("").parts])
                for cls, name in _CLASS.findall(path.read_text(encoding="utf-8")):
                    found[name] = f"{module}:{cls}"
        return found

    def available(self) -> dict[str, str]:
        """Every member that has a name, and the ``module:Class`` it stands for. Nothing is imported."""
        return _registered(self.package) | self.own()

    def check(self, spec: Spec) -> None:
        """Refuse a name that does not exist, and options that our own have not, without importing anything.

        Raises:
            UserError: says which there are.
        """
        if ":" in spec.target:
            return
        if spec.target not in (known := self.available()):
            lying_here = Path(f"{spec.target}.py")
            if spec.target.isidentifier() and os.path.isfile(lying_here):
                names = [cls for cls, _ in _CLASS.findall(lying_here.read_text(encoding="utf-8"))]
                mine = f"{spec.target}:{names[0] if names else 'Class'}"
                raise UserError(f"{self.kind} {spec.target!r} is a file here and no name; write {mine}")
            raise unknown(self.kind, spec.target, known)
        module, _, cls = known[spec.target].partition(":")
        for folder in import_module(self.package).__path__ if module.startswith(f"{self.package}.") else ():
            path = Path(folder, *module.removeprefix(f"{self.package}.").split(".")).with_suffix(".py")
            fields = _options_in(path.read_text(encoding="utf-8"), cls) if os.path.isfile(path) else None
            for key, _ in spec.options:
                if fields is not None and key not in fields:
                    raise unknown(f"option of {self.kind} {spec.target}:", key, fields)

    def find(self, target: str) -> Any:
        """The class behind a name or a ``module:Class``.

        Raises:
            UserError: there is none, or it is of another kind.
        """
        self.check(Spec(target))
        path = target if ":" in target else self.available()[target]
        module, _, name = path.partition(":")
        if not (module and name):
            raise UserError(f"{self.kind} {target!r} must be a name or module:Class; write for instance my_file:Mine")
        if ":" in target:
            search_working_directory()
        loaded, base = _imported(module, f"{self.kind} {target!r}"), self.base_class()
        cls = getattr(loaded, name, None)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            found = [
                one.__name__
                for one in vars(loaded).values()
                if isinstance(one, type) and issubclass(one, base) and one.__module__ == loaded.__name__
            ]
            raise UserError(f"{self.kind} {target!r}: {name!r} is no {self.base} there; found {found}")
        return cls

    def base_class(self) -> type:
        """What all members are subclasses of."""
        module, _, name = self.base.partition(":")
        found: type = getattr(import_module(module), name)
        return found

    def options(self, cls: Any, given: Iterable[tuple[str, str]], defaults: Mapping[str, Any] | None = None) -> Any:
        """The options of a member.

        Args:
            cls: the member.
            given: what the user wrote; see `Spec.options`.
            defaults: values for fields of these names, in place of the class's own.

        Raises:
            UserError: no such option, or a value that it cannot have.
        """
        known = {field.name for field in dataclasses.fields(cls.Options)}
        values = {name: value for name, value in (defaults or {}).items() if name in known}
        values |= {key: self._convert(cls, key, value) for key, value in given}
        missing = [f.name for f in dataclasses.fields(cls.Options) if f.name not in values and _required(f)]
        if missing:
            raise UserError(
                f"{self.kind} {cls.name} needs the option {missing[0]}; write {cls.name},{missing[0]}=VALUE"
            )
        options = cls.Options(**values)
        check_ranges(options, f"{self.kind} {cls.name}: ")
        return options

    def _convert(self, cls: Any, key: str, value: str) -> Any:
        fields = {field.name: field for field in dataclasses.fields(cls.Options)}
        if key not in fields:
            raise unknown(f"option of {self.kind} {cls.name}:", key, fields)
        name = f"{self.kind} {cls.name}: {key}"
        found = from_text(typing.get_type_hints(cls.Options)[key], value, name)
        if isinstance(found, float) and not math.isfinite(found):
            raise UserError(f"{name}={value!r} is not finite; give a number")
        return found


def from_text(kind: Any, text: str, name: str) -> Any:
    """A value as text, in the type of its option.

    Args:
        kind: bool, int, float, str, a Literal, a tuple of one of these, or one of them or None.
        text: what the user wrote; members of a tuple are joined by +.
        name: of the option, for messages.

    Raises:
        UserError: it is none of that type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if text not in inner:
            raise unknown(name, text, inner)
        return text
    if origin is tuple:
        return tuple(from_text(inner[0], part, name) for part in text.split("+") if part)
    if NoneType in inner:
        return None if text.lower() == "none" else from_text(next(k for k in inner if k is not NoneType), text, name)
    if kind is bool:
        if text.lower() not in TRUTH:
            raise UserError(f"{name}={text!r} is neither true nor false; give a truth value")
        return TRUTH[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{name}={text!r} is no {kind.__name__}; give a number") from None


def _options_in(text: str, cls: str) -> list[str] | None:
    """The fields of a class's ``Options`` as its file has them; None if that does not tell all of them."""
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    named = [
        node.value.id
        for node in classes[cls].body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["Options"]
    ]
    options = classes.get(named[0]) if named else None
    if options is None or options.bases:
        return None
    fields = (node.target for node in options.body if isinstance(node, ast.AnnAssign))
    return [field.id for field in fields if isinstance(field, ast.Name)]


def _registered(group: str) -> dict[str, str]:
    """Entry points of installed packages."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# Importing ------------------------------------------------------------------------------------------------------------


def _imported(module: str, what: str) -> ModuleType:
    """A module; one that is not there is a user's mistake, and one that fails by itself shows where."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        remedy = "run from the folder that holds it, or install it"
        raise UserError(f"{what}: there is no module {module!r}; {remedy}") from None


def bring(module: str, what: str) -> ModuleType:
    """A module of the user's.

    Args:
        module: its name.
        what: what it is for, as the user knows it, such as "--gym.expert my_env:Expert".

    Raises:
        UserError: it is not found, or fails while it is imported.
    """
    search_working_directory()
    try:
        return import_module(module)
    except ImportError as error:
        remedy = "run from the folder that holds it, or install it"
        raise UserError(f"{what}: module {module!r} cannot be imported ({error}); {remedy}") from error


def load(target: str, option: str) -> Any:
    """What `module:name` stands for.

    Args:
        target: the user's text.
        option: the option that it was given with.

    Raises:
        UserError: there is no such module, or no such name in it.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise UserError(f"{option} {target!r} must be module:name")
    found = getattr(bring(module, f"{option} {target}"), name, None)
    if found is None:
        raise UserError(f"{option} {target}: there is no {name!r} in {module}; check the name")
    return found


def search_working_directory() -> None:
    """Let Python find modules in the working directory: last, so that none there hides an installed one."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
