"""What is to be served, checked on this machine before Ray is started."""

import json
import shlex
from pathlib import Path
from typing import Any

from raystack.config.llm import Llm
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem
from raystack.serving.access import Access
from raystack.serving.llm.arguments import check_installed, check_known
from raystack.serving.llm.folder import adapter_folder, has_chat_template, model_folder


def check(serving: Serving, tracking: Tracking) -> None:
    """Check what a replica on this machine will need.

    Raises LaunchError if vLLM is not installed, ConfigError for a model or adapter that vLLM cannot read and
    for arguments that it does not have.
    """
    assert serving.model is not None
    package = check_installed()
    check_known(serving.llm.engine_kwargs, package)
    model_folder(serving.model, tracking)
    for name, uri in serving.llm.adapters.items():
        if name == serving.name:
            rule = "is also the model's own name"
            raise ConfigError(Problem("serving.llm.adapters", rule=rule, got=name, remedy="rename it"))
        adapter_folder(name, uri, tracking)


def example(serving: Serving, tracking: Tracking, url: str) -> str:
    """Return a curl command that has the model continue a text, as a chat if it has a template for one."""
    assert serving.model is not None
    path: str = "completions"
    ask: dict[str, Any] = {"prompt": "Once upon a time"}
    if serving.llm.chat_template is not None or has_chat_template(model_folder(serving.model, tracking)):
        path, ask = "chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}
    body = json.dumps({"model": serving.name, **ask, "max_tokens": 32})
    curl = Access.of(serving).curl(f"{url}/{path}")
    return f"{curl} -H 'content-type: application/json' -d {shlex.quote(body)}"


def with_template(llm: Llm) -> Llm:
    """Return the section with the text of its chat template, which may be in a file of this machine.

    Raises ConfigError if there is no such file.
    """
    template = llm.chat_template
    if template is None or "{{" in template or "{%" in template:
        return llm
    try:
        text = Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        rule = f"is neither a Jinja template nor a file that can be read: {error}"
        raise ConfigError(Problem("serving.llm.chat_template", rule=rule, got=template)) from None
    return llm.model_copy(update={"chat_template": text})
