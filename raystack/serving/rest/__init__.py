"""The protocol over HTTP. In: a request's path, headers and body. Out: status, headers and body.

Independent of Ray. `routes` says what a path asks for, `body` reads what a client sends, `infer` answers it
with the model, `management` everything else; `raystack.serving.endpoint` is the ASGI application of them.
"""
