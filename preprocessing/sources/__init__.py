"""Read the official files of each code system and ontology, one module per source."""
