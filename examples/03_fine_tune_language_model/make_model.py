"""Make what the example fine-tunes: a tiny Llama with fresh weights, its tokenizer, and questions with their
answers.

Nothing is downloaded. The questions are "What does str.strip do?", the answers the first lines of the
docstrings of Python's standard library. Everything is written to the folder that is given, or to
$RAYSTACK_STORAGE/docstrings.
"""

import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

MODULES = """
builtins argparse ast asyncio base64 bisect calendar collections concurrent.futures configparser contextlib
copy csv dataclasses datetime decimal difflib email.message enum fractions functools gzip heapq hashlib html
http.client inspect io ipaddress itertools json logging math multiprocessing operator os pathlib pickle queue
random re shutil socket sqlite3 statistics string struct subprocess tarfile tempfile textwrap threading time
types typing unittest urllib.parse uuid weakref xml.etree.ElementTree zipfile
"""

TEST_EVERY = 20
END = "<|end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['role'] == 'assistant'"
    " %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{% else %}{{"
    " message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{%"
    " endif %}"
)


def main() -> None:
    storage = Path(os.environ.get("RAYSTACK_STORAGE", "~/raystack")).expanduser()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else storage / "docstrings"
    pairs = sorted(set(questions()))
    make(folder, pairs)
    print(f"{folder}: a model, {len(pairs)} questions")


def questions() -> Iterator[tuple[str, str]]:
    """("What does str.strip do?", "Return a copy of the string with ...") of every name that has a
    docstring.
    """
    for name in MODULES.split():
        module = importlib.import_module(name)
        for public, thing in members(module):
            path = public if name == "builtins" else f"{name}.{public}"
            yield from ask(path, thing)
            if inspect.isclass(thing):
                for method, function in members(thing):
                    yield from ask(f"{path}.{method}", function)


def members(of: object) -> list[tuple[str, object]]:
    return [(name, thing) for name, thing in vars(of).items() if not name.startswith("_") and callable(thing)]


def ask(path: str, thing: object) -> Iterator[tuple[str, str]]:
    first = (inspect.getdoc(thing) or "").strip().partition("\n\n")[0]
    if 20 <= len(first) <= 300:
        yield f"What does {path} do?", " ".join(first.split())


def make(folder: Path, pairs: list[tuple[str, str]], width: int = 96, depth: int = 4) -> None:
    """Write model/, train.jsonl and eval.jsonl below `folder`."""
    disable_progress_bar()
    tokenizer = make_tokenizer(pairs)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the least that vLLM has on CPUs
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, test in (("train", False), ("eval", True)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for index, (question, answer) in enumerate(pairs):
                if (index % TEST_EVERY == 0) == test:
                    messages = [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                    file.write(json.dumps({"messages": messages}) + "\n")


def make_tokenizer(pairs: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 1,024 tokens, trained on the questions and answers."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [END, "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for pair in pairs for text in pair), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END, chat_template=TEMPLATE)


if __name__ == "__main__":
    main()
