"""All that graphopt needs of JAX beyond its public interface: the one folder that imports `jax._src`.

Tried on jax 0.10.2 (Python 3.11), 0.11.2 (3.12) and 0.12.0 (3.13). What differs between them is how a primitive that
carries a jaxpr gets its transformation rules: by a public function from 0.11 on, written out in `rules` for 0.10. On a
series that is not in `graphopt.traceable.TRIED_JAX` the call primitive is not made: see
`graphopt.traceable.choose_call`.
"""
