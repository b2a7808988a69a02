"""Compute the objective: quantization, agreement of shared tokens, token packing (paper section 3.3, eq. 5-9).

Four terms are not in the paper: the contrast of all that is quantized together, distillation of the text encoder's
similarities (Park et al. 2019, "Relational knowledge distillation"), the cross-covariance of the two specific
embeddings (Cheung et al. 2014, "Discovering Hidden Factors of Variation in Deep Networks"), and link prediction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from medtok_jax.batch import CodeLinks
from medtok_jax.models.exact import exact
from medtok_jax.models.outputs import Embeddings, Quantized, View
from medtok_jax.models.search import l2_normalize
from medtok_jax.regions import EMBEDDINGS

# Added to variances, so that the gradient of a collapsed dimension is finite.
LEAST_VARIANCE = 1e-6


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the mean of `[batch]` values over the valid ones; 0 where none is."""
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def quantization_loss(
    embedding: jax.Array,
    quantized: Quantized,
    valid: jax.Array,
    *,
    commitment_weight: float = 1.0,
    alpha: float = 0.25,
) -> jax.Array:
    """Return eq. 5: `||sg[ê] - e||^2 + alpha ||ê - sg[e]||^2`, summed over the width, as a mean over valid codes.

    As printed, alpha weights the codebook term. The mixing weights of ê carry no gradient, so the codebook term moves
    rows only.
    """
    commitment = jnp.sum((jax.lax.stop_gradient(quantized.vector) - embedding) ** 2, axis=-1)
    codebook = jnp.sum((quantized.vector - jax.lax.stop_gradient(embedding)) ** 2, axis=-1)
    return masked_mean(commitment_weight * commitment + alpha * codebook, valid)


def kl_loss(text: jax.Array, graph: jax.Array, valid: jax.Array, *, temperature: float) -> jax.Array:
    """Return eq. 6: mean KL(softmax(-dist(e_t^c)/tau) || softmax(-dist(e_g^c)/tau)) over the shared region.

    Args:
        text, graph: `[batch, rows]` distances of the two cross-modal embeddings.
        valid: `[batch]` bool.
        temperature: tau.
    """
    log_text = jax.nn.log_softmax(-text / temperature, axis=-1)
    log_graph = jax.nn.log_softmax(-graph / temperature, axis=-1)
    return masked_mean(jnp.sum(jnp.exp(log_text) * (log_text - log_graph), axis=-1), valid)


@exact
def info_nce(
    anchors: jax.Array,
    candidates: jax.Array,
    valid: jax.Array,
    *,
    temperature: float,
    excluded: jax.Array,
    partners: jax.Array | None = None,
) -> jax.Array:
    """Return InfoNCE over cosine similarities, with negatives from the complete batch.

    Args:
        anchors: `[batch, width]`.
        candidates: `[batch, width]`; row i is the positive of anchor i.
        valid: `[batch]` bool; invalid rows are neither anchors nor negatives.
        temperature: softmax temperature.
        excluded: `[batch, batch]` bool, pairs that must not count as negatives; the diagonal is ignored.
        partners: `[batch, batch]` bool, further positives (Khosla et al. 2020, eq. 2), or None.

    Returns:
        Scalar mean over valid anchors.
    """
    logits = l2_normalize(anchors) @ l2_normalize(candidates).T / temperature
    positive = jnp.eye(logits.shape[0], dtype=bool)
    if partners is not None:
        positive = positive | (partners & valid[None, :])
    allowed = positive | (~excluded & valid[None, :])
    log_probability = logits - jax.nn.logsumexp(jnp.where(allowed, logits, -jnp.inf), axis=-1, keepdims=True)
    per_anchor = -jnp.sum(jnp.where(positive, log_probability, 0.0), axis=-1) / jnp.sum(positive, axis=-1)
    return masked_mean(per_anchor, valid)


