"""Write model_repository/, the small example: a tiny sentence encoder with random weights, built as any model is.

`python scripts/example.py [FOLDER]` writes FOLDER (default model_repository); the same bytes every time.
"""

import sys
import tempfile
from pathlib import Path

import repo_builder
import repo_builder.pipeline

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "and", "cat", "dog", "hello", "here", "is", "small", "the", "world"]


def tiny_encoder(folder: Path) -> Path:
    """A Hugging Face folder: BERT with 16 dimensions, one layer, 14 words and random weights; about 60 kB."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    folder.mkdir(parents=True)
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def build(source: Path, out: Path, *, verify: bool = True) -> repo_builder.pipeline.Result:
    return repo_builder.build(
        source, out, task="sentence-embedding", name="tiny_encoder", target="26.08", cpus=2, verify=verify
    )


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "model_repository")
    with tempfile.TemporaryDirectory() as temporary:
        result = build(tiny_encoder(Path(temporary) / "tiny_encoder"), out)
    for name, report in result.reports.items():
        print(f"{name}: {'proven' if report['passed'] else 'not proven'}")


if __name__ == "__main__":
    main()
