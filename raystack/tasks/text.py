"""JSON Lines -> token numbers. In: a file of texts or conversations, a tokenizer. Out: samples, and which
tokens are learned.

A line is {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [{"role": ..., "content": ...},
...]}.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raystack.errors import ConfigError, Problem
from raystack.tasks.packing import Numbers, Rows

Format = Literal["text", "chat"]
log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A sample of the training: one text, or several packed ones. Each array is [tokens]."""

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    """Tokens in the loss, which scores the prediction of each from those before it.

    Never the first of a text.
    """
    positions: NDArray[np.int64]
    """Positions from 0; they restart with each text."""


@dataclass(frozen=True)
class Tokens:
    """The texts of a file, one after another."""

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    starts: Numbers
    """Start of each text, and the end of the last: [texts + 1]."""

    @property
    def lengths(self) -> Numbers:
        """Return the number of tokens of each text."""
        return np.diff(self.starts)


class Texts:
    """A map-style dataset of Rows."""

    def __init__(self, tokens: Tokens, rows: Rows) -> None:
        self.tokens, self.rows = tokens, rows

    @property
    def lengths(self) -> Numbers:
        """Return the number of tokens of each row, for `training.data.bucket`."""
        return np.add.reduceat(self.tokens.lengths[self.rows.members], self.rows.starts[:-1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        starts = self.tokens.starts
        parts = [slice(starts[text], starts[text + 1]) for text in self.rows[index]]
        return Row(
            np.concatenate([self.tokens.ids[part] for part in parts]),
            np.concatenate([self.tokens.learned[part] for part in parts]),
            np.concatenate([np.arange(part.stop - part.start) for part in parts]),
        )


def read(path: Path, kind: Format, tokenizer: Any, context: int, mask_prompt: bool) -> Tokens:
    """Tokenize a file.

    A text longer than `context` tokens is cut at its end, and one without a token to learn is skipped; a
    warning counts both. Raises ConfigError, with file and line, for a malformed line.
    """
    encode = {"text": _encode_text, "chat": _encode_chat}[kind]
    ids, learned, cut, empty = [], [], 0, 0
    for where, line in lines(path):
        numbers, counts = encode(where, line, tokenizer, mask_prompt)
        cut += len(numbers) > context
        counts = counts[:context]
        # Nothing precedes the first token, so no loss predicts it.
        counts[:1] = [False]
        if not any(counts):
            empty += 1
            continue
        ids.append(np.array(numbers[:context], np.int32))
        learned.append(np.array(counts, np.bool_))
    if cut:
        log.warning(
            "%s: %d of %d texts are longer than the context of %d tokens and were cut",
            path,
            cut,
            len(ids) + empty,
            context,
        )
    if empty:
        log.warning(
            "%s: %d of %d texts have no token to learn and are left out", path, empty, len(ids) + empty
        )
    if not ids:
        raise ConfigError(
            Problem(
                str(path),
                rule="has no text with a token to learn",
                remedy="check task.args.context and mask_prompt",
            )
        )
    starts = np.cumsum([0, *map(len, ids)])
    return Tokens(np.concatenate(ids), np.concatenate(learned), starts)


def lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (`file:line`, object) of each line that is not blank."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ConfigError(
                    Problem(where, rule=f"the line is not JSON: {error}", got=repr(line[:60]))
                ) from None
            if not isinstance(value, dict):
                raise ConfigError(Problem(where, rule="each line is a JSON object", got=type(value).__name__))
            yield where, value


def conversation(where: str, line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a line of format chat."""
    messages = line.get("messages")
    whole = (
        isinstance(messages, list)
        and messages
        and all(isinstance(turn, dict) and "role" in turn for turn in messages)
    )
    if not whole:
        rule = 'format chat wants {"messages": [{"role": ..., "content": ...}, ...]}'
        raise ConfigError(Problem(where, rule=rule, got=_keys(line), remedy="see task.args.format"))
    return list(messages)  # type: ignore[arg-type]


def prompt_of(where: str, line: Mapping[str, Any], kind: Format, tokenizer: Any) -> list[int]:
    """Return the tokens of a line up to where the model continues.

    That is before the first answer, before the completion, or after the first half of a text.
    """
    if kind == "chat":
        messages = conversation(where, line)
        first = next(
            (index for index, turn in enumerate(messages) if turn["role"] == "assistant"), len(messages)
        )
        return list(
            tokenizer.apply_chat_template(messages[:first], add_generation_prompt=True, return_dict=False)
        )
    prompt, completion = _parts(where, line)
    return list(tokenizer(prompt or completion[: len(completion) // 2]).input_ids)


def _encode_text(
    where: str, line: Mapping[str, Any], tokenizer: Any, mask_prompt: bool
) -> tuple[list[int], list[bool]]:
    """Tokenize prompt and completion separately, so that a served prompt has the same tokens."""
    prompt, completion = _parts(where, line)
    before = list(tokenizer(prompt).input_ids) if prompt else []
    # After a prompt, which has the special tokens already, the completion must not add them again.
    after = list(tokenizer(completion, add_special_tokens=not prompt).input_ids)
    end = tokenizer.eos_token_id
    if prompt and before[-1:] == [end]:
        # Some tokenizers append the end-of-text token to each input; the completion follows here.
        before.pop()
    if end is not None and after[-1:] != [end]:
        after.append(end)
    return before + after, [not mask_prompt] * len(before) + [True] * len(after)


def _parts(where: str, line: Mapping[str, Any]) -> tuple[str, str]:
    """Return (prompt, completion); a text is a completion of an empty prompt."""
    if isinstance(line.get("text"), str):
        return "", line["text"]
    if isinstance(line.get("prompt"), str) and isinstance(line.get("completion"), str):
        return line["prompt"], line["completion"]
    rule = 'format text wants {"text": "..."} or {"prompt": "...", "completion": "..."}'
    raise ConfigError(Problem(where, rule=rule, got=_keys(line), remedy="see task.args.format"))


def _encode_chat(
    where: str, line: Mapping[str, Any], tokenizer: Any, mask_prompt: bool
) -> tuple[list[int], list[bool]]:
    messages = conversation(where, line)
    try:
        if not mask_prompt:
            ids = list(tokenizer.apply_chat_template(messages, return_dict=False))
            return ids, [True] * len(ids)
        # Only templates with this tag mark the assistant's tokens; transformers returns an empty mask for
        # others.
        if "{% generation" in tokenizer.chat_template or "{%- generation" in tokenizer.chat_template:
            encoded = tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True
            )
            return list(encoded["input_ids"]), [bool(flag) for flag in encoded["assistant_masks"]]
        return _by_prefixes(where, messages, tokenizer)
    except ConfigError:
        raise
    except Exception as error:  # a template is a program of its own, and may raise anything
        raise ConfigError(
            Problem(where, rule=f"the chat template raised {type(error).__name__}: {error}")
        ) from error


def _by_prefixes(
    where: str, messages: Sequence[Mapping[str, Any]], tokenizer: Any
) -> tuple[list[int], list[bool]]:
    """Find the answers by comparing prefixes of the conversation.

    An answer is what the conversation up to it has more than the same without it, opened for an answer.
    """
    ids = list(tokenizer.apply_chat_template(messages, return_dict=False))
    learned = [False] * len(ids)
    for index, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        before = list(
            tokenizer.apply_chat_template(messages[:index], add_generation_prompt=True, return_dict=False)
        )
        with_it = list(tokenizer.apply_chat_template(messages[: index + 1], return_dict=False))
        if with_it[: len(before)] != before or ids[: len(with_it)] != with_it:
            rule = (
                "the chat template changes earlier messages when one is added, so the answers cannot be found"
            )
            remedy = "mark them in the template with {% generation %}, or set task.args.mask_prompt=false"
            raise ConfigError(Problem(where, rule=rule, remedy=remedy))
        learned[len(before) : len(with_it)] = [True] * (len(with_it) - len(before))
    return ids, learned


def _keys(line: Mapping[str, Any]) -> str:
    return f"the keys {', '.join(map(str, line)) or 'none'}"