def not_negatives(text_id: jax.Array, graph_id: jax.Array) -> jax.Array:
    """Return `[batch, batch]` bool, pairs of identical description or subgraph, by their `[batch]` int32 ids."""
    return (text_id[:, None] == text_id[None, :]) | (graph_id[:, None] == graph_id[None, :])


def link_prediction(scores: jax.Array, links: CodeLinks, valid: jax.Array, *, temperature: float) -> jax.Array:
    """Return the mean of `-log softmax(scores / tau)` at each code's own node, over the nodes of the global batch.

    Args:
        scores: `[batch, batch]` of each code, by its relation, and the node of each code.
        links: to be predicted.
        valid: `[batch]` bool; invalid rows are neither codes nor negatives.
        temperature: tau.

    Returns:
        Scalar mean over valid codes that have a link, 0 where there is none.
    """
    counted = valid & (links.node >= 0)
    own = jnp.eye(len(counted), dtype=bool)
    allowed = own | (counted[None, :] & ~links.known)
    log_share = jax.nn.log_softmax(jnp.where(allowed, scores / temperature, -jnp.inf), axis=-1)
    return masked_mean(-jnp.sum(jnp.where(own, log_share, 0.0), axis=-1), counted)


@exact
def orthogonality(specific: jax.Array, shared: jax.Array, valid: jax.Array) -> jax.Array:
    """Return `|| (1/B) sum_i ê_i^s (e_i^c)^T ||_F^2` over valid codes (eq. 8-9), not divided by the squared width."""
    outer = jnp.einsum("bi,bj->ij", jnp.where(valid[:, None], specific, 0.0), shared)
    return jnp.sum((outer / jnp.maximum(jnp.sum(valid), 1)) ** 2)


@exact
def cross_covariance(first: jax.Array, second: jax.Array, valid: jax.Array) -> jax.Array:
    """Return `(||R||_F^2 - d^2 / (n - 1)) / d`, R the correlations of two embeddings over the n valid codes.

    It is the penalty XCov of Cheung et al. (2014, eq. 2) with each dimension standardized over the batch, as in Barlow
    Twins (Zbontar et al. 2021, eq. 2). A squared sample correlation of independent dimensions is 1 / (n - 1) on
    average, which is subtracted: whatever d and n, independent embeddings have the mean 0, and a white embedding and
    its rotation 1 - d / (n - 1).

    Args:
        first, second: `[batch, width]`.
        valid: `[batch]` bool; the means are over all valid rows of the global batch.

    Returns:
        Scalar, 0 where fewer than 3 rows are valid.
    """
    count = jnp.sum(valid)

    def standardized(x: jax.Array) -> jax.Array:
        chosen = valid[:, None]
        mean = jnp.sum(jnp.where(chosen, x, 0.0), axis=0) / jnp.maximum(count, 1)
        centered = jnp.where(chosen, x - mean, 0.0)
        variance = jnp.sum(centered**2, axis=0) / jnp.maximum(count, 1)
        return centered / jnp.sqrt(variance + LEAST_VARIANCE)

    products = jnp.einsum("bi,bj->ij", standardized(first), standardized(second))
    squared = jnp.sum((products / jnp.maximum(count, 1)) ** 2)
    width = first.shape[1]
    return jnp.where(count > 2, (squared - width**2 / jnp.maximum(count - 1, 1)) / width, 0.0)


def specific_contrast(
    first: jax.Array,
    second: jax.Array,
    first_shared: jax.Array,
    second_shared: jax.Array,
    valid: jax.Array,
    *,
    temperature: float,
    excluded: jax.Array,
    partners: jax.Array | None = None,
) -> jax.Array:
    """Return InfoNCE([ê^s ; sg ê^c], [ê^s' ; sg ê^c']) of eq. 8-9, primes of the augmented view, `[batch, width]`.

    ê^c is stop-gradiented in both views: trainable on both sides it would solve the task without ê^s.
    """
    anchors = jnp.concatenate([first, jax.lax.stop_gradient(first_shared)], axis=-1)
    candidates = jnp.concatenate([second, jax.lax.stop_gradient(second_shared)], axis=-1)
    return info_nce(anchors, candidates, valid, temperature=temperature, excluded=excluded, partners=partners)


