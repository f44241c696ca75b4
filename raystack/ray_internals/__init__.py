"""The one door to what Ray does not document: private modules, attributes and methods, environment variables.

Ray is pinned because of them, and `tests/contract/test_ray_internals.py` names what another version lacks.
`core`, `train` and `serve` are imported apart, because each costs a second; `variables` needs no Ray.
"""
