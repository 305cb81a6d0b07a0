"""``pyro`` and ``python -m pyro_mcp``."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from pyro_mcp.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
