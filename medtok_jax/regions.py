"""Define the regions of a codebook and the embeddings of a code, which give token ids their meaning. No JAX here."""

import dataclasses
from collections.abc import Mapping, Sequence

REGIONS = ("text", "graph", "shared")
# The four embeddings of a code in the paper, in the order of its tokens, and the region that each searches.
EMBEDDINGS = ("text_specific", "graph_specific", "text_cross", "graph_cross")
REGION_OF_EMBEDDING = {
    "text_specific": "text",
    "graph_specific": "graph",
    "text_cross": "shared",
    "graph_cross": "shared",
}
# The one embedding that both modalities share where `model.shared_embedding` is `one`: the mean of the two cross ones.
SHARED = "shared"


@dataclasses.dataclass(frozen=True)
class Regions:
    """Hold the sizes of the three contiguous regions of a codebook, in the order of `REGIONS`."""

    text: int
    graph: int
    shared: int

    @classmethod
    def from_ratios(cls, codebook_size: int, text_ratio: float, graph_ratio: float) -> "Regions":
        """Round the text and graph shares to numbers of rows, and give the rest to the shared region."""
        text = round(codebook_size * text_ratio)
        graph = round(codebook_size * graph_ratio)
        return cls(text=text, graph=graph, shared=codebook_size - text - graph)

    @property
    def size(self) -> int:
        return self.text + self.graph + self.shared

    def bounds(self, region: str) -> tuple[int, int]:
        """Return the first row of `region`, and one past its last row."""
        start = {"text": 0, "graph": self.text, "shared": self.text + self.graph}[region]
        return start, start + getattr(self, region)

    def region_of(self, token: int) -> str:
        """Return the region of a token id between 0 and `size - 1`."""
        return next(name for name in REGIONS if token < self.bounds(name)[1])


@dataclasses.dataclass(frozen=True)
class Position:
    """Say what the token at one position of a code stands for.

    Attributes:
        embedding: the embedding that the token quantizes; the tokens of an embedding stand side by side.
        region: region of the codebook that it comes from, or `all`.
        level: its place among the tokens of the embedding, 0 for the first.
    """

    embedding: str
    region: str
    level: int


@dataclasses.dataclass(frozen=True)
class Part:
    """Say how one embedding of a code is quantized.

    Attributes:
        embedding: its name.
        region: the region that its tokens belong to.
        searched: the rows that they are taken from: that `region`, or `all`.
        num_tokens: number of its tokens.
        num_nearest: how many of them `pursuit` takes as nearest rows; the others refine.
    """

    embedding: str
    region: str
    searched: str
    num_tokens: int
    num_nearest: int


def token_counts(model: Mapping) -> dict[str, int]:
    """Return the number of tokens of each region of a code's 4K, at least 1: text, graph, and the rest is shared.

    Args:
        model: the `model` section of a configuration.
    """
    total = 4 * model["num_top_k_tokens"]
    text, graph = (max(1, round(total * model[f"{name}_token_share"])) for name in ("text", "graph"))
    return {"text": text, "graph": graph, "shared": total - text - graph}


def nearest_of(num_tokens: int) -> int:
    """Return how many of an embedding's tokens `pursuit` takes as nearest rows where the configuration does not say."""
    return max(1, num_tokens // 2)


def parts_of(model: Mapping) -> tuple[Part, ...]:
    """Return the embeddings that a model quantizes, in the order of a code's 4K tokens.

    Args:
        model: the `model` section of a configuration. Where `shared_embedding` is `one`, the one embedding of the
            shared region has all tokens of that region, else each of the two cross-modal ones has half of them.
    """
    names = EMBEDDINGS if model["shared_embedding"] == "two" else ("text_specific", "graph_specific", SHARED)
    regions = [REGION_OF_EMBEDDING.get(name, "shared") for name in names]
    counts = token_counts(model)
    nearest = model["num_nearest_tokens"] / model["num_top_k_tokens"]

    def part(name: str, region: str) -> Part:
        tokens = counts[region] // regions.count(region)
        return Part(
            embedding=name,
            region=region,
            searched="all" if region == "shared" and model["shared_search"] == "book" else region,
            num_tokens=tokens,
            num_nearest=max(1, int(tokens * nearest)) if nearest else nearest_of(tokens),
        )

    return tuple(map(part, names, regions))


def positions_of(parts: Sequence[Part]) -> tuple[Position, ...]:
    """Return the positions of a code whose embeddings are quantized as `parts` say."""
    return tuple(Position(part.embedding, part.searched, level) for part in parts for level in range(part.num_tokens))
