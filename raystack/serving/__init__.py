"""A trained model behind the Open Inference Protocol v2. In: a ServePlan. Out: a Ray Serve application that
answers.

`raystack.serving:build` is the import path for `serve run` and RayService; `raystack.serving.deploy` is for a
Ray that this process is connected to. `protocol`, `predictor`, `batcher` and `endpoint` know no Ray and can
be used without it.
"""

from raystack.serving.builder import build, build_server

__all__ = ["build", "build_server"]
