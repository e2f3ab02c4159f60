"""Makes a tiny causal language model: a two-layer Llama with random weights, and its tokenizer.

usage: tiny_model.py DATASET.jsonl FOLDER

The tokenizer is a byte-level BPE of 400 tokens trained on the conversations of the dataset. Nothing is downloaded; the
same dataset makes the same model.
"""

import json
import os
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 400
LONGEST = 256
BEGIN, END, PAD = "<s>", "</s>", "<pad>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def texts(dataset):
    with open(dataset, encoding="utf-8") as lines:
        for line in lines:
            for message in json.loads(line)["messages"]:
                yield message["role"] + ": " + message["content"] + "\n"


def make_tokenizer(dataset):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(dataset), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=LONGEST,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LONGEST,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def main(dataset, folder):
    tokenizer = make_tokenizer(dataset)
    model = make_model(tokenizer)
    # Renamed into place, so that a folder with this name is whole.
    new = folder + ".new"
    os.makedirs(new, exist_ok=True)
    tokenizer.save_pretrained(new)
    model.save_pretrained(new)
    os.replace(new, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
