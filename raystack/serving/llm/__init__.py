"""A language model behind OpenAI's API. In: the sections of a ServePlan of kind `llm`. Out: a Ray Serve
application whose replicas each run vLLM through `ray.serve.llm` and pass requests to vLLM's own HTTP routes.

Ray, vLLM and transformers are imported in the replicas alone.
"""
