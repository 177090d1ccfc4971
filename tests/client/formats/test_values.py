"""values.py's dataclasses are the standard library's to everybody who looks."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import pytest

from countermark import values


def classes(dataclass: Callable[..., Any], field: Callable[..., Any]) -> tuple[Any, ...]:
    """The same five classes, made by either."""

    @dataclass(frozen=True)
    class Point:
        """A doc string."""

        KIND: ClassVar[str] = "point"
        x: int
        y: int = 2

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError(self.x)

        @cached_property
        def total(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True)
    class Named(Point):
        """A subclass with one more."""

        names: list[str] = field(default_factory=list, hash=False)

    @dataclass
    class Open:
        """One that may change."""

        seen: dict[str, int] = field(default_factory=dict)

    @dataclass(frozen=True, order=True)
    class Ordered:
        """Compared field by field."""

        a: int
        b: str = field(default="b")

    @dataclass(frozen=True)
    class Own:  # noqa: PLW1641  (a frozen dataclass gives it a hash)
        """One that says itself what is equal."""

        a: int
        b: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and self.a == other.a

        def __repr__(self) -> str:
            return "own"

    return Point, Named, Open, Ordered, Own


def ours(instances: int) -> tuple[Any, ...]:
    """Ours, after each class has made some instances: its `__init__` is another one by and by."""
    made = classes(values.dataclass, values.field)
    for cls, args in zip(made, ((1,), (1,), (), (1,), (1, 2)), strict=True):
        before = cls.__init__
        for _ in range(instances):
            cls(*args)
        assert (cls.__init__ is before) == (instances < 10)
    return made


THEIRS = classes(dataclasses.dataclass, dataclasses.field)
ACTS: tuple[Callable[..., Any], ...] = (
    lambda Point, *_: Point(1),
    lambda Point, *_: (Point(1) == Point(1, 2), Point(1) != Point(1, 3), Point(1) == 1),
    lambda Point, *_: hash(Point(1)) == hash((1, 2)),
    lambda Point, *_: Point(x=1, y=5).total,
    lambda Point, *_: Point(-1),
    lambda Point, *_: Point(),
    lambda Point, *_: Point(1, 2, 3),
    lambda Point, *_: Point(1, z=3),
    lambda Point, *_: Point(1, x=3),
    lambda Point, *_: [Point(number, y=number) for number in range(20)],
    lambda Point, *_: setattr(Point(1), "x", 2),
    lambda Point, *_: setattr(Point(1), "other", 2),
    lambda Point, *_: delattr(Point(1), "x"),
    lambda Point, *_: (Point.y, Point.KIND, Point.__match_args__, hasattr(Point, "x")),
    lambda Point, *_: dataclasses.replace(Point(1), y=7),
    lambda Point, *_: dataclasses.replace(Point(1), x=-7),
    lambda Point, *_: dataclasses.asdict(Point(1)),
    lambda Point, *_: [(each.name, each.type, each.default) for each in dataclasses.fields(Point)],
    lambda Point, *_: dataclasses.is_dataclass(Point),
    lambda _, Named, *__: (Named(1), Named(1, 2, ["a"]), Named(1) == Named(1), hash(Named(1, 2, ["a"]))),
    lambda _, Named, *__: Named(1).names is Named(1).names,
    lambda Point, Named, *_: (Named(1) == Point(1), isinstance(Named(1), Point)),
    lambda _, Named, *__: setattr(Named(1), "x", 2),
    lambda _, __, Open, *___: (Open(), Open({"a": 1}), Open() == Open(), vars(Open())),
    lambda _, __, Open, *___: hash(Open()),
    lambda _, __, ___, Ordered, *____: (Ordered(1) < Ordered(2), Ordered(1, "a") >= Ordered(1), Ordered.b),
    lambda _, __, ___, Ordered, *____: sorted([Ordered(2), Ordered(1, "c"), Ordered(1)]),
    lambda _, __, ___, Ordered, *____: Ordered(1) < 1,
    lambda *all: (all[-1](1, 2) == all[-1](1, 3), repr(all[-1](1, 2)), hash(all[-1](1, 2)) == hash((1, 2))),
    lambda Point, *_: (copy.copy(Point(1)) == Point(1), copy.deepcopy(Point(1)) == Point(1)),
)


def seen(act: Callable[..., Any], made: tuple[Any, ...]) -> str:
    """What somebody sees: the result in words, or the kind of error and what it says."""
    try:
        return repr(act(*made))
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("compared()", "__lt__()")


@pytest.mark.parametrize("instances", [0, 9, 20])
@pytest.mark.parametrize("act", ACTS)
def test_nobody_can_tell_them_from_the_standard_library(act: Callable[..., Any], instances: int) -> None:
    """Making, comparing, hashing, showing, changing, replacing, asking for fields: equal, errors included."""
    assert seen(act, ours(instances)) == seen(act, THEIRS)


@values.dataclass(frozen=True)
class Kept:
    """One that pickle can find."""

    x: int


def test_values_travel() -> None:
    """Pickle makes the same value anew, and `replace` leaves the old one as it was."""
    one = Kept(1)
    assert pickle.loads(pickle.dumps(one)) == one
    assert values.replace(one, x=2) == Kept(2) and one == Kept(1)


def test_an_argument_nobody_implemented_is_an_error() -> None:
    """`slots=True` must not be taken silently for something it is not."""
    with pytest.raises(TypeError):
        values.dataclass(slots=True)(Kept)  # type: ignore[call-overload]
