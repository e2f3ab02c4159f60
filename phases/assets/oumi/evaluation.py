"""What a model is measured by: how well it predicts the answers of a dataset of conversations.

Oumi finds this function by OUMI_EXTRA_DEPS_FILE and calls it for the evaluation task `answers`.
"""

import json
import math

import torch
from oumi.core.configs import EvaluationConfig
from oumi.core.registry import register_evaluation_function
from transformers import AutoModelForCausalLM, AutoTokenizer

GENERATED = 32


@register_evaluation_function("answers")
def answers(config: EvaluationConfig, dataset: str) -> dict[str, float]:
    """Returns the perplexity and accuracy of the answers' tokens, and the share of answers that come out word for word."""
    tokenizer = AutoTokenizer.from_pretrained(config.model.model_name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(config.model.model_name).to(device).eval()
    loss, right, tokens, exact, count = 0.0, 0, 0, 0, 0
    with open(dataset, encoding="utf-8") as lines, torch.inference_mode():
        for line in lines:
            messages = json.loads(line)["messages"]
            prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
            start = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids.to(device)
            answer = messages[-1]["content"]
            end = tokenizer(answer, add_special_tokens=False, return_tensors="pt").input_ids.to(device)
            logits = model(torch.cat([start, end], dim=1)).logits[0, start.shape[1] - 1 : -1]
            loss += torch.nn.functional.cross_entropy(logits.float(), end[0], reduction="sum").item()
            right += (logits.argmax(-1) == end[0]).sum().item()
            tokens += end.shape[1]
            out = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=GENERATED, do_sample=False)
            said = tokenizer.decode(out[0, start.shape[1] :], skip_special_tokens=True)
            exact += said.strip().split("\n")[0] == answer
            count += 1
    return {"perplexity": math.exp(loss / tokens), "token_accuracy": right / tokens, "exact_answers": exact / count}
