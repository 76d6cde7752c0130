"""The study in the plane: which of four errors drives collapse. Every part goes on where it was killed.

    python -m iterative_retraining.studies.toy2d --folder runs/plane --to results

It writes plane.csv, a row a member and measured generation of every part that is complete, and plane.json, which says
when, by which code and on which machine each was made.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from iterative_retraining.errors import UserError
from iterative_retraining.studies.toy2d.plane import make, publish


def main(arguments: Sequence[str]) -> None:
    """Makes what the command line asks for. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining.studies.toy2d",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/plane"), help="where it works (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=Path("results"), help="where the csv goes (default: %(default)s)")
    parser.add_argument("--scale", default="{}", help="what differs from the published scale, as JSON")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="beginnings of the names of parts")
    given = parser.parse_args(arguments)
    scale = make(given.folder, json.loads(given.scale), given.only)
    print(f"{publish(given.folder, given.to, scale)} rows in {given.to / 'plane.csv'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; complete generations are kept, and the same command goes on")
