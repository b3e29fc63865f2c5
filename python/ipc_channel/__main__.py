"""``python -m ipc_channel``: the command line of the package."""

import sys

from ipc_channel.cli import main

if __name__ == "__main__":
    sys.exit(main())
