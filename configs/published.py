"""The settings of the PyTorch code that was published with the paper, as far as they are settings here; a baseline.

Its quantizer starts from random rows, takes K = 5, weights them nearly alike, searches the whole book with the
cross-modal embeddings and has no KL term; its losses are means over the width; nodes are known by their ids alone, and
neither their names nor the relations between them are read (relations still are, here). Not carried over, being faults
of the code rather than settings: attention of pooled vectors, straight-through of vectors that are not normalized,
codes of equal description as each other's negatives. The training length is that of `configs/default.py`, so that
tokenizers are compared at equal cost; the code has 50 epochs at a learning rate of 1e-4.
"""

from ml_collections import ConfigDict

from configs import default, paper

CODEBOOK_SIZES = ("21000", "12000")


def get_config(variant: str = "21000") -> ConfigDict:
    """The published code's values; `variant` is the codebook size."""
    variant = variant or CODEBOOK_SIZES[0]
    if variant not in CODEBOOK_SIZES:
        raise ValueError(f"configs/published.py has no variant {variant!r}; there are {' and '.join(CODEBOOK_SIZES)}")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.model.codebook_size = int(variant)  # N.
    config.model.embedding_dim = 64  # d.
    config.model.text_encoder_type = "default"  # CLS.
    config.model.graph_encoder_type = "default"  # GCN.
    config.model.graph_width = 64  # The code has 64, 128 and 64 for the three states of a node.
    config.model.graph_layers = 2  # Layers of GCN.
    config.model.node_name_features = False  # Nodes are known by their ids alone.
    config.model.node_id_features = True  # Likewise.
    config.model.num_top_k_tokens = 5  # K.
    config.model.text_specific_ratio = 1 / 3  # The first third of the book.
    config.model.graph_specific_ratio = 1 / 3  # The last third.
    config.model.shared_ratio = 1 / 3  # What is left is searched by the cross-modal embeddings alone.
    config.model.shared_search = "book"  # These search the two others too.
    config.model.normalize = True  # Cosine search.
    config.model.weight_temperature = 1.0  # The code has none.
    config.model.kmeans_init = False  # Random rows.
    config.loss.alpha = 1 / 64  # 1 for the codebook term, as a mean over the width.
    config.loss.commitment_weight = 0.25 / 64  # 0.25 for the commitment term, likewise.
    config.loss.beta = 0.1  # Alignment.
    config.loss.lambda_val = 0.1  # Orthogonality.
    config.loss.infonce_temperature = 0.07  # InfoNCE.
    config.loss.kl_weight = 0.0  # The code has no KL term.
    paper.leave_additions_out(config)  # Nor anything else that the paper has not.
    return config.lock()
