"""`python -m serank` is the `serank` command."""

import sys

from serank.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
