"""Shows the methods of the clients in the documentation as programs see them."""

import re
from typing import Any

from griffe import Expr, Extension, Function, Object

_EXAMPLE = re.compile(r"^Example:\n((?:    .*\n?|\n)+)", re.MULTILINE)


class ClientMethods(Extension):
    """Gives methods the type of their answer instead of their request, and examples a frame."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Name the answer of a request."""
        returns = str(func.returns)
        if found := re.fullmatch(r"Request\[Page\[(\w+)\]\]", returns):
            func.returns = f"Iterator[{found[1]}]"
        elif isinstance(func.returns, Expr) and (
            found := re.fullmatch(r"Request\[(.+)\]", returns)
        ):
            func.returns = found[1]

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Make the example of a docstring a block of code."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(_as_block, obj.docstring.value)


def _as_block(found: re.Match[str]) -> str:
    code = re.sub("^    ", "", found[1], flags=re.MULTILINE).rstrip()
    return f"```python\n{code}\n```\n"
