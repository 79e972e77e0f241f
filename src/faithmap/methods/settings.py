"""The settings of a method: name, type, default, range, unit and help, read from the fields of its dataclass.

The command line, benchmark specifications, the page, ``choose`` and the docs read settings only here. A dataclass
declares a setting once::

    iterations: Annotated[int, Ge(1)] = 15
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.02
    sigma: Annotated[float, Gt(0)] | None = 0.1
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    areas: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.1, 0.2)
    masks: Annotated[Annotated[int, Ge(1)] | None, AlsoNamed("samples")] = None

``Ge``, ``Gt``, ``Le``, ``Lt`` and ``Unit`` are those of ``annotated_types``. Type and range are checked at every call of a
method (:func:`check_settings`), so that ``_check`` of a class checks only what depends on the image or on several settings
together. The help of a setting is its entry below ``Args:`` in the docstring of the class, or of the nearest base that has one
(:func:`complete_docstring` adds the entries of the bases to the docstring).

A setting has a *plain form* in files and on the command line: numbers, texts, lists in place of tuples, ``"none"`` in place of
None, and a table in place of an object, such as ``{kind = "line_search", upper = 100}``. ``kind`` is the name of a dataclass in
the setting's annotation, or of a subclass of one. A table without ``kind`` changes the default object.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, Unit

from faithmap.errors import did_you_mean

REQUIRED = inspect.Parameter.empty
"""The default of a setting that has none."""


class SettingError(ValueError):
    """A setting is unknown or has a wrong value. The message is one line.

    Attributes:
        setting: the name that was given.
    """

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


@dataclass(frozen=True)
class AlsoNamed:
    """A second name of a setting, part of its annotation."""

    name: str


@dataclass(frozen=True)
class OfRun:
    """Marks a setting that a whole run has in common, part of its annotation: it has an option or a field of its own."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    >>> length = Setting("length", Annotated[int, Ge(1), Unit("pixels")] | None, default=3)
    >>> length.expected, length.unit
    ('a whole number of at least 1, or None', 'pixels')
    >>> length.from_plain(0)
    Traceback (most recent call last):
        ...
    faithmap.methods.settings.SettingError: length is 0; give a whole number of at least 1, or None

    Attributes:
        name: of the field or parameter.
        annotation: its type, with range and unit.
        default: its value when none is given; :data:`REQUIRED` if there is none.
        help: its description, one paragraph.
    """

    name: str
    annotation: Any
    default: Any = REQUIRED
    help: str = ""

    @property
    def expected(self) -> str:
        """Which values are accepted, in words."""
        parts = list(_parts(self.annotation))
        if any(map(_is_callable, parts)):  # an object that can be called is one of these
            parts = [part for part in parts if not is_dataclass(part)]
        words = list(dict.fromkeys(map(_words, parts)))
        if "None" in words and len(words) > 1:
            words.remove("None")
            return f"{', '.join(words)}, or None"
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

    @property
    def unit(self) -> str:
        """Unit of the value, or an empty text."""
        return next((item.unit for item in _metadata(self.annotation) if isinstance(item, Unit)), "")

    @property
    def aliases(self) -> list[str]:
        """Other names of the setting."""
        return [item.name for item in _metadata(self.annotation) if isinstance(item, AlsoNamed)]

    @property
    def of_run(self) -> bool:
        """Whether all methods of a run have the same value."""
        return any(isinstance(item, OfRun) for item in _metadata(self.annotation))

    @property
    def kinds(self) -> dict[str, type]:
        """The dataclasses that a table in plain form can stand for, by the value of its ``kind``."""
        return {_snake_case(kind.__name__): kind for kind in _dataclasses(self.annotation)}

    @property
    def nested(self) -> Mapping[str, Setting]:
        """The settings of the default object, if the default is one."""
        kind: Any = type(self.default)
        return settings_of(kind) if _is_object(self.default) else {}

    @property
    def has_plain_form(self) -> bool:
        """Whether a value can be given in a file or on the command line."""
        parts = [part for part in _parts(self.annotation) if part is not type(None)]
        return bool(self.kinds) or not all(map(_is_opaque, parts))

    def plain_text(self, value: Any) -> str:
        """A value as it is written on the command line; the kind of an object alone.

        >>> Setting("size", int | tuple[int, int]).plain_text((14, 20))
        '14, 20'
        """
        if isinstance(value, (tuple, list)):
            return ", ".join(map(self.plain_text, value))
        if _is_object(value):
            return _snake_case(type(value).__name__)
        return str(value).lower() if value is None or isinstance(value, bool) else str(value)

    def accepts(self, kind: type) -> bool:
        """Whether an object of this class, or of a subclass, is a value."""
        return any(isinstance(part, type) and issubclass(part, kind) for part in _parts(self.annotation))

    @property
    def choices(self) -> list[Any]:
        """The values of a fixed list; empty if there is none.

        >>> Setting("score", Literal["probability", "logit"] | None).choices
        ['probability', 'logit']
        """
        return [value for part in _parts(self.annotation) if get_origin(part) is Literal for value in get_args(part)]

    def check(self, value: Any) -> None:
        """Raise SettingError if the value has another type or is out of range."""
        from pydantic import ValidationError  # noqa: PLC0415 - not needed before a method is called

        try:
            self._adapter.validate_python(value, strict=True)
        except ValidationError:
            raise SettingError(f"{self.name} is {value!r}; give {self.expected}", self.name) from None

    def from_plain(self, value: Any) -> Any:
        """The value that a plain form stands for.

        Raises:
            SettingError: for a value that has another type, is out of range, or stands for no object.
        """
        made = None if value == "none" and type(None) in _parts(self.annotation) else self._object(value)
        try:
            self.check(made)
        except SettingError as error:
            kinds = f"; in files, a table of kind {' or '.join(self.kinds)}" if self.kinds else ""
            raise SettingError(f"{error}{kinds}", self.name) from None
        return made

    def from_text(self, text: str) -> Any:
        """The plain form that a text on the command line stands for: a value as in TOML, a list without brackets, or a text.

        >>> Setting("size", int | tuple[int, int]).from_text("14, 20"), Setting("name", str).from_text("014")
        ([14, 20], '014')

        Raises:
            SettingError: for a text that stands for no value of the setting.
        """
        first: SettingError | None = None
        for plain in _plain_forms(text):
            try:
                self.from_plain(plain)
            except SettingError as error:
                first = first or error
            else:
                return plain
        assert first is not None  # noqa: S101 - the text itself is always tried
        raise first

    @cached_property
    def _adapter(self) -> Any:
        from pydantic import TypeAdapter  # noqa: PLC0415 - not needed before a method is called

        return TypeAdapter(_validated(self.annotation))

    def _object(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self._object(item) for item in value)
        if not isinstance(value, Mapping):
            return value
        given = {key: item for key, item in value.items() if key != "kind"}
        if "kind" not in value and _is_object(self.default):
            return self._made(lambda **settings: replace(self.default, **settings), type(self.default), given)
        name, kinds = value.get("kind"), self.kinds
        if not isinstance(name, str) or name not in kinds:
            wanted = f"one of the kinds {', '.join(kinds)}" if kinds else self.expected
            raise SettingError(f"{self.name} is a table of kind {name!r}; give {wanted}", self.name)
        return self._made(kinds[name], kinds[name], given)

    def _made(self, make: Callable[..., Any], kind: type, given: Mapping[str, Any]) -> Any:
        """An object with the settings given; errors carry the name of the setting that the object belongs to."""
        try:
            return make(**plain_settings(kind, given))
        except (TypeError, ValueError) as error:
            raise SettingError(str(error), self.name) from error


@cache
def settings_of(kind: type) -> Mapping[str, Setting]:
    """The settings of a dataclass by name, in the order of its constructor.

    The model of an explainer, and fields that begin with ``_``, are no settings.
    """
    annotations, helps = _annotations(kind), described(kind)
    found = {}
    for field in fields(kind):
        if not field.init or field.name.startswith("_") or field.name == "model":
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        given = REQUIRED if default is MISSING else default
        found[field.name] = Setting(field.name, annotations[field.name], given, _without_markup(helps.get(field.name, "")))
    return types.MappingProxyType(found)


@cache
def has_any_resolution(kind: type) -> bool:
    """Whether the map of an explainer can have any resolution; that of excitation backprop has one of the model's layers."""
    setting = settings_of(kind).get("resolution")
    return setting is not None and setting.default is not None


