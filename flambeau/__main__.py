"""`python -m flambeau` is the command `flambeau`."""

import sys

from flambeau.cli.main import main

sys.exit(main())
