"""What the benchmarks' command lines share."""

import argparse
import os
from typing import Any

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Tiny programs run for less time than XLA takes to optimise them."""


def parse(parser: argparse.ArgumentParser, **smoke: Any) -> argparse.Namespace:
    """The options given; with `--smoke` those named in `smoke` take its values, which need seconds and prove nothing."""
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    if options.smoke:
        os.environ.setdefault("XLA_FLAGS", QUICK)
        vars(options).update(smoke)
    return options
