"""Train a baseline with the settings of the published PyTorch code, as far as they are settings here.

The published code initializes rows at random, takes K = 5 nearly equally weighted tokens, searches the whole codebook
with the cross-modal embeddings, has no KL term, and averages losses over the width. It identifies nodes by their ids
alone and reads neither names nor relations (relations are read here). Its attention runs over token and node states, as
ours does, one code after the other.

What is not reproduced, as it is no setting here: its orthogonality term is the Frobenius norm itself, of a sum over the
batch (neither squared nor divided by B); its alignment compares pooled inputs instead of cross-modal embeddings; both
directions of its attention share their layers; its weights are a softmax of squared distances; both views of the
specific contrast end in the same cross-modal vector, with its gradient; gradients pass straight through to vectors that
are not normalized; and codes with equal descriptions are negatives of one another. The training length is that of
`configs/default.py`, so that tokenizers are compared at equal cost; the code trains 50 epochs at a learning rate of
1e-4.
"""

from ml_collections import ConfigDict

from configs import default, paper

CODEBOOK_SIZES = ("21000", "12000")


def get_config(variant: str = "21000") -> ConfigDict:
    """Return the published code's values; `variant` is the codebook size."""
    variant = variant or CODEBOOK_SIZES[0]
    if variant not in CODEBOOK_SIZES:
        raise ValueError(f"configs/published.py has no variant {variant!r}; there are {' and '.join(CODEBOOK_SIZES)}")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.model.codebook_size = int(variant)  # N, number of codebook rows.
    config.model.embedding_dim = 64  # d, width of the embeddings.
    config.model.text_encoder_type = "default"  # The CLS state.
    config.model.graph_encoder_type = "default"  # A GCN.
    config.model.graph_width = 64  # Width of node states; the code has 64, 128 and 64.
    config.model.graph_layers = 2  # GCN layers.
    config.model.node_name_features = False  # Names of nodes are not read.
    config.model.node_id_features = True  # Nodes are identified by their ids.
    config.model.num_top_k_tokens = 5  # K, tokens of each embedding.
    config.model.text_token_share = 0.25  # All four embeddings have K tokens.
    config.model.graph_token_share = 0.25  # Likewise.
    config.model.text_specific_ratio = 1 / 3  # The first third of the codebook.
    config.model.graph_specific_ratio = 1 / 3  # The last third of the codebook.
    config.model.shared_ratio = 1 / 3  # The middle third, which only cross-modal embeddings search.
    config.model.shared_search = "book"  # Cross-modal embeddings search the whole codebook.
    config.model.normalize = True  # Search by cosine similarity.
    config.model.weight_temperature = 1.0  # The code uses no temperature.
    config.model.kmeans_init = False  # Rows are initialized at random.
    config.loss.alpha = 1 / 64  # Weight 1 of the codebook term, which the code averages over the width.
    config.loss.commitment_weight = 0.25 / 64  # Weight 0.25 of the commitment term, likewise averaged.
    config.loss.beta = 0.1  # Weight of the alignment loss.
    config.loss.lambda_val = 0.1  # Weight of the orthogonality loss.
    config.loss.infonce_temperature = 0.07  # Temperature of every InfoNCE loss.
    config.loss.kl_weight = 0.0  # The code has no KL loss.
    paper.leave_additions_out(config)  # The code has nothing that the paper lacks either.
    config.train.epochs = 8  # As many steps as `configs/default.py`, half of whose batches are anchors.
    return config.lock()