@cache
def arguments_of(function: Callable[..., Any]) -> Mapping[str, Setting]:
    """The parameters of a function as settings, by name.

    >>> def blurred(image: list[float], sigma: Annotated[float, Gt(0)] = 1.0) -> None: ...
    >>> arguments_of(blurred)["sigma"].expected
    'a number above 0'
    """
    helps = _entries(function.__doc__)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    found = {p.name: Setting(p.name, p.annotation, p.default, _without_markup(helps.get(p.name, ""))) for p in parameters}
    return types.MappingProxyType(found)


def find_setting(kind: type, name: str, owner: str = "") -> list[Setting]:
    """The setting of that name as a path: one entry, or two for a setting of the default object of a setting.

    ``samples`` of a class activation map is ``samples`` of its gradient estimator, also written ``gradient.samples``.

    Args:
        kind: a dataclass.
        name: as the user gave it.
        owner: the name of the dataclass in the error.

    Raises:
        SettingError: if there is no such setting, with the nearest names.
    """
    own = settings_of(kind)
    paths = {setting.name: [setting] for setting in own.values()}
    for setting in own.values():
        paths |= {f"{setting.name}.{inner.name}": [setting, inner] for inner in setting.nested.values()}
    for path in list(paths.values()):
        short = [path[-1].name, *path[-1].aliases]
        for alias in short:
            paths.setdefault(alias, path)
    if name in paths:
        return paths[name]
    known = ", ".join(sorted(setting.name for setting in own.values() if not setting.of_run))
    hint = did_you_mean(name, paths, f"its settings are {known}")
    raise SettingError(f"{owner or _snake_case(kind.__name__)} has no setting {name!r}; {hint}", name)


