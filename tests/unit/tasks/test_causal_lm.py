"""Fine-tuning a causal language model: what is learned, what packing changes (nothing), and what other tools
can load.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from raystack.errors import ConfigError
from raystack.tasks.causal_lm import IGNORED, CausalLM, Tokenized

pytestmark = pytest.mark.slow

LORA = {"r": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def task_of(made: Path, **args: Any) -> CausalLM:
    whole = {
        "model": str(made / "model"),
        "data": str(made / "train.jsonl"),
        "eval_data": str(made / "eval.jsonl"),
        "context": 96,
    }
    return CausalLM(**{**whole, **args})


def batch_of(task: CausalLM) -> Tokenized:
    data = task.train_data()
    return task.collate([data[index] for index in range(len(data))])


def model_of(task: CausalLM) -> Any:
    torch.manual_seed(0)
    return task.model()


def write(folder: Path, *lines: object) -> str:
    file = folder / "data.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(file)


def messages(*contents: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": role, "content": content}
            for role, content in zip(["user", "assistant"] * 9, contents, strict=False)
        ]
    }


def mean_loss(task: CausalLM, model: Any, batch: Tokenized) -> torch.Tensor:
    total, count = task.loss(model, batch)
    return total / count


def test_packing_changes_neither_the_loss_nor_the_gradients(made: Path) -> None:
    packed, plain = task_of(made), task_of(made, packing=False)
    assert len(packed.train_data()) < len(plain.train_data()) == 38
    results = []
    for task in (packed, plain):
        model = model_of(task)
        loss = mean_loss(task, model, batch_of(task))
        loss.backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results.append((loss.item(), gradient))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_batch_is_made_of_the_sums_and_counts_of_its_parts(made: Path) -> None:
    task = task_of(made)
    model, data = model_of(task), task.train_data()
    whole = task.loss(model, task.collate([data[index] for index in range(4)]))
    parts = [task.loss(model, task.collate([data[index]])) for index in range(4)]
    assert whole[0].item() == pytest.approx(sum(part[0].item() for part in parts), rel=1e-5)
    assert int(whole[1]) == sum(int(part[1]) for part in parts)


def test_only_the_answers_are_learned_and_all_of_them(made: Path, tmp_path: Path) -> None:
    data = write(tmp_path, messages("What does f1 do?", "Return the value", "And f2?", "it"))
    task = task_of(made, data=data, packing=False)
    labels = batch_of(task)["labels"][0]
    assert task.tokenizer.decode(labels[labels != IGNORED]) == "Return the value<|end|>it<|end|>"
    everything = batch_of(task_of(made, data=data, packing=False, mask_prompt=False))["labels"][0]
    assert task.tokenizer.decode(everything[everything != IGNORED]).startswith(
        "What does f1 do?<|assistant|>Return the value<|end|>"
    )


def test_a_template_that_marks_no_answers_gives_the_same(made: Path, tmp_path: Path) -> None:
    data = write(tmp_path, messages("What does f1 do?", "Return the value", "And f2?", "it"))
    marked, plain = (task_of(made, data=data, packing=False) for _ in range(2))
    template = marked.tokenizer.chat_template
    plain.tokenizer.chat_template = template.replace("{% generation %}", "").replace(
        "{% endgeneration %}", ""
    )
    assert torch.equal(batch_of(plain)["labels"], batch_of(marked)["labels"])
    unstable = task_of(made, data=data)
    unstable.tokenizer.chat_template = "{{ messages | length }}" + plain.tokenizer.chat_template
    with pytest.raises(
        ConfigError, match=r"data.jsonl:1: the chat template changes earlier messages .*mask_prompt=false"
    ):
        unstable.train_data()


def test_a_masked_token_does_not_count(made: Path) -> None:
    task = task_of(made)
    model, batch = model_of(task), batch_of(task)
    changed = batch["labels"].clone()
    changed[changed == IGNORED] = 5
    learned_more = Tokenized(
        ids=batch["ids"], positions=batch["positions"], labels=changed, tokens=batch["tokens"]
    )
    with torch.no_grad():
        loss = mean_loss(task, model, batch).item()
        assert mean_loss(task, model, learned_more).item() != pytest.approx(loss, rel=1e-3)
        sums, counts = task.metrics(model, batch)["loss"]
    assert (
        int(counts) == int((batch["labels"] != IGNORED).sum()) == int(task.train_data().tokens.learned.sum())
    )
    assert float(sums.sum()) / int(counts) == pytest.approx(loss, rel=1e-5)


def test_a_completion_is_learned_and_its_prompt_is_not(made: Path, tmp_path: Path) -> None:
    data = write(tmp_path, {"prompt": "Return the", "completion": " value"}, {"text": "of it"})
    task = task_of(made, data=data, format="text", packing=False)
    decoded = [task.tokenizer.decode(labels[labels != IGNORED]) for labels in batch_of(task)["labels"]]
    assert decoded[0] == " value<|end|>"
    assert "of it<|end|>".endswith(decoded[1])  # the first token of a text is never predicted


def test_a_long_text_is_cut_and_told(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(
        tmp_path, messages("f1?", "value " * 90), messages("value " * 90, "it"), messages("f1?", "it")
    )
    with caplog.at_level(logging.WARNING):
        rows = task_of(made, data=data, context=40, packing=False).train_data()
    assert rows.lengths.tolist()[0] == 40
    assert len(rows) == 2
    assert "2 of 3 texts are longer than the context of 40 tokens and were cut" in caplog.text
    assert "1 of 3 texts have no token to learn and are left out" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model": "/nowhere"}, r"task.args.model: there is no such folder \(got /nowhere\)"),
        ({"model": "/usr"}, r"task.args.model: /usr is no transformers model: it has no config.json"),
        ({"data": "/nowhere.jsonl"}, r"task.args.data: there is no such file"),
        ({"contxt": 5}, r"task.args.contxt: Extra inputs are not permitted"),
        ({"lora": {"r": 0}}, r"task.args.lora.r: .*greater than 0"),
    ],
)
def test_arguments_that_cannot_be_met_are_told_at_once(
    made: Path, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(made, **args)


@pytest.mark.parametrize(
    ("format_", "line", "message"),
    [
        ("chat", "{oops", r"data.jsonl:2: the line is not JSON"),
        ("chat", {"text": "a"}, r'data.jsonl:2: format chat wants \{"messages".*got the keys text'),
        ("text", messages("a", "b"), r'data.jsonl:2: format text wants \{"text".*got the keys messages'),
        ("text", [], r"data.jsonl:2: each line is a JSON object \(got list\)"),
    ],
)
def test_a_bad_line_is_told_with_its_number(
    made: Path, tmp_path: Path, format_: str, line: object, message: str
) -> None:
    good = messages("a", "b") if format_ == "chat" else {"text": "abc"}
    with pytest.raises(ConfigError, match=message):
        task_of(made, data=write(tmp_path, good, line), format=format_).train_data()


def test_a_model_of_another_kind_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "vocab_size": 5}')
    with pytest.raises(ConfigError, match=r"task.args.model: .* is no causal language model"):
        task_of(made, model=str(tmp_path)).model()
    with pytest.raises(
        ConfigError, match=r"task.args.lora.target_modules: Target modules .*nope.* not found"
    ):
        task_of(made, lora={"target_modules": ["nope"]}).model()


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_restored_model_is_the_same_without_the_weights_of_the_folder(
    made: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    task = task_of(made, lora=lora)
    read = model_of(task)
    (folder := tmp_path / "model").mkdir()
    for file in (made / "model").iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    restored = task_of(made, lora=lora, model=str(folder)).model(restored=True)
    restored.load_state_dict(read.state_dict())
    modes = [[module.training for module in model.modules()] for model in (read, restored)]
    assert modes[0] == modes[1]
    trains = [[one.requires_grad for one in model.parameters()] for model in (read, restored)]
    assert trains[0] == trains[1]
    assert task.demonstrate(restored) == task.demonstrate(read)
    with torch.no_grad():
        batch = batch_of(task)
        assert torch.equal(task.loss(restored, batch)[0], task.loss(read, batch)[0])


def trained(task: CausalLM) -> Any:
    """The model after a few steps of what the config asks to train."""
    model, batch = model_of(task), batch_of(task)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=3e-2
    )
    losses = []
    for _ in range(5):
        loss = mean_loss(task, model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    return model.eval()


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_export_answers_as_the_trained_model(
    made: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = task_of(made, lora=lora)
    model = trained(task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.export(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )
        fresh = AutoModelForCausalLM.from_pretrained(made / "model")
        assert not torch.allclose(loaded(input_ids=ids).logits, fresh(input_ids=ids).logits, atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == task.tokenizer.chat_template
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "hf").iterdir()
    }


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft, when it loads an adapter
def test_an_adapter_alone_gives_the_same_as_the_merged_model(made: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = task_of(made, lora=LORA, merge=False)
    model = trained(task)
    task.export(model, tmp_path)
    assert not (tmp_path / "hf" / "model.safetensors").exists()
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(made / "model"), tmp_path / "hf"
    ).eval()
    (tmp_path / "merged").mkdir()
    task_of(made, lora=LORA).export(model, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "hf")
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            adapted(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            merged(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )


def test_predictions_do_not_depend_on_padding(made: Path) -> None:
    task = task_of(made)
    model = model_of(task).eval()
    right = {"input_ids": torch.tensor([[5, 6, 7, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
    left = {"input_ids": torch.tensor([[0, 0, 5, 6, 7]]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    bare = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.zeros(1, 3, dtype=torch.int64)}
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[5, 6, 7]])).logits[:, -1]
        for inputs in (right, left, bare):
            torch.testing.assert_close(task.predict(model, inputs)["logits"], wanted, rtol=1e-4, atol=1e-5)
    assert task.signature.outputs[0].shape == (-1, wanted.shape[1])


def test_the_decoder_layers_are_the_blocks_and_the_demonstration_answers_the_first_question(
    made: Path,
) -> None:
    for task in (task_of(made), task_of(made, lora=LORA)):
        model = model_of(task)
        assert [type(block).__name__ for block in task.blocks(model)] == ["LlamaDecoderLayer"] * 2
        assert task.demonstrate(model.eval()).startswith("<|user|>What does f0 do?<|assistant|> ->")


def test_packing_is_refused_for_a_model_that_does_not_keep_texts_apart(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def deaf(self: Any, input_ids: Any = None, position_ids: Any = None, **rest: Any) -> Any:
        return forward(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(LlamaForCausalLM, "forward", deaf)
    with pytest.raises(
        ConfigError, match=r"task.args.packing: LlamaForCausalLM lets packed texts see each other"
    ):
        task_of(made).model()
    task_of(made, packing=False).model()
