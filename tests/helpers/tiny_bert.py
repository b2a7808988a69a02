"""Configure a BERT that computes in no time."""

from medtok_jax.models.bert import BertConfig


def tiny_bert(vocabulary: int = 30, width: int = 8, *, layers: int = 1) -> BertConfig:
    """Return the configuration of a BERT with two heads and 20 positions."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
    )
