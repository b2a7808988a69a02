"""Build the graph index of a model for the graph of the small world, without a model."""

from medtok_jax.batch import InputSizes
from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.model_reader import Neighborhood, SavedModel


def small_index(graph, *, with_graph: bool = True, **rule) -> GraphIndex:
    """Return an index of a graph; `rule` changes fields of its `Neighborhood`."""
    rule = {
        "max_nodes": 64,
        "hub_cap": 16,
        "priority": ("is_a", "parent_of", "maps_to", "has_phenotype", "phenotype_of"),
        "first_kept": ("is_a",),
        "codes_are_nodes": True,
    } | rule
    saved = SavedModel(
        config=None,
        sizes=InputSizes(8, len(graph.node_types), len(graph.relation_names), graph.num_nodes, rule["max_nodes"]),
        node_types=graph.node_types,
        relation_names=graph.relation_names,
        reverse=graph.reverse,
        neighborhood=Neighborhood(**rule),
        learned_missing_graph=True,
        encoder="",
        fingerprint="",
        variables={},
        graph=graph if with_graph else None,
    )
    return GraphIndex(saved)


def facts(graph, index, relation_names) -> set[tuple[str, str, str]]:
    """Return the edges of a `CodeGraph` as (name, relation, name); the name of the self node is `self`."""
    names = list(graph.names)
    if graph.self_node >= 0:
        names[graph.self_node] = "self"
    words = [*relation_names, "?"]
    edges = zip(graph.senders, graph.relations, graph.receivers, strict=True)
    return {(names[a], words[relation], names[b]) for a, relation, b in edges}


def of_table(table, row: int) -> dict:
    """Return the subgraph of a code in the data set as node-link JSON."""
    graph = table.graph
    here = slice(table.node_offsets[row], table.node_offsets[row + 1])
    there = slice(table.edge_offsets[row], table.edge_offsets[row + 1])
    keys = [graph.node_keys()[node] for node in table.nodes[here]]
    nodes = [{"id": key, "hop": int(hop)} for key, hop in zip(keys, table.hops[here], strict=True)]
    if table.self_node[row] >= 0:
        nodes[table.self_node[row]]["self"] = True
    edges = zip(table.senders[there], table.receivers[there], table.relations[there], strict=True)
    links = [{"source": keys[a], "target": keys[b], "relation": graph.relation_names[r]} for a, b, r in edges]
    return {"directed": True, "nodes": nodes, "links": links}
