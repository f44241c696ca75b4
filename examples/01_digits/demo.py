"""`make demo`: train the digits on two workers, register and serve the result, and ask it for one real digit.

Everything is kept in `.demo` at the root of the checkout; the server is stopped at the end.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from sklearn.datasets import load_digits

HERE = Path(__file__).parent
STORAGE = HERE.parents[1] / ".demo"
SHADES = " .:-=+*#%@"
IMAGE = 65  # one of the test part, which is every fifth image


def main() -> int:
    environment = {**os.environ, "RAYSTACK_STORAGE": str(STORAGE)}
    config = str(HERE / "config.yaml")
    outcome = _verb("train", config, environment)
    accuracy = outcome["metrics"]["eval/accuracy"]
    print(
        f"\ntest accuracy {accuracy:.4f}, registered as {outcome['alias']} ({outcome['model_version']})\n",
        flush=True,
    )

    server = subprocess.Popen(
        [sys.executable, "-m", "raystack.serve", config, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        served = json.loads(_read_object(server))
        answer = ask(f"{served['links']['url']}/infer")
    finally:
        server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
    return answer


def ask(url: str) -> int:
    """Send a real digit, draw it, and show the answer. Returns 0 if it is right."""
    digits = load_digits()
    image, truth = digits.images[IMAGE] / 16, int(digits.target[IMAGE])
    for row in image:
        print("    " + "".join(SHADES[int(pixel * 9)] * 2 for pixel in row))
    body = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 8, 8], "data": image.ravel().tolist()}]
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        outputs = {output["name"]: output["data"] for output in json.load(response)["outputs"]}
    digit, probability = outputs["digit"][0], max(outputs["probability"])
    print(f"\nPOST {url}\nanswer: {digit} with probability {probability:.3f}; it is a {truth}", flush=True)
    return 0 if digit == truth else 1


def _verb(verb: str, config: str, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", f"raystack.{verb}", config, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def _read_object(server: "subprocess.Popen[str]") -> str:
    """The JSON object that the server prints once it answers."""
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line == "}\n":
            break
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