def contrasted(view: View, loss: ConfigDict) -> Embeddings:
    """Return the embeddings of a view that are contrasted: quantized, as in the paper, or before quantization.

    The gradient goes to the embeddings in both cases.
    """
    if loss.contrasted == "unquantized":
        return view.embeddings
    return Embeddings(**{name: view.of(name).output for name in EMBEDDINGS})


def _compared(quantized: Quantized, loss: ConfigDict) -> jax.Array:
    """Return what is contrasted of one embedding, `[batch, width]`, quantized or before, as `contrasted`."""
    return quantized.embedding if loss.contrasted == "unquantized" else quantized.output


def joined(view: View, loss: ConfigDict) -> jax.Array:
    """Return what is quantized of each code end to end, `[batch, E width]`."""
    return jnp.concatenate([_compared(quantized, loss) for quantized in view.quantized], axis=-1)


def shared_alone(view: View, loss: ConfigDict) -> jax.Array:
    """Return the last that is quantized of each code, `[batch, width]`: the one shared embedding where there is one."""
    return _compared(view.quantized[-1], loss)


def text_alone(view: View, loss: ConfigDict) -> jax.Array:
    """Return the text-specific embedding of each code, `[batch, width]`."""
    return _compared(view.of("text_specific"), loss)


# Start of the names of weights -> what is contrasted and distilled as a whole by them.
WHOLES = {"": joined, "shared_": shared_alone, "text_": text_alone}


def distills(loss: ConfigDict) -> bool:
    """Return whether similarities of the frozen text encoder are distilled into anything."""
    return any(loss[f"{name}distillation_weight"] for name in WHOLES)


@exact
def similarity_distillation(
    student: jax.Array, teacher: jax.Array, valid: jax.Array, *, temperature: float
) -> jax.Array:
    """Return the mean KL(softmax(cos(teacher) / tau) || softmax(cos(student) / tau)) of each code with the others.

    Args:
        student: `[batch, width]`.
        teacher: `[batch, other width]`; codes whose teacher is zero have none, and are left out.
        valid: `[batch]` bool.
        temperature: tau of both.
    """
    valid = valid & jnp.any(teacher != 0, axis=-1)
    others = valid[None, :] & ~jnp.eye(valid.shape[0], dtype=bool)

    def log_share(vectors: jax.Array) -> jax.Array:
        unit = l2_normalize(vectors)
        # A large number instead of infinity: 0 times it is 0.
        return jax.nn.log_softmax(jnp.where(others, unit @ unit.T / temperature, -1e9), axis=-1)

    wanted = log_share(jax.lax.stop_gradient(teacher))
    return masked_mean(jnp.sum(jnp.exp(wanted) * (wanted - log_share(student)), axis=-1), valid)


