"""How to compile what runs so often in a test that it pays: `jax.jit(step, **OPTIMISED)`.

All else is compiled with little optimisation (tests/conftest.py).
"""

OPTIMISED = {
    "compiler_options": {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    }
}
