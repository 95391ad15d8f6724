"""Write the names of ``flambeau/autograd/saved/table.py`` into ``saved_names.py``: run it after changing the table."""

from __future__ import annotations

import pathlib
import re
import textwrap

from flambeau.autograd.saved import names as saved_names
from flambeau.autograd.saved.table import TABLE


def main() -> None:
    names = sorted({item.partition("=")[0] for spec, _ in TABLE for item in spec.split()})
    lines = textwrap.indent("\n".join(textwrap.wrap(" ".join(names), 110, break_on_hyphens=False)), "    ")
    path = pathlib.Path(saved_names.__file__)
    path.write_text(re.sub(r'NAMES = """\n.*?"""', f'NAMES = """\n{lines}\n"""', path.read_text(), flags=re.DOTALL))
    print(f"{len(names)} names")


if __name__ == "__main__":
    main()
