"""The protocol over gRPC: GRPCInferenceService with Triton's extensions, health and reflection.

`messages` are the protocol's, `infer` reads and writes them, `servicer`, `inference`, `stream` and `health`
are the services, `rpc` what all RPCs have in common. `services` adds them to any grpc.aio server, `ingress`
to Serve's. `probe` asks a server whether it answers.
"""
