"""Everything of Ray that is used and not documented: private modules, attributes, environment variables.

Ray is pinned because of them, and `tests/contract/test_ray_internals.py` names what another version lacks.
`core`, `train` and `serve` are separate modules because each takes a second to import; `start` imports what
Ray has imported by itself, and `variables` needs no Ray.
"""
