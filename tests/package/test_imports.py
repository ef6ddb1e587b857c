"""Finding imports without running the code."""

import pytest

from outrider.package.imports import imports


def modules(source: str) -> list[str]:
    return [found.module for found in imports({"x.py": source.encode()})]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b.c", ["a", "b.c"]),
        ("from a.b import c", ["a.b"]),
        ("from . import a\nfrom .b import c", []),
        ("def f():\n    async def g():\n        import a", ["a"]),
        ("class C:\n    import a", ["a"]),
        ("import importlib\nimportlib.import_module('a.b')", ["importlib", "a.b"]),
        ("__import__('a')", ["a"]),
        ("importlib.import_module('.a', 'b')", []),
        ("importlib.import_module(name)", []),
        ("try:\n    import a\nexcept ImportError:\n    import b", ["b"]),
        ("try:\n    import a\nexcept (ValueError, ModuleNotFoundError):\n    pass", []),
        ("try:\n    import a\nexcept:\n    pass", []),
        (
            "try:\n    import a\nexcept ValueError:\n    pass\nelse:\n    import b\nfinally:\n    import c",
            ["a", "b", "c"],
        ),
        ("try:\n    import a\nexcept ImportError:\n    pass\nelse:\n    import b\nfinally:\n    import c", ["b", "c"]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", ["b"]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import a", ["typing"]),
        ("if x:\n    import a", ["a"]),
        ("match x:\n    case 1:\n        import a", ["a"]),
    ],
)
def test_imports_are_found_where_they_run(source, expected):
    assert modules(source) == expected


def test_only_python_is_read():
    assert list(imports({"x.txt": b"import a", "y.json": b"{"})) == []
