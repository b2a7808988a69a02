"""Define the regions of a codebook and the embeddings of a code, which give token ids their meaning. No JAX here."""

import dataclasses

REGIONS = ("text", "graph", "shared")
# The four embeddings of a code, in the order of its tokens, and the region that each searches.
EMBEDDINGS = ("text_specific", "graph_specific", "text_cross", "graph_cross")
REGION_OF_EMBEDDING = {
    "text_specific": "text",
    "graph_specific": "graph",
    "text_cross": "shared",
    "graph_cross": "shared",
}


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


def positions_of(num_tokens: int, *, searches_all: bool = False) -> tuple[Position, ...]:
    """Return the positions of a code whose four embeddings have `num_tokens` tokens each.

    Args:
        num_tokens: K, tokens of an embedding.
        searches_all: whether the embeddings of the shared region search the whole codebook.
    """
    return tuple(
        Position(name, "all" if searches_all and region == "shared" else region, level)
        for name, region in REGION_OF_EMBEDDING.items()
        for level in range(num_tokens)
    )