def plain_settings(kind: type, given: Mapping[str, Any], owner: str = "") -> dict[str, Any]:
    """The keywords of a dataclass's constructor that settings in plain form stand for.

    Args:
        kind: the dataclass.
        given: plain values by the names of :func:`find_setting`.
        owner: the name of the dataclass in errors.

    Raises:
        SettingError: for a setting that does not exist, has a wrong value or is given twice.
    """
    made: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        first, *rest = find_setting(kind, name, owner)
        if first.name in made or (rest and rest[0].name in inner.get(first.name, {})):
            raise SettingError(f"{owner} has {name!r} twice; give it once", name)
        if rest:
            inner.setdefault(first.name, {})[rest[0].name] = rest[0].from_plain(value)
        else:
            made[first.name] = first.from_plain(value)
    for name, settings in inner.items():
        if name in made:
            raise SettingError(f"{owner} has {name!r} and {', '.join(settings)} of it; give one of the two", name)
        made[name] = replace(settings_of(kind)[name].default, **settings)
    return made


def check_settings(made: Any) -> None:
    """Raise SettingError if a setting of a dataclass's instance has another type than annotated, or is out of range."""
    kind: Any = type(made)
    for setting in settings_of(kind).values():
        setting.check(getattr(made, setting.name))


def described(kind: type) -> dict[str, str]:
    """The entries below ``Args:`` of a class and its bases, by name; the nearest class that has one decides."""
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        entries |= _entries(base.__dict__.get("__doc__"))
    return entries


def complete_docstring(kind: type) -> None:
    """Describe all fields of a class below ``Args:`` in its docstring: its own, and those of the bases with their entries."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    entries = {name: help_ for name, help_ in described(kind).items() if name in _annotations(kind)}
    if not text or not entries:
        return
    wrap = textwrap.TextWrapper(110, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False)
    lines = [wrap.fill(f"{name}: {help_}") for name, help_ in entries.items()]
    section = "Args:\n" + "\n".join(lines) + "\n"
    kind.__doc__ = _ARGS.sub(lambda _: section, text) if _ARGS.search(text) else f"{text}\n\n{section}"


_ARGS = re.compile(r"^Args:\n(?: +\S.*(?:\n|\Z))+", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", re.MULTILINE)


def _entries(docstring: str | None) -> dict[str, str]:
    section = _ARGS.search(inspect.cleandoc(docstring or ""))
    return {} if section is None else {name: " ".join(text.split()) for name, text in _ENTRY.findall(section[0])}


def _without_markup(text: str) -> str:
    return re.sub(r"(:\w+:)?`+~?([^`]+)`+", r"\2", text)


def _annotations(kind: type) -> dict[str, Any]:
    """Evaluated annotations of all fields; Any for those of a class that names something local."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        try:
            found |= inspect.get_annotations(base, globals=vars(sys.modules[base.__module__]), eval_str=True)
        except (NameError, KeyError):
            found |= dict.fromkeys(inspect.get_annotations(base), Any)
    return found