def loss_terms(
    view: View,
    augmented: View,
    valid: jax.Array,
    *,
    excluded: jax.Array,
    partners: jax.Array | None,
    teacher: jax.Array,
    has_text: jax.Array,
    has_both: jax.Array,
    links: CodeLinks | None = None,
    link_scores: Callable[[jax.Array], jax.Array] | None = None,
    config: ConfigDict,
) -> dict[str, jax.Array]:
    """Return every term of the objective, weighted by the coefficients of its own equation.

    The terms returned add up to the training loss.

    Args:
        view: the clean view; quantization and agreement are scored on it.
        augmented: the augmented view, for the specific contrast.
        valid: `[batch]` bool.
        excluded: `[batch, batch]` bool, pairs that are no negatives.
        partners: `[batch, batch]` bool, extra positives, or None.
        teacher: `[batch, text width]`, pooled states of the frozen text encoder, zero where there is no text.
        has_text: `[batch]` bool, codes shown with text; only these count for the text-specific embedding by itself.
        has_both: `[batch]` bool, codes shown with text and graph; only these count in the cross-covariance.
        links: to be predicted from the quantized embeddings, or None.
        link_scores: returns their `[batch, batch]` scores of the codes' vectors, see `LinkHead`.
        config: the `loss` section of the configuration.

    Returns:
        Scalars by name: quantization, kl, shared_contrast, alignment, text_contrast, graph_contrast,
        text_orthogonality, graph_orthogonality, joint_contrast, distillation, cross_covariance, link_prediction. The
        last four are 0 where their weight is.
    """
    contrast = {"temperature": config.infonce_temperature, "excluded": excluded, "partners": partners}
    quantization = sum(
        quantization_loss(q.embedding, q, valid, commitment_weight=config.commitment_weight, alpha=config.alpha)
        for q in view.quantized
    )
    e, clean, other = view.embeddings, contrasted(view, config), contrasted(augmented, config)
    agreement = jnp.sum(l2_normalize(e.text_cross) * l2_normalize(e.graph_cross), axis=-1)
    packing = {
        "shared_contrast": config.shared_weight
        * (
            info_nce(clean.text_cross, clean.graph_cross, valid, **contrast)
            + info_nce(clean.graph_cross, clean.text_cross, valid, **contrast)
        ),
        "alignment": -2.0 * config.beta * masked_mean(agreement, valid),
        "text_contrast": config.specific_weight
        * specific_contrast(
            clean.text_specific, other.text_specific, clean.graph_cross, other.graph_cross, valid, **contrast
        ),
        "graph_contrast": config.specific_weight
        * specific_contrast(
            clean.graph_specific, other.graph_specific, clean.text_cross, other.text_cross, valid, **contrast
        ),
        "text_orthogonality": config.lambda_val * orthogonality(clean.text_specific, e.text_cross, valid),
        "graph_orthogonality": config.lambda_val * orthogonality(clean.graph_specific, e.graph_cross, valid),
    }
    terms = {name: config.packing_weight * value for name, value in packing.items()}
    terms["quantization"] = config.quantization_weight * quantization
    terms["kl"] = config.kl_weight * kl_loss(*view.shared_distances, valid, temperature=config.kl_temperature)
    terms |= dict.fromkeys(BEYOND_THE_PAPER, jnp.zeros(()))
    # Each against its augmented view.
    for name, of in WHOLES.items():
        student, candidates = of(view, config), of(augmented, config)
        # What stands for a concealed text is like no other text.
        counted = valid & has_text if of is text_alone else valid
        if config[f"{name}joint_weight"]:
            weight = config[f"{name}joint_weight"]
            terms["joint_contrast"] += weight * info_nce(student, candidates, counted, **contrast)
        if config[f"{name}distillation_weight"]:
            distilled = similarity_distillation(student, teacher, counted, temperature=config.distillation_temperature)
            terms["distillation"] += config[f"{name}distillation_weight"] * distilled
    if config.cross_covariance_weight:
        terms["cross_covariance"] = config.cross_covariance_weight * cross_covariance(
            clean.text_specific, clean.graph_specific, valid & has_both
        )
    if config.link_weight and links is not None:
        scores = link_scores(jnp.concatenate([q.output for q in view.quantized], axis=-1))
        terms["link_prediction"] = config.link_weight * link_prediction(
            scores, links, valid, temperature=config.infonce_temperature
        )
    return terms


PACKING_TERMS = (
    "shared_contrast",
    "alignment",
    "text_contrast",
    "graph_contrast",
    "text_orthogonality",
    "graph_orthogonality",
)

BEYOND_THE_PAPER = ("joint_contrast", "distillation", "cross_covariance", "link_prediction")


def totals(terms: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return total_loss, quantization_loss, kl_loss and packing_loss of a dictionary of terms."""
    packing = sum(terms[name] for name in PACKING_TERMS)
    total = terms["quantization"] + terms["kl"] + packing + sum(terms[name] for name in BEYOND_THE_PAPER)
    return {
        "total_loss": total,
        "quantization_loss": terms["quantization"],
        "kl_loss": terms["kl"],
        "packing_loss": packing,
    }
