"""How the programs of tests are compiled."""

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""For XLA_FLAGS: tiny programs run for less time than XLA takes to optimise them; without, they compile in half of it."""