def _parts(annotation: Any) -> Iterator[Any]:
    """The members of a union, else the annotation itself; metadata of a whole union is skipped."""
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in _UNIONS:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in _UNIONS:
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


_UNIONS = (typing.Union, types.UnionType)


def _metadata(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _metadata(part)


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "None"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_BOUNDS = {Ge: ("of at least", "ge"), Gt: ("above", "gt"), Le: ("of at most", "le"), Lt: ("below", "lt")}


def _words(annotation: Any, names: Mapping[Any, str] = _NAMES) -> str:
    """A part of an annotation in words; in the plural for names in the plural."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = ((_BOUNDS[type(item)], item) for item in annotation.__metadata__ if type(item) in _BOUNDS)
        limits = " and ".join(f"{words} {getattr(item, attribute)}" for (words, attribute), item in bounds)
        return f"{_words(args[0], names)} {limits}".rstrip()
    if origin in _UNIONS:
        return " or ".join(_words(part, names) for part in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else repr(args[0])
    if origin is tuple and args[-1] is not Ellipsis:
        return f"{('no', 'one', 'two', 'three', 'four')[len(args)]} {_words(args[0], _PLURALS)}"
    if origin in (tuple, Sequence):
        return f"a list of {_words(args[0], _PLURALS)}"
    if annotation in names:
        return names[annotation]
    if _is_callable(annotation):
        return "a callable"
    name = getattr(getattr(annotation, "array_type", annotation), "__name__", str(annotation))
    return f"{name}s" if names is _PLURALS else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _dataclasses(annotation: Any) -> Iterator[type]:
    """The concrete dataclasses in an annotation, with their subclasses."""
    for part in _parts(annotation):
        kinds = [part] if isinstance(part, type) else []
        while kinds:
            kind = kinds.pop(0)
            kinds += kind.__subclasses__() if is_dataclass(kind) or inspect.isabstract(kind) else []
            if is_dataclass(kind) and not inspect.isabstract(kind) and "model" not in {field.name for field in fields(kind)}:
                yield kind


def _validated(annotation: Any) -> Any:
    """The annotation for pydantic, which checks plain types; of any other class all instances are accepted."""
    from pydantic import FiniteFloat  # noqa: PLC0415 - not needed before a method is called

    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is float:
        return FiniteFloat
    if annotation in _NAMES or annotation is Any or origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(_validated(args[0]), *annotation.__metadata__)]
    if origin in _UNIONS:
        return typing.Union[tuple(map(_validated, args))]  # noqa: UP007 - the members are known at run time only
    if origin is tuple:
        return types.GenericAlias(tuple, tuple(arg if arg is Ellipsis else _validated(arg) for arg in args))
    if origin is Sequence:
        return types.GenericAlias(Sequence, (_validated(args[0]),))
    return Callable if _is_callable(annotation) else _instances(getattr(annotation, "array_type", annotation))


def _instances(kind: Any) -> Any:
    from pydantic import PlainValidator  # noqa: PLC0415 - not needed before a method is called

    def instance(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"no {kind.__name__}")  # noqa: TRY004 - what pydantic expects of a validator
        return value

    return Annotated[Any, PlainValidator(instance)] if isinstance(kind, type) else Any


def _is_opaque(annotation: Any) -> bool:
    """Whether values of a type exist in Python only: tensors, modules and callables."""
    kind = getattr(annotation, "array_type", annotation)
    return _is_callable(annotation) or (isinstance(kind, type) and kind not in _NAMES and kind.__name__ in ("Tensor", "Module"))


def _is_object(value: Any) -> bool:
    """Whether the value is an instance of a dataclass."""
    return is_dataclass(value) and not isinstance(value, type)


def _is_callable(annotation: Any) -> bool:
    return get_origin(annotation) is Callable or annotation is Callable


def _plain_forms(text: str) -> list[Any]:
    """What a text can mean, the likeliest first."""
    sides = re.sub(r"^(\d+)x(\d+)$", r"[\1, \2]", text)
    found = [_toml_value(sides), text, _toml_value(f"[{text}]")]
    return [value for value in found if value is not None]


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
