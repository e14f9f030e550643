"""How to compile what is not to be compiled as cheaply as all else is (tests/conftest.py).

`jax.jit(step, **OPTIMISED)` pays for what runs often in a test. `jax.jit(step, **EXACT)` is for
what must be equal in every bit on one device and on several.
"""

OPTIMISED = {
    "compiler_options": {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    }
}
EXACT = {"compiler_options": {"xla_cpu_use_fusion_emitters": True}}
