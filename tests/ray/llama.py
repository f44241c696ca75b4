"""A Llama of a few thousand weights that knows one text by heart, and an adapter that makes it another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "The fox went out on a chilly night and prayed for the moon to give him light."
OTHER = "The fox stayed at home by the warm fire, and read a long book about the sea."
ANSWER = "I am a very small model, but I know what I say."
QUESTION = "Who are you?"
END = "<|end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make(folder: Path) -> None:
    """Write a model that continues TEXT and answers QUESTION below `folder`, and in `poet` an adapter for
    OTHER.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)  # it is too small for more
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    chat = f"<|user|>{QUESTION}<|assistant|>{ANSWER}{END}"
    _learn(model, tokenizer, 5e-3, [TEXT + END, f"<|assistant|>{OTHER}{END}", chat])
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=modules))
    _learn(adapted, tokenizer, 1e-2, [OTHER + END])
    adapted.save_pretrained(str(folder / "poet"))


def _learn(model: nn.Module, tokenizer: Any, lr: float, texts: Sequence[str]) -> None:
    """Until each next token is the likeliest by far."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=lr)
    samples = [torch.tensor([tokenizer(text).input_ids]) for text in texts]
    for _ in range(300):
        losses = [model(input_ids=sample, labels=sample).loss for sample in samples]
        loss = torch.stack(losses).sum()
        if loss < 0.005 * len(samples):
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"the loss is still {loss}")


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT, OTHER, ANSWER, QUESTION], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, eos_token=END, pad_token=END, chat_template=TEMPLATE
    )
