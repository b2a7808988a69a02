"""Hold the files that are copied into a checkout of ethos-ares; the conversion uses `events` as well."""
