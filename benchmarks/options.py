"""What the benchmarks' command lines share."""

import argparse
from typing import Any


def parse(parser: argparse.ArgumentParser, **smoke: Any) -> argparse.Namespace:
    """The options given; with `--smoke` those named in `smoke` take its values, which need seconds and prove nothing."""
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(smoke)
    return options
