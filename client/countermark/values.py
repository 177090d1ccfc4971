"""Dataclasses for a process that lives for forty milliseconds: the standard library's, made on first use.

    @dataclass(frozen=True)
    class Tile:
        level: int
        number: int

`dataclasses` compiles six functions for each class when its module is imported, a third of a millisecond, and
imports `inspect`, `ast` and `dis` to do so: together a third of the time a cold `bundle verify` took, most of it
for classes that no run of it ever makes. Here a class gets methods that are shared by all, and its `__init__`
is compiled when it has made some instances: a cold check makes few of each class, and one takes longer to compile
than to bind ten times.

For the same reason a `pattern` is a regular expression that is compiled when it is first used: most of those that a
check imports belong to what it does not meet.

Type checkers see the standard library's own decorator. `dataclasses.fields`, `replace` and `asdict` work: what
they ask a class for is made when they ask. The arguments are those the client uses; another one is a TypeError.
Not here: `slots`, `kw_only`, init-only fields. The property: whatever a test can see of a class made
here equals what it sees of the standard library's (tests/client/formats/test_values.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from functools import cached_property as cached
    from re import compile as pattern
else:
    import operator
    import re
    from collections.abc import Callable

    _MISSING = object()
    _FIELDS = "__value_fields__"  # name -> _Field, in order
    _BOUND = 10  # instances until a class's `__init__` is compiled

    class _Field:
        """One field: its default, or what makes it, and whether it counts for the hash."""

        def __init__(self, default: Any, default_factory: Any, hash: bool | None) -> None:
            self.default, self.default_factory, self.hash = default, default_factory, hash
            self.type: Any = None

    def field(*, default: Any = _MISSING, default_factory: Any = _MISSING, hash: bool | None = None) -> Any:
        """A field with more to say than its type."""
        return _Field(default, default_factory, hash)

    def replace(obj: Any, /, **changes: Any) -> Any:
        """The same value with some fields changed; checked by `__post_init__` like any other."""
        names = type(obj).__value_fields__
        return type(obj)(**{**{name: getattr(obj, name) for name in names}, **changes})

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, order: bool = False) -> Any:
        """Make a class of fields."""
        if cls is None:
            return lambda cls: _made(cls, frozen, order)
        return _made(cls, frozen, order)

    def _made(cls: type, frozen: bool, order: bool) -> type:
        fields: dict[str, _Field] = {}
        for base in reversed(cls.__mro__[1:]):
            fields.update(base.__dict__.get(_FIELDS, {}))
        for name, annotation in cls.__annotations__.items():
            if "ClassVar" in str(annotation):
                continue
            given = cls.__dict__.get(name, _MISSING)
            found = given if isinstance(given, _Field) else _Field(given, _MISSING, None)
            found.type = annotation
            fields[name] = found
            if found is given:  # the class attribute is the default, as if it had been written plainly
                if found.default is _MISSING:
                    delattr(cls, name)
                else:
                    setattr(cls, name, found.default)
        setattr(cls, _FIELDS, fields)
        methods = {"__init__": _first_init(cls), "__repr__": _repr, "__eq__": _eq}
        own_hash = cls.__dict__.get("__hash__", _MISSING)
        # A class that defines `__eq__` alone got `__hash__ = None` from Python, which is nobody's wish.
        if own_hash is _MISSING or (own_hash is None and "__eq__" in cls.__dict__):
            cls.__hash__ = _hash if frozen else None
        if frozen:
            methods |= {"__setattr__": _refuse_set(cls), "__delattr__": _refuse_delete(cls)}
        if order:
            methods |= {f"__{name}__": _ordered(getattr(operator, name)) for name in ("lt", "le", "gt", "ge")}
        for name, method in methods.items():
            if name not in cls.__dict__:
                setattr(cls, name, method)
        cls.__match_args__ = tuple(fields)
        cls.__dataclass_fields__ = _Twin(frozen, "__dataclass_fields__")
        cls.__dataclass_params__ = _Twin(frozen, "__dataclass_params__")
        return cls

    def _first_init(cls: type) -> Callable[..., None]:
        """An `__init__` that binds a few times, then makes the real one and puts it into its own place.

        What does not bind is for the real one to refuse, in Python's words.
        """
        left = _BOUND

        def first(self: Any, *args: Any, **values: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0 or not _bind(self, cls.__value_fields__, args, values):
                made = _init(cls)
                cls.__init__ = made
                made(self, *args, **values)
            elif hasattr(cls, "__post_init__"):
                self.__post_init__()

        return first

    def _bind(self: Any, fields: dict[str, _Field], args: tuple[Any, ...], values: dict[str, Any]) -> bool:
        """Set every field; False, and nothing set, where the arguments are not those of the class."""
        given = dict(zip(fields, args, strict=False))
        if len(args) > len(fields) or not values.keys() <= fields.keys() - given.keys():
            return False
        given |= values
        for name, each in fields.items():
            if name not in given:
                if each.default_factory is not _MISSING:
                    given[name] = each.default_factory()
                elif each.default is not _MISSING:
                    given[name] = each.default
                else:
                    return False
        for name in fields:
            object.__setattr__(self, name, given[name])
        return True

    def _init(cls: type) -> Callable[..., None]:
        space: dict[str, Any] = {"_set": object.__setattr__, "_made_by_default": _MISSING}
        parameters, members = [], []
        for name, each in cls.__value_fields__.items():
            value = name
            if each.default_factory is not _MISSING:
                space[f"_factory_{name}"] = each.default_factory
                parameters.append(f"{name}=_made_by_default")
                value = f"_factory_{name}() if {name} is _made_by_default else {name}"
            elif each.default is not _MISSING:
                space[f"_default_{name}"] = each.default
                parameters.append(f"{name}=_default_{name}")
            else:
                parameters.append(name)
            members.append(f"{name!r}: {value}")
        # All members at once take half the time of one after the other, and are read as quickly.
        text = f"def __init__(self, {', '.join(parameters)}):\n"
        text += f" _set(self, '__dict__', {{{', '.join(members)}}})"
        if hasattr(cls, "__post_init__"):
            text += "\n self.__post_init__()"
        exec(text, space)  # noqa: S102  (names of fields, which Python has accepted as names already)
        made: Callable[..., None] = space["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made

    def _values(value: Any) -> tuple[Any, ...]:
        return tuple([getattr(value, name) for name in type(value).__value_fields__])

    def _eq(self: Any, other: Any) -> Any:
        return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented

    def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def compared(self: Any, other: Any) -> Any:
            return (
                compare(_values(self), _values(other))
                if other.__class__ is self.__class__
                else NotImplemented
            )

        return compared

    def _hash(self: Any) -> int:
        fields = type(self).__value_fields__
        return hash(tuple([getattr(self, name) for name, each in fields.items() if each.hash is not False]))

    def _repr(self: Any) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__value_fields__)
        return f"{type(self).__qualname__}({said})"

    def _refuse_set(cls: type) -> Callable[[Any, str, Any], None]:
        def refuse(self: Any, name: str, value: Any) -> None:
            if type(self) is cls or name in cls.__value_fields__:
                raise _frozen(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        return refuse

    def _refuse_delete(cls: type) -> Callable[[Any, str], None]:
        def refuse(self: Any, name: str) -> None:
            if type(self) is cls or name in cls.__value_fields__:
                raise _frozen(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        return refuse

    def _frozen(message: str) -> Exception:
        from dataclasses import FrozenInstanceError  # noqa: PLC0415  (imports inspect; only a bug comes here)

        return FrozenInstanceError(message)

    class _Twin:
        """What `dataclasses` asks a class for, taken from a class it makes with the same fields, when it asks."""

        def __init__(self, frozen: bool, name: str) -> None:
            self.frozen, self.name = frozen, name

        def __get__(self, _instance: Any, cls: type) -> Any:
            import dataclasses  # noqa: PLC0415  (see the module's first lines)

            fields = []
            for name, each in cls.__value_fields__.items():
                options: dict[str, Any] = {"hash": each.hash}
                if each.default is not _MISSING:
                    options["default"] = each.default
                if each.default_factory is not _MISSING:
                    options["default_factory"] = each.default_factory
                fields.append((name, each.type, dataclasses.field(**options)))
            twin = dataclasses.make_dataclass(cls.__name__, fields, frozen=self.frozen)
            return getattr(twin, self.name)

    class cached:  # noqa: N801  (used like `property`)
        """`functools.cached_property`, without the lock that Python 3.11 takes each time it is made."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self._function, self.__doc__ = function, function.__doc__

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._function.__name__] = self._function(instance)
            return value

    class pattern:  # noqa: N801  (used like `re.compile`)
        """`re.compile`, when a method is asked for; the method is then found here without a question."""

        def __init__(self, text: str, flags: int = 0) -> None:
            self._made = text, flags

        def __getattr__(self, name: str) -> Any:
            found = getattr(re.compile(*self._made), name)
            setattr(self, name, found)
            return found


__all__ = ["cached", "dataclass", "field", "pattern", "replace"]
