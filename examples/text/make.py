"""Make a tiny BERT with its tokenizer, trained on made-up sentences: `python make.py`. Nothing is downloaded."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

GOOD, BAD = ["good", "fine", "lovely", "bright"], ["bad", "dull", "awful", "grey"]
FILL = ["the", "film", "was", "a", "very", "day", "and", "it", "felt", "so", "with", "people"]


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Return sentences with more good words than bad ones (1), or fewer (0)."""
    draw, made = random.Random(seed), []
    while len(made) < count:
        words = draw.choices(FILL, k=8) + draw.choices(GOOD + BAD, k=3)
        draw.shuffle(words)
        made.append((" ".join(words), int(sum(w in GOOD for w in words) > 1)))
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that splits at spaces."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILL, *GOOD, *BAD]
    numbers = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def main() -> None:
    """Write the folder tiny-bert and the tables train.csv and held.csv."""
    torch.manual_seed(0)
    split = tokenizer()
    config = BertConfig(
        vocab_size=len(split),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    model = BertForSequenceClassification(config).train()
    rows, held = sentences(3000, 0), sentences(3000, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for start in range(0, len(rows), 50):
        texts, labels = zip(*rows[start : start + 50], strict=True)
        batch = split(list(texts), return_tensors="pt", padding=True)
        loss = model(**batch, labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.3f}")
    model.eval().save_pretrained("tiny-bert")
    split.save_pretrained("tiny-bert")
    for name, part in (("train", rows), ("held", held)):
        lines = ["text,label", *(f"{text},{label}" for text, label in part)]
        Path(f"{name}.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
